// Compares the operations that a decoder without an encoder needs with loops in double precision,
// on every backend: attention with fewer heads of keys, a softcap, a window and slopes, over packed
// prompts and over the keys of a prompt in a step, norms and rotations of heads, norms inside a
// sublayer, and a softcap of logits.
#include <gtest/gtest.h>

#include "engine/search.h"
#include "tests/attention_reference.h"
#include "tests/layer_reference.h"

namespace xlate::test {
namespace {

using Ints = std::vector<std::int32_t>;

// `slope` says whether heads have slopes.
struct AttentionCase {
  std::string name;
  int heads, key_heads;
  std::int64_t head;
  float scale, softcap;
  std::int64_t window;
  bool slope;
  std::int64_t gap, beams;
};

std::vector<AttentionCase> attention_cases() {
  std::vector<AttentionCase> cases{
      {"", 3, 3, 5, 0.4f, 0, 0, false, 0, 1},       {"", 4, 4, 64, 0.125f, 0, 0, false, 8, 4},
      {"", 4, 2, 16, 0.25f, 0, 0, false, 0, 3},     {"", 6, 3, 24, 0.2f, 0, 5, false, 0, 4},
      {"", 8, 1, 64, 0.125f, 0, 0, false, 8, 2},    {"", 6, 2, 16, 0.25f, 3, 0, false, 1, 5},
      {"", 4, 2, 256, 0.0625f, 4, 20, false, 0, 2}, {"", 5, 5, 32, 0.17f, 0, 0, true, 0, 9},
      {"", 4, 2, 128, 0.09f, 2, 1, true, 0, 1}};
  for (AttentionCase& of : cases)
    of.name = fmt::format("heads{}_of_{}_keys{}_softcap{}_window{}{}_beams{}", of.heads, of.head,
                          of.key_heads, of.softcap, of.window, of.slope ? "_slope" : "", of.beams);
  return cases;
}

class BackendDecoderAttention : public OnBackendWith<AttentionCase> {
 protected:
  Attention attention_of() {
    const AttentionCase& of = test();
    slopes = random_matrix(random, 1, of.heads, DType::kFloat32);
    return {.heads = of.heads,
            .head = of.head,
            .scale = of.scale,
            .distance_bias = {},
            .key_heads = of.key_heads,
            .softcap = of.softcap,
            .window = of.window,
            .slopes = of.slope ? lab.put(slopes, DType::kFloat32) : Tensor{}};
  }
  // Returns the attention of a query that stands at the position of the last of the keys.
  std::vector<double> expected(const double* query, const std::vector<KeyRow>& keys) const {
    const AttentionCase& of = test();
    const auto n = std::ssize(keys);
    const std::int64_t first = of.window > 0 ? std::max<std::int64_t>(0, n - of.window) : 0;
    std::vector<double> out;
    for (std::int64_t head = 0; head < of.heads; ++head) {
      const std::int64_t column = head / (of.heads / of.key_heads) * of.head;
      std::vector<double> weights;
      double sum = 0;
      for (std::int64_t t = first; t < n; ++t) {
        double score = 0;
        for (std::int64_t i = 0; i < of.head; ++i)
          score += query[head * of.head + i] * keys[static_cast<std::size_t>(t)].key[column + i];
        score *= static_cast<double>(of.scale);
        if (of.softcap > 0) score = of.softcap * std::tanh(score / of.softcap);
        if (of.slope) score += slopes(0, head) * static_cast<double>(t - (n - 1));
        weights.push_back(std::exp(score));
        sum += weights.back();
      }
      for (std::int64_t i = 0; i < of.head; ++i) {
        double value = 0;
        for (std::int64_t t = first; t < n; ++t)
          value += weights[static_cast<std::size_t>(t - first)] / sum *
                   keys[static_cast<std::size_t>(t)].value[column + i];
        out.push_back(value);
      }
    }
    return out;
  }
  Matrix slopes;
};
INSTANTIATE_TEST_SUITE_P(, BackendDecoderAttention,
                         testing::ValuesIn(on_each(cache_backends(), attention_cases(), 2)),
                         CaseName());

// One of the prompts has no rows, as one of a single token has. Another one has more queries than
// the CPU takes at once.
TEST_P(BackendDecoderAttention, OfPackedPromptsSeesNoLaterToken) {
  const AttentionCase& of = test();
  const Attention attention = attention_of();
  const std::int64_t width = attention.width(), key_width = attention.key_width();
  const Ints offsets{0, 1, 18, 18, 53, 153};
  const Matrix qkv = random_matrix(random, offsets.back(), width + 2 * key_width, lab.type());
  const Tensor out = lab.uninitialized(qkv.rows, width, lab.type(), of.gap),
               given = lab.put(qkv, lab.type(), of.gap);
  const auto attend = [&](std::int64_t pass) {
    for (std::int64_t first = 0; first < qkv.rows; first += pass) {
      const std::int64_t count = std::min(pass, qkv.rows - first);
      lab->attend_prompts(
          lab.queue(), given.row_range(first, count).column_range(0, width),
          given.row_range(0, first + count).column_range(width, 2 * key_width),
          {.count = count, .offsets_host = offsets, .offsets = lab.put(offsets), .first = first},
          attention, out.row_range(first, count));
    }
    return lab.get(out);
  };
  const Matrix found = attend(qkv.rows), cached = as_cached(lab, qkv, width);
  for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
    std::vector<KeyRow> keys;
    for (std::int32_t q = offsets[b]; q < offsets[b + 1]; ++q) {
      keys.push_back({row_of(cached, q) + width, row_of(cached, q) + width + key_width});
      expect_attention(found, q, expected(row_of(qkv, q), keys), backend(),
                       fmt::format("prompt {}", b));
      if (HasFatalFailure()) return;
    }
  }
  for (const std::int64_t pass : {1, 20, 64}) {
    const Matrix again = attend(pass);
    for (std::size_t i = 0; i < found.values.size(); ++i) {
      if (backend().cuda)
        ASSERT_EQ(again.values[i], found.values[i]) << "passes of " << pass;
      else
        ASSERT_NEAR(again.values[i], found.values[i], 1e-5) << "passes of " << pass;
    }
  }
}

TEST_P(BackendDecoderAttention, OfAStepReadsThePromptsKeysFirst) {
  const AttentionCase& of = test();
  const Attention attention = attention_of();
  const std::int64_t width = attention.width(), key_width = attention.key_width(), beams = of.beams,
                     longest = 40, page_tokens = 8, per_slot = 6, slots = 5;
  Pages own(lab, random, slots, per_slot, page_tokens, beams, key_width);
  const Pages shared(lab, random, slots, per_slot, page_tokens, 1, key_width);
  std::vector<std::uint8_t> ancestors(static_cast<std::size_t>(slots * longest * beams));
  for (std::uint8_t& ancestor : ancestors)
    ancestor = static_cast<std::uint8_t>(whole(random, 0, static_cast<int>(beams) - 1));
  const Ints lengths{37, 0, 8, 3, 0}, prompts{0, 0, 31, 48, 9}, groups{3, 0, 2, -1, 4, 1};
  const SearchState state{.length = lab.put(lengths),
                          .done = lab.put(Ints{0, 0, 0, 0, 0}),
                          .ancestor = lab.put(ancestors),
                          .slots = slots,
                          .beams = beams,
                          .longest = longest};
  const std::int64_t rows = std::ssize(groups) * beams;
  const Matrix qkv = random_matrix(random, rows, width + 2 * key_width, lab.type());
  const StepRows step{lab.put(groups), std::ssize(groups), beams};
  const PagedCaches caches{{}, {own.cache}, lab.put(prompts), {shared.cache}};
  const Tensor out = lab.uninitialized(rows, width, lab.type(), of.gap);
  lab->attend_self(lab.queue(), lab.put(qkv, lab.type(), of.gap), {state, step, caches}, 0,
                   attention, out);
  const Matrix found = lab.get(out);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int32_t slot = groups[static_cast<std::size_t>(r / beams)];
    if (slot < 0) continue;
    const std::int32_t length = lengths[static_cast<std::size_t>(slot)];
    own.store(own.row(slot, length, r % beams), row_of(qkv, r) + width);
    std::vector<KeyRow> keys;
    for (std::int32_t t = 0; t < prompts[static_cast<std::size_t>(slot)]; ++t)
      keys.push_back(shared.at(slot, t, 0));
    for (std::int64_t t = 0; t < length; ++t)
      keys.push_back(own.at(
          slot, t, ancestors[static_cast<std::size_t>((slot * longest + t) * beams + r % beams)]));
    keys.push_back(own.at(slot, length, r % beams));
    expect_attention(found, r, expected(row_of(qkv, r), keys), backend(),
                     fmt::format("slot {}", slot));
    if (HasFatalFailure()) return;
  }
  EXPECT_EQ(lab.get(own.cache.pages).values, own.contents.values);
  EXPECT_EQ(lab.get(shared.cache.pages).values, shared.contents.values);
}

