// Tests whole programs: a pass over few rows uses the same memory as one over many rows, a
// backend refuses an operation that packed rows cannot have, and fusing neighbours changes no
// result.
#include "engine/program.h"

#include <gtest/gtest.h>

#include "engine/workspace.h"
#include "tests/support.h"

namespace xlate::test {
namespace {

class ProgramTest : public OnBackend {
 protected:
  Lab lab{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(, ProgramTest, testing::ValuesIn(backends()), backend_name);

TEST_P(ProgramTest, RoomsLieInTheirBytesAndStayThere) {
  Program program;
  const TensorId stream = program.tensor(TensorKind::kResidual, 33),
                 rows = program.tensor(TensorKind::kComputeType, 5),
                 sums = program.tensor(TensorKind::kAccumulator, 7),
                 batch = program.tensor(TensorKind::kBatch, 3);
  const Workspace workspace(*lab, program, 9, 20);
  EXPECT_EQ(workspace.rows(batch, 20).dtype, lab.type());
  EXPECT_EQ(workspace.rows(rows, 9).dtype, lab.type());
  EXPECT_EQ(workspace.rows(sums, 9).dtype, DType::kFloat32);
  EXPECT_EQ(static_cast<bool>(workspace.stream(stream, 9).low_bits), lab.type() != DType::kFloat32);
  EXPECT_FALSE(workspace.stream(rows, 9).low_bits);
  const char* first = static_cast<const char*>(workspace.rows(stream, 9).data);
  const auto bytes = static_cast<std::ptrdiff_t>(Workspace::bytes(program, lab.type(), 9, 20));
  for (const TensorId tensor : {stream, rows, sums, batch}) {
    const std::int64_t most = tensor == batch ? 20 : 9;
    const Tensor all = workspace.rows(tensor, most), few = workspace.rows(tensor, 2);
    const char* begin = static_cast<const char*>(all.data);
    EXPECT_GE(begin, first);
    EXPECT_LE(begin + most * all.stride * static_cast<std::int64_t>(size_of(all.dtype)),
              first + bytes);
    EXPECT_EQ(few.data, all.data);
    EXPECT_EQ(few.stride, all.stride);
    EXPECT_EQ(few.rows, 2);
  }
}

// Packed rows can attend only to sources that their batch has.
TEST_P(ProgramTest, PackedRowsWithoutSourcesCannotAttendToThem) {
  Program program;
  const TensorId query = program.tensor(TensorKind::kComputeType, 4),
                 out = program.tensor(TensorKind::kComputeType, 4);
  program.add(AttendCross{query, 0, usual_attention(4, 1), out});
  program.set_out(out);
  const Workspace workspace(*lab, program, 1, 1);
  expect_error([&] { lab->run(lab.queue(), program, workspace, PackedRows{.count = 1}); },
               {"packed rows", "have none"});
}

// A backend may fuse a product with the norm behind it only if the result stays the same. Here an
// activation is between the two.
TEST_P(ProgramTest, AnActivationBeforeANormIsNotLost) {
  if (lab.type() != DType::kFloat32)
    GTEST_SKIP() << "16-bit products with an activation do not stay in float32";
  Program program;
  const TensorId x = program.tensor(TensorKind::kComputeType, 2),
                 sums = program.tensor(TensorKind::kAccumulator, 2),
                 stream = program.tensor(TensorKind::kResidual, 2);
  Matrix input(1, 2), identity(2, 2), gain(1, 2), zero(1, 2);
  input(0, 0) = -6, input(0, 1) = 2;
  identity(0, 0) = identity(1, 1) = gain(0, 0) = gain(0, 1) = 1;
  const Linear layer{lab.put_weight(identity), {}};
  const Norm norm{lab.put(gain, DType::kFloat32), lab.put(zero, DType::kFloat32), 0.0f};
  program.add(ApplyLinear{x, layer, Activation::kRelu, sums});
  program.add(AddNorm{stream, sums, norm});
  program.set_out(stream);
  Matrix before(1, 2);
  before(0, 0) = 4;
  const Tensor rows = lab.put(before, DType::kFloat32);
  lab->run(
      lab.queue(), program,
      Workspace({lab.put(input, DType::kFloat32), lab.uninitialized(1, 2, DType::kFloat32), rows}),
      PackedRows{.count = 1});
  // The sum (4, 0) + (0, 2) has mean 3 and standard deviation 1. Without the activation it would be
  // (−2, 2), whose norm is (−1, 1).
  const Matrix found = lab.get(rows);
  EXPECT_NEAR(found(0, 0), 1, 1e-5);
  EXPECT_NEAR(found(0, 1), -1, 1e-5);
}

}  // namespace
}  // namespace xlate::test
