// Compares the solo kernel, which runs whole decoding steps of one sentence, with the kernels for
// many sentences. Networks of random weights decode whole sentences with both, and ids and scores
// must be the same to the bit.
#include <gtest/gtest.h>

#include <bit>

#include "tests/solo_network.h"

namespace xlate::test {
namespace {

std::vector<SoloShape> shapes() {
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
             .steps = 5},
            {.beams = 3,
             .heads = 2,
             .head = 32,
             .layers = 2,
             .ffn = 128,
             .vocabulary = 300,
             .source = 20,
             .steps = 9,
             .activation = Activation::kGeluTanh,
             .biases = false,
             .before = true,
             .gated = true,
             .positions = false,
             .shifts = false,
             .norm = NormKind::kRms,
             .scale = 1,
             .distances = 4},
            // Several clusters compute the layers of this one.
            {.beams = 2,
             .heads = 9,
             .head = 64,
             .layers = 1,
             .ffn = 640,
             .vocabulary = 300,
             .source = 5,
             .steps = 4,
             .before = true}};
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
      // Several clusters compute the layers of the first two. Blocks of the second have 2 or 3 of
      // the 76 tiles of a product. The third has so few tiles that one cluster computes its layers.
      {.beams = 4,
       .heads = 10,
       .head = 64,
       .layers = 3,
       .ffn = 640,
       .vocabulary = 5000,
       .source = 30,
       .steps = 120},
      {.beams = 1,
       .heads = 9,
       .head = 64,
       .layers = 2,
       .ffn = 1216,
       .vocabulary = 3000,
       .source = 9,
       .steps = 60,
       .activation = Activation::kGelu},
      {.beams = 2,
       .heads = 9,
       .head = 64,
       .layers = 2,
       .ffn = 128,
       .vocabulary = 3000,
       .source = 9,
       .steps = 30},
      // These fill shared memory, and the last of them does not fit.
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
       .steps = 12},
      {.beams = 8,
       .heads = 16,
       .head = 64,
       .layers = 1,
       .ffn = 8192,
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

// These are shapes of other families than post-norm Transformers.
std::vector<SoloShape> family_shapes() {
  return {
      // These have layer norms before the sublayers, with and without a norm of the embeddings
      // (M2M-100, mBART).
      {.beams = 4,
       .heads = 16,
       .head = 64,
       .layers = 3,
       .ffn = 4096,
       .vocabulary = 5003,
       .source = 40,
       .steps = 60,
       .before = true},
      {.beams = 1,
       .heads = 16,
       .head = 64,
       .layers = 2,
       .ffn = 4096,
       .vocabulary = 3000,
       .source = 90,
       .steps = 100,
       .activation = Activation::kGelu,
       .before = true,
       .embedding_norm = true},
      {.beams = 8,
       .heads = 8,
       .head = 64,
       .layers = 2,
       .ffn = 2048,
       .vocabulary = 1500,
       .source = 33,
       .steps = 30,
       .low_bits = false,
       .before = true},
      {.beams = 5,
       .heads = 12,
       .head = 64,
       .layers = 2,
       .ffn = 3072,
       .vocabulary = 2000,
       .source = 12,
       .steps = 40,
       .before = true,
       .embedding_norm = true},
      // This one has layer norms after the sublayers and a norm of the embeddings (BART).
      {.beams = 4,
       .heads = 12,
       .head = 64,
       .layers = 2,
       .ffn = 3072,
       .vocabulary = 2000,
       .source = 50,
       .steps = 60,
       .activation = Activation::kGelu,
       .embedding_norm = true},
      // These have RMS norms and gates, and the first has a distance bias but no biases of products
      // and no positions (T5).
      {.beams = 4,
       .heads = 12,
       .head = 64,
       .layers = 3,
       .ffn = 2048,
       .vocabulary = 3001,
       .source = 25,
       .steps = 40,
       .activation = Activation::kGeluTanh,
       .biases = false,
       .before = true,
       .gated = true,
       .positions = false,
       .shifts = false,
       .norm = NormKind::kRms,
       .scale = 1,
       .distances = 20},
      {.beams = 1,
       .heads = 16,
       .head = 64,
       .layers = 2,
       .ffn = 2816,
       .vocabulary = 3001,
       .source = 25,
       .steps = 40,
       .activation = Activation::kSwish,
       .before = true,
       .gated = true,
       .positions = false,
       .norm = NormKind::kRms,
       .scale = 0.3f},
      // The heads are narrower than the model (T5 small, version 1.1).
      {.beams = 8,
       .heads = 6,
       .head = 64,
       .layers = 2,
       .ffn = 1024,
       .vocabulary = 1000,
       .source = 25,
       .steps = 40,
       .biases = false,
       .before = true,
       .gated = true,
       .positions = false,
       .shifts = false,
       .norm = NormKind::kRms,
       .scale = 1,
       .distances = 128,
       .columns = 512},
      // These have gates without a distance bias, and a layer norm without a shift after the
      // sublayers or an RMS norm before them.
      {.beams = 2,
       .heads = 4,
       .head = 128,
       .layers = 2,
       .ffn = 1024,
       .vocabulary = 700,
       .source = 18,
       .steps = 30,
       .activation = Activation::kGelu,
       .gated = true,
       .shifts = false},
      {.beams = 1,
       .heads = 8,
       .head = 32,
       .layers = 1,
       .ffn = 320,
       .vocabulary = 500,
       .source = 7,
       .steps = 20,
       .before = true,
       .gated = true,
       .norm = NormKind::kRms},
      // This one has a distance bias with more keys than a thread block holds at once, and the
      // usual
      // scale.
      {.beams = 4,
       .heads = 4,
       .head = 64,
       .layers = 2,
       .ffn = 512,
       .vocabulary = 3000,
       .source = 200,
       .steps = 150,
       .renormalize = true,
       .never_chosen = {0, 1},
       .before = true,
       .distances = 30},
  };
}

class SoloStepTest : public OnBackend {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SoloStepTest);
INSTANTIATE_TEST_SUITE_P(, SoloStepTest, testing::ValuesIn(cuda_backends(true)), backend_name);

// Expects that the solo kernel decodes each shape to the bits of the kernels for many sentences.
void expect_same_as_many(const BackendUnderTest& test, const std::vector<SoloShape>& shapes) {
  const auto many_of_them = cuda_backends(false);
  const auto many =
      std::find_if(many_of_them.begin(), many_of_them.end(),
                   [&](const BackendUnderTest& other) { return other.type == test.type; });
  for (const SoloShape& shape : shapes) {
    SCOPED_TRACE(fmt::format("{} beams, {} heads of {}, feed-forward {}, vocabulary {}",
                             shape.beams, shape.heads, shape.head, shape.ffn, shape.vocabulary));
    SoloDecoded expected, found;
    ASSERT_NO_THROW(expected = SoloNetwork(*many, shape).decode());
    ASSERT_NO_THROW(found = SoloNetwork(test, shape).decode());
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
    if (testing::Test::HasFailure()) return;
  }
}

TEST_P(SoloStepTest, DecodesAsManyDo) {
  if (GetParam().make()->info().compute_capability != "9.0")
    GTEST_SKIP() << "the kernel is for compute capability 9.0";
  expect_same_as_many(GetParam(), shapes());
  if (!std::getenv("XLATE_TEST_FEW")) expect_same_as_many(GetParam(), family_shapes());
}

}  // namespace
}  // namespace xlate::test
