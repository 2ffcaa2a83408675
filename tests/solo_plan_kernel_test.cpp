// Tests how SoloCompiler plans the decoding steps of the families of models, without a GPU: which
// steps fit into shared memory, and that no rows are overwritten while a block still reads them.
// Whether the kernel then computes the right bits is for solo_step_test.cpp.
#include <gtest/gtest.h>

#include "engine/cuda/solo/compiler.h"
#include "engine/workspace.h"
#include "models/programs.h"
#include "tests/support.h"

namespace xlate::test {
namespace {

using cuda::SoloArgs;
using cuda::SoloKind;
using cuda::SoloOp;
using cuda::SoloOut;
using cuda::SoloRows;

// This is the shape of a decoder.
struct Decoder {
  const char* name;
  std::int64_t width, heads, head, layers, inner, vocabulary;
  bool before = true, embedding_norm = false, gated = false, biases = true, positions = true;
  NormKind norm = NormKind::kLayer;
  bool distance_bias = false;
};

const Decoder kMarian{.name = "ende-base",
                      .width = 512,
                      .heads = 8,
                      .head = 64,
                      .layers = 6,
                      .inner = 2048,
                      .vocabulary = 32001,
                      .before = false};
const Decoder kMarianBig{.name = "opus-mt-tc-big",
                         .width = 1024,
                         .heads = 16,
                         .head = 64,
                         .layers = 6,
                         .inner = 4096,
                         .vocabulary = 60000,
                         .before = false};
const Decoder kBart{.name = "bart-base",
                    .width = 768,
                    .heads = 12,
                    .head = 64,
                    .layers = 6,
                    .inner = 3072,
                    .vocabulary = 50265,
                    .before = false,
                    .embedding_norm = true};
const Decoder kNllb{.name = "nllb-600m, m2m100-418m",
                    .width = 1024,
                    .heads = 16,
                    .head = 64,
                    .layers = 12,
                    .inner = 4096,
                    .vocabulary = 256206};
const Decoder kMbart{.name = "mbart-50",
                     .width = 1024,
                     .heads = 16,
                     .head = 64,
                     .layers = 12,
                     .inner = 4096,
                     .vocabulary = 250054,
                     .embedding_norm = true};
const Decoder kPegasus{.name = "pegasus-large",
                       .width = 1024,
                       .heads = 16,
                       .head = 64,
                       .layers = 16,
                       .inner = 4096,
                       .vocabulary = 96103};

// Returns a decoder of a T5 model.
Decoder t5(const char* name, std::int64_t width, std::int64_t heads, std::int64_t layers,
           std::int64_t inner, bool gated) {
  return {.name = name,
          .width = width,
          .heads = heads,
          .head = 64,
          .layers = layers,
          .inner = inner,
          .vocabulary = 32128,
          .gated = gated,
          .biases = false,
          .positions = false,
          .norm = NormKind::kRms,
          .distance_bias = true};
}
const Decoder kT5Base = t5("t5-base", 768, 12, 12, 3072, false);
const Decoder kT5Large = t5("t5-large", 1024, 16, 24, 4096, false);
const Decoder kFlanSmall = t5("flan-t5-small", 512, 6, 8, 1024, true);
const Decoder kFlanBase = t5("flan-t5-base", 768, 12, 12, 2048, true);
const Decoder kFlanLarge = t5("flan-t5-large", 1024, 16, 24, 2816, true);

/// Plans a decoding step whose tensors are nowhere in memory.
class Planner {
 public:
  Planner(const Decoder& decoder, int beams, int longest_target = 200, int longest_source = 512,
          int blocks = 120)
      : beams_(beams),
        backend_(make_backend({.threads = 1})),
        compiler_(*backend_, {8 * 16, blocks}, kShared) {
    const Network network = network_of(decoder);
    program_ = step_program(network);
    std::vector<ResidualRows> rows;
    for (const auto& [kind, columns] : program_.tensors()) {
      rows.emplace_back(
          matrix(beams, columns, kind == TensorKind::kAccumulator ? DType::kFloat32 : kType));
      if (kind == TensorKind::kResidual)
        rows.back().low_bits = matrix(beams, columns, DType::kInt8);
    }
    const Workspace workspace(std::move(rows));
    const std::int64_t width = decoder.heads * decoder.head, tokens = 16;
    PagedCaches caches{.cross = {}, .self = {}, .source_lengths = &integer_};
    for (std::int64_t i = 0; i < decoder.layers; ++i) {
      caches.self.push_back({matrix(1000, 2 * width, kType), &integer_,
                             (longest_target + tokens - 1) / tokens, tokens, beams});
      caches.cross.push_back({matrix(1000, 2 * width, kType), &integer_,
                              (longest_source + tokens - 1) / tokens, tokens, 1});
    }
    SearchState state;
    state.slots = 1, state.beams = beams, state.longest = longest_target;
    cuda::RulesView rules{};
    rules.beams = beams;
    plan_ = compiler_.plan(program_, workspace, {state, {&integer_, 1, beams}, caches},
                           network.projection, rules, beams == 1 ? 1 : 2 * beams);
  }