// `pairs` is the number of pairs that are rotated.
struct HeadCase {
  std::string name;
  int heads, key_heads;
  std::int64_t head, pairs;
  bool norms, rms, shift;
};

std::vector<HeadCase> head_cases() {
  std::vector<HeadCase> cases{
      {"", 3, 3, 6, 3, false, false, false},   {"", 4, 2, 64, 32, false, false, false},
      {"", 6, 2, 24, 4, false, false, false},  {"", 6, 3, 24, 12, true, true, false},
      {"", 2, 1, 256, 128, true, true, false}, {"", 5, 5, 80, 16, true, false, true},
      {"", 4, 1, 32, 0, true, true, true}};
  for (HeadCase& of : cases)
    of.name = fmt::format("heads{}_of_{}_keys{}_pairs{}{}", of.heads, of.head, of.key_heads,
                          of.pairs, of.norms ? of.rms ? "_rms" : "_layer" : "");
  return cases;
}

class BackendHeads : public OnBackendWith<HeadCase> {
 protected:
  void make() {
    const HeadCase& of = test();
    const auto norm = [&](Matrix& gain, Matrix& shift) {
      gain = random_matrix(random, 1, of.head, DType::kFloat32);
      shift = Matrix(1, of.head);
      if (of.shift) shift = random_matrix(random, 1, of.head, DType::kFloat32);
      return Norm{lab.put(gain, DType::kFloat32),
                  of.shift ? lab.put(shift, DType::kFloat32) : Tensor{}, 1e-5f,
                  of.rms ? NormKind::kRms : NormKind::kLayer};
    };
    if (of.norms) {
      transform.query_norm = norm(query_gain, query_shift);
      transform.key_norm = norm(key_gain, key_shift);
    }
    if (of.pairs > 0) {
      rates = random_matrix(random, 1, of.pairs, DType::kFloat32);
      transform.rates = lab.put(rates, DType::kFloat32);
    }
    attention = {
        .heads = of.heads, .head = of.head, .distance_bias = {}, .key_heads = of.key_heads};
  }
  // Expects that the queries and keys of a row are those of `before`, transformed at a position,
  // and that its values are as they were.
  void expect_row(const Matrix& found, const Matrix& before, std::int64_t row,
                  std::int64_t position) {
    const HeadCase& of = test();
    for (std::int64_t h = 0; h < of.heads + of.key_heads; ++h) {
      const bool query = h < of.heads;
      Matrix x(1, of.head), magnitude(1, of.head);
      for (std::int64_t c = 0; c < of.head; ++c)
        magnitude(0, c) = x(0, c) = before(row, h * of.head + c);
      if (of.norms)
        x = normed(x, query ? query_gain : key_gain, query ? query_shift : key_shift, magnitude);
      Matrix expected = x;
      for (std::int64_t j = 0; j < of.pairs; ++j) {
        const float angle = static_cast<float>(position) * static_cast<float>(rates(0, j));
        const double c = std::cos(static_cast<double>(angle)),
                     s = std::sin(static_cast<double>(angle));
        expected(0, j) = x(0, j) * c - x(0, of.pairs + j) * s;
        expected(0, of.pairs + j) = x(0, of.pairs + j) * c + x(0, j) * s;
        magnitude(0, j) = magnitude(0, of.pairs + j) =
            std::fabs(magnitude(0, j)) + std::fabs(magnitude(0, of.pairs + j));
      }
      Matrix part(1, of.head);
      for (std::int64_t c = 0; c < of.head; ++c)
        part(0, c) = found(row, h * of.head + c), magnitude(0, c) = std::fabs(magnitude(0, c));
      expect_near(part, lab.type(), expected, magnitude, static_cast<double>(of.head) + 16);
    }
    for (std::int64_t c = (of.heads + of.key_heads) * of.head; c < before.columns; ++c)
      EXPECT_EQ(found(row, c), before(row, c));
  }
  Matrix query_gain, query_shift, key_gain, key_shift, rates;
  HeadTransform transform;
  Attention attention;

