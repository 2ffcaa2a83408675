// Compares the solo kernel, which runs whole decoding steps of one sentence, with the kernels for
// many sentences. Networks of random weights decode whole sentences with both, and ids and scores
// must be the same to the bit.
#include <gtest/gtest.h>

#include <bit>
#include <numeric>

#include "engine/search.h"
#include "engine/workspace.h"
#include "tests/support.h"
#include "tests/table_model.h"

namespace xlate::test {
namespace {

using Ints = std::vector<std::int32_t>;

// A sentence of `source` tokens is decoded to at most `steps` tokens. The solo kernel can run the
// shape only if `fits`.
struct Shape {
  int beams;
  std::int64_t heads, head, layers, ffn, vocabulary;
  int source, steps;
  Activation activation = Activation::kRelu;
  bool biases = true, renormalize = false, fits = true, low_bits = true;
  Ints never_chosen = {};
  std::int64_t width() const { return heads * head; }
};

// This is the result of decoding with one backend.
struct Result {
  std::vector<Outcome> outcomes;
  // `at_once` is the largest number of steps that one launch was to run. Only the solo kernel runs
  // more than one.
  std::int64_t at_once = 0;
};

// Decodes with a post-norm decoder that has random weights and random source keys. It is the same
// network for all backends that compute in the same type.
class Network {
 public:
  Network(const BackendUnderTest& test, const Shape& shape) : lab_(test), shape_(shape) {
    const std::int64_t width = shape.width();
    Ints table(kPages);
    std::iota(table.rbegin(), table.rend(), 0);
    cache_table_ = lab_.put(table);
    table_ = {weight(shape.vocabulary, width, 1),
              lab_.put(random_matrix(random_, kPositions, width, DType::kFloat32), DType::kFloat32),
              1.5f};
    for (std::int64_t i = 0; i < shape.layers; ++i) {
      layers_.push_back({linear(3 * width, width), linear(width, width), norm(),
                         linear(width, width), linear(width, width), norm(),
                         linear(shape.ffn, width), linear(width, shape.ffn), norm(),
                         cache(shape.beams), cache(1)});
    }
    projection_ = {{lab_.put_weight(
                        scaled(shape.vocabulary, width, 2 / std::sqrt(static_cast<double>(width)))),
                    shape.biases
                        ? lab_.put(random_matrix(random_, 1, shape.vocabulary, DType::kFloat32),
                                   DType::kFloat32)
                        : Tensor{}}};
    caches_.source_lengths = lab_.put(Ints{shape.source});
    write();
  }

  Result decode() {
    SearchRules rules{.beams = shape_.beams,
                      .start = 0,
                      .ends = {1},
                      .renormalize = shape_.renormalize,
                      .never_chosen = shape_.never_chosen};
    Queue& queue = lab_.queue();
    Search search(*lab_, queue, rules, 1, shape_.steps);
    const StepRows rows{lab_.put(Ints{0}), 1, shape_.beams};
    const SlotStart start{.slot = 0, .limit = shape_.steps};
    Result result;
    // The second sentence finds the step recorded.
    for (int sentence = 0; sentence < 2; ++sentence) {
      search.start({&start, 1});
      std::int64_t steps = 0;
      for (bool done = false; !done;) {
        const std::int64_t ran = lab_->repeat(
            queue, 1, std::min<std::int64_t>(7, shape_.steps - steps), [&] { step(search, rows); });
        result.at_once = std::max(result.at_once, ran);
        steps += ran;
        const auto flags = search.read_done();
        std::int32_t flag = 0;
        std::memcpy(&flag, flags->wait().data(), sizeof flag);
        done = flag != 0;
        if (!done && steps >= shape_.steps) break;
      }
      // A step of a sentence that is done changes nothing.
      lab_->repeat(queue, 1, 1, [&] { step(search, rows); });
      search.read_done()->wait();
      for (const SearchResult& found : search.collect(Ints{start.slot}))
        result.outcomes.push_back(outcome_of(found));
    }
    lab_.clear();
    return result;
  }

 private:
  static constexpr std::int64_t kPositions = 256, kPageTokens = 16, kPages = 16;
  struct Layer {
    Linear qkv, out;
    Norm norm;
    Linear query, cross_out;
    Norm cross_norm;
    Linear up, down;
    Norm last_norm;
    PagedCache self, cross;
  };