  const std::optional<cuda::SoloPlan>& plan() const { return plan_; }
  const std::string& reason() const { return compiler_.reason(); }

 private:
  static constexpr DType kType = DType::kFloat16;
  // A block on an H200 may have 227 KiB, of which SoloLauncher leaves 2 KiB.
  static constexpr int kShared = 225 * 1024;

  Tensor matrix(std::int64_t rows, std::int64_t columns, DType type) {
    return {&somewhere_, type, rows, columns, columns};
  }
  Network network_of(const Decoder& decoder) {
    const std::int64_t width = decoder.width, heads = decoder.heads * decoder.head;
    const auto linear = [&](std::int64_t out, std::int64_t in) {
      return Linear{matrix(out, in, kType), decoder.biases ? matrix(1, out, kType) : Tensor{}};
    };
    const Norm norm{matrix(1, width, DType::kFloat32),
                    decoder.norm == NormKind::kLayer ? matrix(1, width, DType::kFloat32) : Tensor{},
                    1e-5f, decoder.norm};
    const Norm none{};
    const SublayerNorms norms =
        decoder.before ? SublayerNorms{norm, none, none} : SublayerNorms{none, none, norm};
    Network network;
    Stack& stack = network.decoder;
    stack.width = width, stack.inner = decoder.inner, stack.gated = decoder.gated;
    stack.activation = decoder.gated ? Activation::kGeluTanh : Activation::kRelu;
    stack.self = stack.cross = usual_attention(heads, static_cast<int>(decoder.heads));
    if (decoder.distance_bias) {
      stack.self.scale = stack.cross.scale = 1;
      stack.self.distance_bias = matrix(decoder.heads, 257, DType::kFloat32);
    }
    stack.embedding = {matrix(decoder.vocabulary, width, kType),
                       decoder.positions ? matrix(1024, width, DType::kFloat32) : Tensor{}, 1};
    if (decoder.embedding_norm) stack.embedding_norm = norm;
    if (decoder.before) stack.final_norm = norm;
    const DecoderLayer layer{{linear(3 * heads, width), linear(width, heads), norms, {}},
                             {linear(heads, width), linear(width, heads), norms},
                             {linear(decoder.gated ? 2 * decoder.inner : decoder.inner, width),
                              linear(width, decoder.inner), norms}};
    // A network with an encoder has cross-attention.
    network.encoder_layers.resize(1);
    network.decoder_layers.assign(static_cast<std::size_t>(decoder.layers), layer);
    network.projection = {{matrix(decoder.vocabulary, width, kType), {}}};
    return network;
  }

