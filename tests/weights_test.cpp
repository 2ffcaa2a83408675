// Tests how the tensors of a model file reach a backend: every stored type, tied tensors, and int8
// with its scales.
#include "models/weights.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/late_backend.h"
#include "tests/model_builder.h"

namespace xlate::test {
namespace {

using nlohmann::json;

// Compares the expansion of all 65536 bit patterns with a slow reference.
void expect_expanded(DType type, double (*value_of)(std::uint16_t)) {
  std::vector<std::uint16_t> bits(65536);
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<std::uint16_t>(i);
  const StoredTensor stored{type, 256, 256, reinterpret_cast<const std::byte*>(bits.data()),
                            nullptr};
  std::vector<float> found(bits.size());
  expand(stored, 0, 65536, found.data());
  for (std::size_t i = 0; i < bits.size(); ++i) {
    const auto expected = static_cast<float>(value_of(bits[i]));
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(found[i])) << i;
    } else {
      ASSERT_EQ(std::bit_cast<std::uint32_t>(found[i]), std::bit_cast<std::uint32_t>(expected))
          << "pattern " << i;
    }
  }
  float part[7];
  expand(stored, 15'000, 7, part);
  for (std::size_t i = 0; i < 7; ++i) EXPECT_EQ(part[i], found[15'000 + i]);
}

TEST(Expand, Float16) { expect_expanded(DType::kFloat16, half_value); }

TEST(Expand, BFloat16) { expect_expanded(DType::kBFloat16, bfloat16_value); }

TEST(Expand, Float32) {
  const std::vector<float> values{1, -2, 0x1p-140f, 4};
  float found[2];
  expand({DType::kFloat32, 2, 2, reinterpret_cast<const std::byte*>(values.data()), nullptr}, 1, 2,
         found);
  EXPECT_EQ(found[0], -2);
  EXPECT_EQ(found[1], 0x1p-140f);
}

TEST(Expand, Int8FromAnyPlaceInARow) {
  Random random(3);
  const std::int64_t rows = 5, columns = 7;
  std::vector<std::int8_t> values(35);
  std::vector<float> scales(5);
  for (auto& value : values) value = static_cast<std::int8_t>(whole(random, -128, 127));
  for (float& scale : scales) scale = uniform(random, 0, 2);
  const StoredTensor stored{DType::kInt8, rows, columns,
                            reinterpret_cast<const std::byte*>(values.data()), scales.data()};
  for (std::int64_t first = 0; first < 35; ++first) {
    for (std::int64_t count = 0; first + count <= 35; ++count) {
      std::vector<float> found(static_cast<std::size_t>(count) + 1, 99);
      expand(stored, first, count, found.data());
      for (std::int64_t i = 0; i < count; ++i) {
        const auto at = static_cast<std::size_t>(first + i);
        ASSERT_EQ(found[static_cast<std::size_t>(i)],
                  static_cast<float>(values[at]) * scales[at / 7]);
      }
      ASSERT_EQ(found.back(), 99);
    }
  }
}

// Returns the values that a backend of this type should hold of a stored tensor.
Matrix stored_values(const StoredTensor& stored, DType type) {
  std::vector<float> values(static_cast<std::size_t>(stored.rows * stored.columns));
  expand(stored, 0, stored.rows * stored.columns, values.data());
  Matrix matrix(stored.rows, stored.columns);
  std::transform(values.begin(), values.end(), matrix.values.begin(),
                 [type](float value) { return rounded(type, value); });
  return matrix;
}

class WeightsTest : public OnBackend {
 protected:
  Lab lab{GetParam()};

  // Returns the weights of a layer. Packed ones are what products with unit vectors give.
  Matrix values_of(const Linear& layer) {
    if (!layer.packed) return lab.get(layer.weight);
    const std::int64_t rows = layer.weight.rows, columns = layer.weight.columns;
    Matrix units(columns, columns), values(rows, columns);
    for (std::int64_t i = 0; i < columns; ++i) units(i, i) = 1;
    const Tensor out = lab.uninitialized(columns, rows, lab.type());
    lab->linear(lab.queue(), lab.put(units, lab.type()), {layer.weight, {}, layer.packed},
                Activation::kNone, out);
    const Matrix products = lab.get(out);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) values(i, j) = products(j, i);
    }
    return values;
  }
  // Loads two matrices and their biases. Expects each to have the values of the file, or the file
  // to be refused.
  void expect_own_values(const ModelBuilder& model, const char* first, const char* second) {
    const AlignedBytes bytes = model.bytes();
    try {
      const ModelFile file("tiny.bin", bytes.span());
      Weights weights(file, *lab, lab.queue());
      for (const std::string name : {first, second}) {
        const json& shape = [&]() -> const json& {
          for (const json& entry : model.header["tensors"]) {
            if (entry["name"] == name + ".weight") return entry["shape"];
          }
          throw std::logic_error(name);
        }();
        const std::int64_t rows = shape[0], columns = shape[1];
        const Linear linear = weights.linear(name, name, rows, columns);
        ASSERT_EQ(linear.bias.columns, rows) << name;
        ASSERT_EQ(linear.weight.rows, rows) << name;
        ASSERT_EQ(linear.weight.columns, columns) << name;
        EXPECT_EQ(lab.get(linear.bias).values,
                  stored_values(file.vector(name + ".bias", rows), lab.type()).values)
            << name;
        EXPECT_EQ(values_of(linear).values,
                  stored_values(file.matrix(name + ".weight", rows, columns), lab.type()).values)
            << name;
      }
    } catch (const Error& error) {
      EXPECT_NE(std::string_view(error.what()).find("tiny.bin"), std::string_view::npos)
          << error.what();
    }
  }
};
INSTANTIATE_TEST_SUITE_P(, WeightsTest, testing::ValuesIn(backends()), backend_name);

TEST_P(WeightsTest, EveryTypeIsLoaded) {
  for (const DType type : {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kInt8}) {
    expect_own_values(tiny_model(type, type == DType::kInt8 ? DType::kBFloat16 : type),
                      "encoder.0.self.qkv", "decoder.1.feed_forward.down");
  }
}

TEST_P(WeightsTest, TiedTensorsAreLoadedOnce) {
  ModelBuilder model = tiny_model();
  model.tensor("decoder.embedding.weight")["offset"] =
      model.tensor("encoder.embedding.weight")["offset"];
  const AlignedBytes bytes = model.bytes();
  const ModelFile file("tiny.bin", bytes.span());
  Weights weights(file, *lab, lab.queue());
  const Tensor first = weights.matrix("encoder.embedding.weight", 8, 4);
  const std::int64_t size = weights.bytes();
  EXPECT_EQ(weights.matrix("decoder.embedding.weight", 8, 4).data, first.data);
  EXPECT_EQ(weights.bytes(), size);
  weights.matrix("decoder.projection.weight", 8, 4);
  EXPECT_EQ(weights.bytes(), 2 * size);
}

// The rows beyond those of the file are zero, because search multiplies with them.
TEST_P(WeightsTest, RowsAreMadeUpToTheBackendsMultiple) {
  const AlignedBytes bytes = tiny_model().bytes();
  const ModelFile file("tiny.bin", bytes.span());
  Weights weights(file, *lab, lab.queue());
  Tensor weight = weights.matrix("decoder.projection.weight", 8, 4);
  const std::int64_t multiple = lab->row_multiple(),
                     rows = (8 + multiple - 1) / multiple * multiple;
  EXPECT_EQ(weights.bytes(), rows * 4 * static_cast<std::int64_t>(size_of(lab.type())));
  weight.rows = rows;
  const Matrix found = lab.get(weight);
  EXPECT_TRUE(std::all_of(found.values.begin() + 8 * 4, found.values.end(),
                          [](double value) { return value == 0; }));
}

// Entries that share an offset and nothing else are not tied.
TEST_P(WeightsTest, VectorsOfTwoSizesInOnePlace) {
  ModelBuilder model = tiny_model();
  model.tensor("encoder.0.self.out.bias")["offset"] =
      model.tensor("encoder.0.self.qkv.bias")["offset"];
  expect_own_values(model, "encoder.0.self.out", "encoder.0.self.qkv");
}

TEST_P(WeightsTest, MatricesOfTwoWidthsInOnePlace) {
  ModelBuilder model = tiny_model();
  model.tensor("decoder.0.feed_forward.down.weight")["offset"] =
      model.tensor("encoder.0.self.out.weight")["offset"];
  expect_own_values(model, "encoder.0.self.out", "decoder.0.feed_forward.down");
}

TEST_P(WeightsTest, VectorsOfTwoTypesInOnePlace) {
  ModelBuilder model = tiny_model();
  auto& entry = model.tensor("encoder.0.feed_forward.down.bias");
  entry["offset"] = model.tensor("encoder.0.self.out.bias")["offset"];
  entry["dtype"] = "float16";
  entry["bytes"] = 8;
  expect_own_values(model, "encoder.0.self.out", "encoder.0.feed_forward.down");
}

// The same int8 numbers have two scales. A converter that stores equal bytes once writes W and 2·W
// in this way.
TEST_P(WeightsTest, Int8MatricesThatShareNumbersButNotScales) {
  ModelBuilder model = tiny_model(DType::kInt8);
  model.tensor("decoder.0.self.out.weight")["offset"] =
      model.tensor("encoder.0.self.out.weight")["offset"];
  expect_own_values(model, "encoder.0.self.out", "decoder.0.self.out");
}

TEST(Weights, WrongScalesAreTold) {
  const auto backend = make_backend({.threads = 1});
  const auto queue = backend->make_queue();
  const std::string name = "encoder.0.self.out.weight";
  const auto expect = [&](const std::function<void(ModelBuilder&)>& edit,
                          std::initializer_list<std::string_view> texts) {
    ModelBuilder model = tiny_model(DType::kInt8);
    edit(model);
    const AlignedBytes bytes = model.bytes();
    expect_error(
        [&] {
          const ModelFile file("tiny.bin", bytes.span());
          Weights(file, *backend, *queue).linear("encoder.0.self.out", "encoder.0.self.out", 4, 4);
        },
        texts);
  };
  expect([&](ModelBuilder& model) { model.remove("tensors", name + ".scale"); },
         {"tiny.bin", "'" + name + ".scale'", "missing", "[4]"});
  expect(
      [&](ModelBuilder& model) {
        model.tensor(name + ".scale")["shape"] = {2, 2};
      },
      {"tiny.bin", "'" + name + ".scale'", "[2, 2]", "[4]"});
  expect(
      [&](ModelBuilder& model) {
        model.tensor(name + ".scale")["dtype"] = "float16";
        model.tensor(name + ".scale")["bytes"] = 8;
      },
      {"tiny.bin", name + ".scale'", "float16", "expected float32"});
  expect(
      [&](ModelBuilder& model) {
        auto& entry = model.tensor("encoder.0.self.out.bias");
        entry["dtype"] = "int8";
        entry["bytes"] = 4;
      },
      {"tiny.bin", "'encoder.0.self.out.bias'", "int8"});
}

// This backend says that it computes in a 16-bit type, and keeps no values.
class NarrowBackend : public UnrecordedBackend {
 public:
  explicit NarrowBackend(DType type) : UnrecordedBackend(make_backend({})), type_(type) {}
  DType compute_type() const override { return type_; }
  void upload_as(Queue&, std::span<const float>, DType, void*) override {}

 private:
  DType type_;
};

void load_with_value(float value, DType type) {
  ModelBuilder model = tiny_model();
  const std::string name = "encoder.0.feed_forward.up.weight";
  std::memcpy(model.data.data() + model.tensor(name)["offset"].get<std::size_t>() + 8, &value, 4);
  const AlignedBytes bytes = model.bytes();
  const ModelFile file("tiny.bin", bytes.span());
  NarrowBackend backend(type);
  const auto queue = backend.make_queue();
  Weights weights(file, backend, *queue);
  weights.matrix(name, 6, 4);
}

TEST(Weights, AValueThatFloat16CannotHoldIsRefused) {
  for (const float value : {65520.0f, -70000.0f, 3e38f}) {
    expect_error([&] { load_with_value(value, DType::kFloat16); },
                 {"tiny.bin: tensor 'encoder.0.feed_forward.up.weight'", "float16 cannot hold",
                  "--precision bf16 or fp32"});
    load_with_value(value, DType::kBFloat16);
    load_with_value(value, DType::kFloat32);
  }
  load_with_value(65519.0f, DType::kFloat16);
  load_with_value(-std::numeric_limits<float>::infinity(), DType::kFloat16);
}

}  // namespace
}  // namespace xlate::test