  Matrix scaled(std::int64_t rows, std::int64_t columns, double by) {
    Matrix matrix = random_matrix(random_, rows, columns, lab_.type());
    for (double& value : matrix.values) value = rounded(lab_.type(), value * by);
    return matrix;
  }
  Tensor weight(std::int64_t rows, std::int64_t columns, double by) {
    return lab_.put(scaled(rows, columns, by), lab_.type());
  }
  Linear linear(std::int64_t rows, std::int64_t columns) {
    return {lab_.put_weight(scaled(rows, columns, 1.7 / std::sqrt(static_cast<double>(columns)))),
            shape_.biases ? weight(1, rows, 0.5) : Tensor{}};
  }
  Norm norm() {
    Matrix gain = random_matrix(random_, 1, shape_.width(), DType::kFloat32);
    for (double& value : gain.values) value = 1 + value / 4;
    return {lab_.put(gain, DType::kFloat32),
            lab_.put(random_matrix(random_, 1, shape_.width(), DType::kFloat32), DType::kFloat32),
            1e-5f};
  }
  PagedCache cache(std::int64_t keys_per_token) {
    return {weight(kPages * kPageTokens * keys_per_token, 2 * shape_.width(), 1), cache_table_,
            kPages, kPageTokens, keys_per_token};
  }

  // Writes the program of a decoding step, and makes its workspace. The residual stream may lack
  // low bits, which a workspace that allocates its own memory cannot leave out.
  void write() {
    const std::int64_t width = shape_.width();
    const TensorId x = tensor(TensorKind::kResidual, width),
                   sums = tensor(TensorKind::kAccumulator, width),
                   context = tensor(TensorKind::kComputeType, width),
                   inner = tensor(TensorKind::kComputeType, shape_.ffn),
                   qkv = tensor(TensorKind::kComputeType, 3 * width),
                   query = tensor(TensorKind::kComputeType, width);
    const Attention attention = usual_attention(shape_.width(), static_cast<int>(shape_.heads));
    program_.add(Embed{table_, x});
    const auto add_norm = [&](TensorId from, const Linear& layer, const Norm& norm) {
      program_.add(ApplyLinear{from, layer, Activation::kNone, sums});
      program_.add(AddNorm{x, sums, norm});
    };
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const Layer& layer = layers_[i];
      program_.add(ApplyLinear{x, layer.qkv, Activation::kNone, qkv});
      program_.add(AttendSelf{qkv, i, attention, context});
      add_norm(context, layer.out, layer.norm);
      program_.add(ApplyLinear{x, layer.query, Activation::kNone, query});
      program_.add(AttendCross{query, i, attention, context});
      add_norm(context, layer.cross_out, layer.cross_norm);
      program_.add(ApplyLinear{x, layer.up, shape_.activation, inner});
      add_norm(inner, layer.down, layer.last_norm);
      caches_.self.push_back(layer.self), caches_.cross.push_back(layer.cross);
    }
    program_.set_out(x);
    workspace_ = Workspace(rows_);
  }
  TensorId tensor(TensorKind kind, std::int64_t columns) {
    ResidualRows rows(lab_.uninitialized(
        shape_.beams, columns, kind == TensorKind::kAccumulator ? DType::kFloat32 : lab_.type()));
    if (kind == TensorKind::kResidual && shape_.low_bits)
      rows.low_bits = lab_.uninitialized(shape_.beams, columns, DType::kInt8);
    rows_.push_back(rows);
    return program_.tensor(kind, columns);
  }
  void step(Search& search, const StepRows& rows) {
    search.step(program_, workspace_, caches_, rows, projection_);
  }