 private:
  // Returns the norm of one row. The bound of a layer norm's errors is also one of an RMS norm's.
  Matrix normed(const Matrix& x, const Matrix& gain, const Matrix& shift, Matrix& magnitude) const {
    if (!test().rms) return normalized(x, {}, gain, shift, 1e-5, magnitude);
    double squares = 0;
    for (const double value : x.values) squares += value * value;
    const double inverse = 1 / std::sqrt(squares / static_cast<double>(x.columns) + 1e-5);
    Matrix out(1, x.columns);
    for (std::int64_t c = 0; c < x.columns; ++c) {
      out(0, c) = x(0, c) * inverse * gain(0, c) + shift(0, c);
      magnitude(0, c) = std::fabs(x(0, c) * inverse * gain(0, c)) + std::fabs(shift(0, c));
    }
    return out;
  }
};
INSTANTIATE_TEST_SUITE_P(, BackendHeads, testing::ValuesIn(on_each(backends(), head_cases(), 2)),
                         CaseName());

TEST_P(BackendHeads, AreNormedAndRotatedInPackedRows) {
  make();
  const Ints positions{0, 1, 2, 0, 700, 31000};
  const Matrix qkv = random_matrix(random, std::ssize(positions),
                                   attention.width() + 2 * attention.key_width(), lab.type());
  const Tensor rows = lab.put(qkv, lab.type(), 3);
  lab->transform_heads(lab.queue(), rows,
                       PackedRows{.count = qkv.rows, .positions = lab.put(positions)}, transform,
                       attention);
  const Matrix found = lab.get(rows);
  for (std::int64_t r = 0; r < qkv.rows; ++r)
    expect_row(found, qkv, r, positions[static_cast<std::size_t>(r)]);
}