  struct alignas(16) Vector {
    std::byte bytes[16];
  } somewhere_{};
  std::int32_t integer_ = 0;
  int beams_;
  std::unique_ptr<Backend> backend_;
  cuda::SoloCompiler compiler_;
  Program program_;
  std::optional<cuda::SoloPlan> plan_;
};

// Returns whether two tensors' rows share memory.
bool overlap(const SoloRows& a, const SoloRows& b, int beams) {
  return a.pitch != 0 && b.pitch != 0 && a.at < b.at + beams * b.pitch &&
         b.at < a.at + beams * a.pitch;
}

// Runs the step's operations over a map of shared memory that says which rows were written last.
// Expects that rows are whole when they are read. Expects as well that an operation sends nothing
// to where a slower block may still read or write: it may be at the exchange before, unless that
// was of a product for all blocks, or at a norm behind it.
void expect_no_conflict(const cuda::SoloPlan& plan) {
  const SoloArgs& args = plan.args;
  std::vector<SoloRows> written(static_cast<std::size_t>(args.layout.bytes));
  const auto bytes = [&](const SoloRows& rows) {
    return std::span(written).subspan(static_cast<std::size_t>(rows.at),
                                      static_cast<std::size_t>(rows.pitch * args.beams));
  };
  const auto write = [&](const SoloRows& rows) {
    if (rows.pitch != 0) std::fill(bytes(rows).begin(), bytes(rows).end(), rows);
  };
  const auto expect_whole = [&](const SoloRows& rows) {
    if (rows.pitch == 0) return;
    for (const SoloRows& byte : bytes(rows)) {
      ASSERT_EQ(byte.at, rows.at);
      ASSERT_EQ(byte.pitch, rows.pitch);
    }
  };
  std::vector<SoloRows> elsewhere{args.embedded, args.embedded_low_bits};
  write(args.embedded), write(args.embedded_low_bits);
  for (std::size_t i = 0; i < plan.ops.size(); ++i) {
    SCOPED_TRACE(fmt::format("operation {}", i));
    const SoloOp& op = plan.ops[i];
    const std::vector<SoloRows> read{op.x, op.residual, op.residual_low_bits};
    for (const SoloRows& rows : read) expect_whole(rows);
    if (op.kind == SoloKind::kNorm) {
      elsewhere.insert(elsewhere.end(), read.begin(), read.end());
      elsewhere.insert(elsewhere.end(), {op.out, op.out_low_bits});
    } else {
      EXPECT_FALSE(overlap(op.out, op.x, args.beams));
      for (const SoloRows& rows : elsewhere) EXPECT_FALSE(overlap(op.out, rows, args.beams));
      elsewhere.clear();
      if (op.kind != SoloKind::kLinear || op.for_heads) elsewhere = {op.x};
    }
    write(op.out), write(op.out_low_bits);
    if (testing::Test::HasFailure()) return;
  }
  expect_whole(args.hidden);
}

TEST(SoloPlanTest, FamiliesFitIntoSharedMemory) {
  const struct {
    const Decoder& decoder;
    int beams, any, stages, held_keys;
  } cases[] = {
      {kMarian, 1, 0, 8, 80},    {kMarian, 4, 0, 7, 80},    {kMarian, 8, 0, 5, 80},
      {kMarianBig, 1, 0, 8, 80}, {kMarianBig, 4, 0, 5, 80}, {kBart, 1, 1, 8, 80},
      {kBart, 4, 1, 6, 80},      {kNllb, 1, 1, 7, 80},      {kNllb, 4, 1, 4, 80},
      {kNllb, 5, 1, 4, 64},      {kMbart, 1, 1, 7, 80},     {kMbart, 4, 1, 4, 80},
      {kMbart, 5, 1, 4, 64},     {kPegasus, 1, 1, 7, 80},   {kPegasus, 4, 1, 4, 80},
      {kT5Base, 1, 1, 8, 80},    {kT5Base, 4, 1, 6, 80},    {kT5Base, 8, 1, 4, 48},
      {kT5Large, 1, 1, 7, 80},   {kT5Large, 4, 1, 4, 80},   {kFlanSmall, 4, 1, 7, 80},
      {kFlanSmall, 8, 1, 5, 80}, {kFlanBase, 4, 1, 6, 80},  {kFlanLarge, 1, 1, 7, 80},
      {kFlanLarge, 4, 1, 4, 80}, {kMarian, 5, 0, 6, 80},    {kMarianBig, 5, 0, 4, 80},
      {kBart, 5, 1, 5, 80},      {kBart, 8, 1, 4, 48},      {kPegasus, 5, 1, 4, 48},
      {kT5Base, 5, 1, 5, 80},    {kT5Large, 5, 1, 4, 48},   {kFlanBase, 1, 1, 8, 80},
      {kFlanBase, 5, 1, 5, 80},  {kFlanBase, 8, 1, 4, 48},  {kFlanLarge, 5, 1, 4, 48},
  };
  for (const auto& [decoder, beams, any, stages, held_keys] : cases) {
    SCOPED_TRACE(fmt::format("{}, {} beams", decoder.name, beams));
    const Planner planner(decoder, beams);
    ASSERT_TRUE(planner.plan()) << planner.reason();
    const SoloArgs& args = planner.plan()->args;
    EXPECT_EQ(args.any, any);
    EXPECT_EQ(args.layout.stages, stages);
    EXPECT_EQ(args.layout.held_keys, held_keys);
    EXPECT_GE(args.layout.vocabulary_stages, 7);
    expect_no_conflict(*planner.plan());
  }
}

TEST(SoloPlanTest, AGateIsAPartOfItsProduct) {
  for (const int beams : {1, 4, 8}) {
    const Planner planner(kFlanBase, beams);
    ASSERT_TRUE(planner.plan()) << planner.reason();
    int gated = 0;
    for (const SoloOp& op : planner.plan()->ops) {
      if (op.out_kind != SoloOut::kGated) continue;
      ++gated;
      EXPECT_EQ(op.width, 2048);
      EXPECT_EQ(op.tiles, 2 * 2048 / 16);
    }
    EXPECT_EQ(gated, 12);
  }
}

// Several clusters compute the layers of wide networks, at most three fifths of all. Each of their
// blocks has a tile of every product at least, and one head at most.
TEST(SoloPlanTest, ClustersDivideWideLayers) {
  Decoder odd = kNllb;
  odd.width = 576, odd.heads = 9, odd.inner = 1216;
  Decoder few_tiles = odd;
  few_tiles.inner = 256;
  // There would be fewer blocks than heads.
  Decoder too_few_tiles = odd;
  too_few_tiles.inner = 128;
  const struct {
    const Decoder& decoder;
    int blocks, expected;
  } cases[] = {{kMarian, 120, 16},      {kFlanSmall, 120, 16}, {kBart, 120, 48},
               {kT5Base, 120, 48},      {kNllb, 120, 64},      {kNllb, 100, 56},
               {kNllb, 40, 24},         {odd, 120, 32},        {odd, 32, 16},
               {kFlanBase, 120, 48},    {kMarianBig, 120, 64}, {few_tiles, 120, 16},
               {too_few_tiles, 120, 16}};
  for (const auto& [decoder, blocks, expected] : cases) {
    SCOPED_TRACE(fmt::format("{}, {} blocks", decoder.name, blocks));
    constexpr int kBeams = 2;
    const Planner planner(decoder, kBeams, 200, 512, blocks);
    ASSERT_TRUE(planner.plan()) << planner.reason();
    const SoloArgs& args = planner.plan()->args;
    ASSERT_EQ(args.layer_blocks, expected);
    EXPECT_EQ(args.wide, decoder.width > 512 && decoder.inner != 128);
    EXPECT_LE(args.heads * args.head_stride, expected);
    for (const SoloOp& op : planner.plan()->ops) {
      if (op.kind == SoloKind::kNorm) continue;
      const int words = op.out_kind == SoloOut::kFloat32 ? op.width : op.width / 2;
      EXPECT_GE(args.post.area, kBeams * words);
      if (op.kind != SoloKind::kLinear) continue;
      int tiles = 0;
      for (int block = 0; block < expected; ++block) {
        const int first = cuda::first_tile_of(block, op.tiles, expected),
                  count = cuda::first_tile_of(block + 1, op.tiles, expected) - first;
        EXPECT_EQ(first, tiles);
        EXPECT_GE(count, args.wide ? 1 : 0);
        EXPECT_LE(count, cuda::most_tiles_of(op.tiles, expected));
        tiles += count;
      }
      EXPECT_EQ(tiles, op.tiles);
    }
  }
}

// Where the logits of so large a vocabulary do not fit into the shared memory of the others, fewer
// blocks compute the layers.
TEST(SoloPlanTest, VocabularyGetsTheBlocksThatItNeeds) {
  const auto layer_blocks = [](int beams) {
    const Planner planner(kNllb, beams, 200, 512, 64);
    return planner.plan() ? planner.plan()->args.layer_blocks : 0;
  };
  EXPECT_EQ(layer_blocks(1), 32);
  EXPECT_EQ(layer_blocks(5), 24);
}

// A block may overwrite words of SoloPost only because this is so (docs/kernels/batch_one.md).
TEST(SoloPlanTest, AnAttentionIsBehindEveryProductForHeads) {
  for (const Decoder& decoder : {kMarianBig, kBart, kNllb, kT5Base, kFlanLarge}) {
    SCOPED_TRACE(decoder.name);
    const Planner planner(decoder, 4);
    ASSERT_TRUE(planner.plan()) << planner.reason();
    const std::vector<SoloOp>& ops = planner.plan()->ops;
    int for_heads = 0;
    for (std::size_t i = 0; i < ops.size(); ++i) {
      if (ops[i].kind != SoloKind::kLinear || !ops[i].for_heads) continue;
      ++for_heads;
      ASSERT_LT(i + 1, ops.size());
      EXPECT_TRUE(ops[i + 1].kind == SoloKind::kSelf || ops[i + 1].kind == SoloKind::kCross);
    }
    EXPECT_EQ(for_heads, 2 * decoder.layers);
  }
}

// Blocks read their weights in large copies, without many zeros.
TEST(SoloPlanTest, StagesAreFull) {
  for (const Decoder& decoder : {kMarian, kNllb, kT5Base, kFlanLarge}) {
    SCOPED_TRACE(decoder.name);
    const Planner planner(decoder, 1);
    ASSERT_TRUE(planner.plan()) << planner.reason();
    for (const SoloOp& op : planner.plan()->ops) {
      if (op.kind != SoloKind::kLinear) continue;
      const int stage_bytes = op.stage_boxes * op.round_tiles * cuda::kSoloTileOutputs * 64 * 2;
      EXPECT_LE(stage_bytes, cuda::kSoloStageBytes) << op.in << " to " << op.width;
      EXPECT_GE(stage_bytes, cuda::kSoloStageBytes / 2) << op.in << " to " << op.width;
      EXPECT_EQ(op.stages * op.stage_boxes, op.in / 64);
      const int tiles = cuda::most_tiles_of(op.tiles, planner.plan()->args.layer_blocks);
      EXPECT_GE(op.rounds * op.round_tiles, tiles);
      EXPECT_LT(op.rounds * op.round_tiles, tiles + op.rounds);
    }
  }
}

TEST(SoloPlanTest, SaysWhatIsNotSupported) {
  for (const Decoder& decoder : {kMarianBig, kNllb, kPegasus, kT5Large, kFlanLarge})
    EXPECT_EQ(Planner(decoder, 8).reason(), "shared memory is too small") << decoder.name;
  Decoder narrow = kNllb;
  narrow.heads = 64, narrow.head = 16;
  EXPECT_EQ(Planner(narrow, 4).reason(), "64 heads of width 16");
  EXPECT_EQ(Planner(kMarian, 12).reason(), "1 sentences of 12 beams, width 512");
}

}  // namespace
}  // namespace xlate::test