  Lab lab_;
  Shape shape_;
  Random random_{7};
  Embedding table_;
  std::vector<Layer> layers_;
  Projection projection_;
  std::int32_t* cache_table_ = nullptr;
  Program program_;
  std::vector<ResidualRows> rows_;
  Workspace workspace_;
  PagedCaches caches_;
};

std::vector<Shape> shapes() {
  // Kernels are slow under compute-sanitizer, so there are only two small shapes.
  if (std::getenv("XLATE_TEST_FEW")) {
    return {{.beams = 4,
             .heads = 2,
             .head = 32,
             .layers = 2,
             .ffn = 192,
             .vocabulary = 300,
             .source = 20,
             .steps = 9,
             .never_chosen = {299}},
            {.beams = 1,
             .heads = 1,
             .head = 64,
             .layers = 1,
             .ffn = 64,
             .vocabulary = 700,
             .source = 5,
             .steps = 5}};
  }
  return {
      {.beams = 4,
       .heads = 8,
       .head = 64,
       .layers = 2,
       .ffn = 2048,
       .vocabulary = 13001,
       .source = 30,
       .steps = 40,
       .never_chosen = {13000}},
      {.beams = 1,
       .heads = 8,
       .head = 64,
       .layers = 2,
       .ffn = 2048,
       .vocabulary = 2501,
       .source = 17,
       .steps = 40,
       .low_bits = false,
       .never_chosen = {5, 2100, 2500}},
      {.beams = 8,
       .heads = 8,
       .head = 32,
       .layers = 1,
       .ffn = 576,
       .vocabulary = 1000,
       .source = 1,
       .steps = 30,
       .activation = Activation::kGelu,
       .biases = false},
      {.beams = 2,
       .heads = 16,
       .head = 64,
       .layers = 1,
       .ffn = 4096,
       .vocabulary = 2003,
       .source = 33,
       .steps = 20,
       .activation = Activation::kSwish},
      {.beams = 3,
       .heads = 4,
       .head = 128,
       .layers = 2,
       .ffn = 1024,
       .vocabulary = 5000,
       .source = 70,
       .steps = 90,
       .renormalize = true,
       .never_chosen = {3, 4999}},
      {.beams = 5,
       .heads = 1,
       .head = 64,
       .layers = 3,
       .ffn = 128,
       .vocabulary = 130,
       .source = 200,
       .steps = 25},
      // This one has more keys than a thread block holds at once.
      {.beams = 4,
       .heads = 4,
       .head = 64,
       .layers = 1,
       .ffn = 512,
       .vocabulary = 3000,
       .source = 250,
       .steps = 200,
       .renormalize = true,
       .never_chosen = {0, 1}},
      // These two fill shared memory, and the third one does not fit.
      {.beams = 8,
       .heads = 8,
       .head = 64,
       .layers = 1,
       .ffn = 2048,
       .vocabulary = 600,
       .source = 90,
       .steps = 100},
      {.beams = 4,
       .heads = 16,
       .head = 64,
       .layers = 1,
       .ffn = 4096,
       .vocabulary = 600,
       .source = 40,
       .steps = 100},
      {.beams = 8,
       .heads = 16,
       .head = 64,
       .layers = 1,
       .ffn = 4096,
       .vocabulary = 600,
       .source = 9,
       .steps = 12,
       .fits = false},
      // The solo kernel does not support heads of 16 columns, so the kernels for many sentences
      // run.
      {.beams = 4,
       .heads = 4,
       .head = 16,
       .layers = 2,
       .ffn = 128,
       .vocabulary = 500,
       .source = 9,
       .steps = 20,
       .fits = false},
      {.beams = 1,
       .heads = 12,
       .head = 64,
       .layers = 1,
       .ffn = 768,
       .vocabulary = 6000,
       .source = 100,
       .steps = 150,
       .renormalize = true,
       .never_chosen = {1}},
  };
}

class SoloStepTest : public OnBackend {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SoloStepTest);
INSTANTIATE_TEST_SUITE_P(, SoloStepTest, testing::ValuesIn(cuda_backends(true)), backend_name);

TEST_P(SoloStepTest, DecodesAsManyDo) {
  if (GetParam().make()->info().compute_capability != "9.0")
    GTEST_SKIP() << "the kernel is for compute capability 9.0";
  const auto many_of_them = cuda_backends(false);
  const auto many =
      std::find_if(many_of_them.begin(), many_of_them.end(),
                   [](const BackendUnderTest& test) { return test.type == GetParam().type; });
  for (const Shape& shape : shapes()) {
    SCOPED_TRACE(fmt::format("{} beams, {} heads of {}, vocabulary {}", shape.beams, shape.heads,
                             shape.head, shape.vocabulary));
    Result expected, found;
    ASSERT_NO_THROW(expected = Network(*many, shape).decode());
    ASSERT_NO_THROW(found = Network(GetParam(), shape).decode());
    EXPECT_EQ(expected.at_once, 1);
    if (shape.fits)
      EXPECT_GT(found.at_once, 1) << "the kernel under test did not run";
    else
      EXPECT_EQ(found.at_once, 1) << "expected the kernels for many";
    ASSERT_EQ(found.outcomes.size(), expected.outcomes.size());
    for (std::size_t i = 0; i < found.outcomes.size(); ++i) {
      const auto &hypotheses = found.outcomes[i].hypotheses,
                 &those = expected.outcomes[i].hypotheses;
      EXPECT_EQ(found.outcomes[i].steps, expected.outcomes[i].steps);
      ASSERT_FALSE(those.empty());
      ASSERT_EQ(hypotheses.size(), those.size());
      for (std::size_t k = 0; k < those.size(); ++k) {
        EXPECT_EQ(hypotheses[k].ids, those[k].ids) << "hypothesis " << k;
        EXPECT_EQ(std::bit_cast<std::uint32_t>(hypotheses[k].score),
                  std::bit_cast<std::uint32_t>(those[k].score))
            << "hypothesis " << k << ": " << hypotheses[k].score << ", expected " << those[k].score;
      }
    }
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace xlate::test