TEST_P(BackendHeads, StandBehindThePromptInAStep) {
  make();
  const std::int64_t beams = 2;
  const Ints lengths{3, 0, 40}, prompts{5, 0, 1000}, done{0, 0, 1}, groups{1, 2, 0, -1};
  const SearchState state{
      .length = lab.put(lengths), .done = lab.put(done), .slots = 3, .beams = beams, .longest = 64};
  const Matrix qkv = random_matrix(random, std::ssize(groups) * beams,
                                   attention.width() + 2 * attention.key_width(), lab.type());
  const Tensor rows = lab.put(qkv, lab.type());
  const PagedCaches shared{{}, {}, lab.put(prompts), {PagedCache{}}}, own{{}, {}, nullptr};
  const StepRows step{lab.put(groups), std::ssize(groups), beams};
  for (const PagedCaches* caches : {&shared, &own}) {
    lab.write(qkv, rows, lab.queue());
    lab->transform_heads(lab.queue(), rows, Step{state, step, *caches}, transform, attention);
    const Matrix found = lab.get(rows);
    for (std::int64_t r = 0; r < qkv.rows; ++r) {
      const auto slot = static_cast<std::size_t>(groups[static_cast<std::size_t>(r / beams)]);
      if (slot >= done.size() || done[slot]) continue;
      expect_row(found, qkv, r, lengths[slot] + (caches == &shared ? prompts[slot] : 0));
    }
  }
}

class BackendDecoder : public OnBackend {
 protected:
  Lab lab{GetParam(), Sharing::kShared};
  Random random{5};
};
INSTANTIATE_TEST_SUITE_P(, BackendDecoder, testing::ValuesIn(backends()), backend_name);

TEST_P(BackendDecoder, EmbedsTokensBehindThePrompt) {
  const std::int64_t beams = 2, width = 12;
  const Matrix table = random_matrix(random, 7, width, lab.type()),
               positions = random_matrix(random, 9, width, DType::kFloat32);
  const Ints tokens{3, 1, 6, 0}, lengths{2, 0}, prompts{6, 3};
  const SearchState state{.token = lab.put(tokens),
                          .length = lab.put(lengths),
                          .done = lab.put(Ints{0, 0}),
                          .slots = 2,
                          .beams = beams,
                          .longest = 8};
  const PagedCaches caches{{}, {}, lab.put(prompts), {PagedCache{}}};
  const Tensor rows = lab.uninitialized(4, width, lab.type());
  lab->embed(lab.queue(), {lab.put(table, lab.type()), lab.put(positions, DType::kFloat32), 1},
             Step{state, {lab.put(Ints{1, 0}), 2, beams}, caches}, rows);
  const Matrix found = lab.get(rows);
  for (std::int64_t r = 0; r < 4; ++r) {
    const auto slot = static_cast<std::size_t>(1 - r / beams);
    const std::int32_t token = tokens[slot * 2 + static_cast<std::size_t>(r % 2)];
    for (std::int64_t c = 0; c < width; ++c) {
      const double expected = table(token, c) + positions(lengths[slot] + prompts[slot], c);
      EXPECT_NEAR(found(r, c), expected, 2 * unit_roundoff(lab.type()));
    }
  }
}

TEST_P(BackendDecoder, CopiesColumnsOfRows) {
  const Matrix from = random_matrix(random, 33, 20, lab.type());
  Matrix to = random_matrix(random, 33, 50, lab.type());
  const Tensor source = lab.put(from, lab.type(), 1), target = lab.put(to, lab.type());
  lab->copy(lab.queue(), source.column_range(4, 16), target.column_range(32, 16));
  for (std::int64_t r = 0; r < to.rows; ++r) {
    for (std::int64_t c = 0; c < 16; ++c) to(r, 32 + c) = from(r, 4 + c);
  }
  EXPECT_EQ(lab.get(target).values, to.values);
}

// The stream is exact, so that the errors are those of what is added.
TEST_P(BackendDecoder, AddsTheNormOfWhatASublayerComputes) {
  for (const std::int64_t width : {7, 64, 1100}) {
    for (const auto& [inside, scale] : {std::pair{true, 1.0f}, {true, 0.5f}, {false, 0.25f}}) {
      SCOPED_TRACE(fmt::format("width {}, inside {}, scale {}", width, inside, scale));
      const std::int64_t rows = 9;
      Matrix x(rows, width);
      for (double& value : x.values) value = whole(random, -16, 16) / 8.0;
      const Matrix y = random_matrix(random, rows, width, DType::kFloat32),
                   gain = random_matrix(random, 1, width, DType::kFloat32), none(1, width);
      const Norm norm{lab.put(gain, DType::kFloat32), {}, 1e-5f};
      const Tensor stream = lab.put(x, lab.type()),
                   normed = lab.uninitialized(rows, width, lab.type());
      lab->add_norm(lab.queue(), stream,
                    Addend(lab.put(y, DType::kFloat32), inside ? norm : Norm{}, scale), {}, norm,
                    normed);
      Matrix magnitude = y;
      Matrix sum = inside ? normalized(y, {}, gain, none, 1e-5, magnitude) : y;
      for (std::size_t i = 0; i < sum.values.size(); ++i) {
        sum.values[i] = x.values[i] + scale * sum.values[i];
        magnitude.values[i] = std::fabs(magnitude.values[i]) + std::fabs(x.values[i]);
      }
      const double terms = static_cast<double>(width) + 8;
      expect_near(lab.get(stream), lab.type(), sum, magnitude, terms);
      const Matrix expected = normalized(sum, {}, gain, none, 1e-5, magnitude);
      expect_near(lab.get(normed), lab.type(), expected, magnitude, 4 * terms);
    }
  }
}

// One step of a greedy search leaves the log-probability of the best token as the score. With a
// minimum length the logits are in memory on every backend.
TEST_P(BackendDecoder, BoundsLogits) {
  const std::int64_t width = 16, vocabulary = 700;
  const double softcap = 1.5;
  const Matrix weight = random_matrix(random, vocabulary, width, lab.type()),
               hidden = random_matrix(random, 1, width, lab.type()),
               bias = random_matrix(random, 1, vocabulary, DType::kFloat32);
  std::vector<double> logits;
  for (std::int64_t v = 0; v < vocabulary; ++v) {
    double logit = bias(0, v);
    for (std::int64_t i = 0; i < width; ++i) logit += weight(v, i) * hidden(0, i);
    logits.push_back(softcap * std::tanh(logit / softcap));
  }
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit);
  for (const std::int64_t min_length : {0, 1}) {
    const SearchRules rules{.beams = 1, .ends = {}, .never_chosen = {}, .min_length = min_length};
    Search search(*lab, lab.queue(), rules, 1, 4);
    const SlotStart start{.slot = 0, .limit = 4};
    search.start({&start, 1});
    search.step(
        lab.put(hidden, lab.type()), {lab.put(Ints{0}), 1, 1},
        {{lab.put_weight(weight), lab.put(bias, DType::kFloat32)}, static_cast<float>(softcap)});
    const float score = lab.array<float>(search.state().score, 1).front();
    EXPECT_NEAR(score, *std::max_element(logits.begin(), logits.end()) - std::log(sum), 2e-5);
  }
}

// The logits are the hidden row itself. Slot 0 has the prompt 5 3 5, and slot 1 the start token 5
// alone. Of the tokens 3 and 4, in this order the best, the rules of n-grams and of repetition take
// the first one from slot 0.
TEST_P(BackendDecoder, RowRulesSeeThePrompt) {
  const std::int64_t vocabulary = 8;
  Matrix weight(vocabulary, vocabulary), hidden(2, vocabulary);
  for (std::int64_t v = 0; v < vocabulary; ++v) weight(v, v) = 1;
  for (std::int64_t row = 0; row < 2; ++row) hidden(row, 3) = 3, hidden(row, 4) = 2;
  const Ints before{5, 3};
  for (const SearchRules& rules :
       {SearchRules{.beams = 1, .never_chosen = {}, .no_repeat_ngram = 2},
        SearchRules{.beams = 1, .never_chosen = {}, .repetition_penalty = 2}}) {
    Search search(*lab, lab.queue(), rules, 2, 4, 2);
    const std::vector<SlotStart> starts{{.slot = 0, .limit = 4, .start = 5, .tokens_before = 2},
                                        {.slot = 1, .limit = 4, .start = 5}};
    const std::vector<std::span<const std::int32_t>> prompts{before, {}};
    search.start(starts, prompts);
    search.step(lab.put(hidden, lab.type()), {lab.put(Ints{0, 1}), 2, 1},
                {{lab.put_weight(weight), {}}});
    EXPECT_EQ(lab.array<std::int32_t>(search.state().token, 2), (Ints{4, 3}));
  }
}

}  // namespace
}  // namespace xlate::test
