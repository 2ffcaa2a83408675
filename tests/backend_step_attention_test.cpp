// Compares the attention of a decoding step over paged caches with loops in double precision. There
// is self-attention over the hypotheses' own tokens, and cross-attention over the source tokens.
#include <gtest/gtest.h>

#include "tests/attention_reference.h"

namespace xlate::test {
namespace {

using Ints = std::vector<std::int32_t>;

// With `shared_start` all hypotheses of a sentence share their first 12 tokens, as those of a
// search share a start. The other ancestors are random.
struct SelfCase {
  std::string name;
  std::int64_t width;
  int heads;
  std::int64_t gap, beams, page_tokens;
  bool shared_start;
};

// Each of the twelve shapes has both kinds of ancestors. From the fifth on, the widths of heads
// and the strides of rows are such as tensor cores take.
std::vector<SelfCase> self_cases() {
  struct Shape {
    int width, heads, gap, beams, page_tokens;
  };
  std::vector<SelfCase> cases;
  for (const auto& [width, heads, gap, beams, page_tokens] : {Shape{12, 3, 2, 1, 1},
                                                              {12, 3, 2, 2, 4},
                                                              {12, 3, 2, 5, 16},
                                                              {248, 2, 0, 3, 8},
                                                              {64, 2, 0, 1, 16},
                                                              {64, 2, 8, 5, 4},
                                                              {128, 2, 0, 1, 16},
                                                              {128, 2, 16, 4, 16},
                                                              {192, 3, 8, 9, 1},
                                                              {256, 2, 0, 8, 16},
                                                              {512, 16, 8, 3, 8},
                                                              {1024, 16, 0, 4, 8}}) {
    for (const bool shared : {false, true})
      cases.push_back({fmt::format("width{}_heads{}_gap{}_beams{}_pages{}_{}", width, heads, gap,
                                   beams, page_tokens, shared ? "shared_start" : "mixed"),
                       width, heads, gap, beams, page_tokens, shared});
  }
  return cases;
}

class BackendSelfAttention : public OnBackendWith<SelfCase> {};
INSTANTIATE_TEST_SUITE_P(, BackendSelfAttention,
                         testing::ValuesIn(on_each(cache_backends(), self_cases())), CaseName());

// Lengths lie around the edges of pages, and the slots are in no order. The step writes each row's
// key and value, and attends to them as well.
TEST_P(BackendSelfAttention, FollowsPagesAndAncestors) {
  const auto& [name, width, heads, gap, beams, page_tokens, shared_start] = test();
  const std::int64_t slots = 6, longest = 34, per_slot = (longest + page_tokens - 1) / page_tokens;
  Pages pages(lab, random, slots, per_slot, page_tokens, beams, width);
  const Ints lengths{0, 1, 15, 16, 17, 33}, groups{5, 0, 3, 2, 4};  // Slot 1 takes no part.
  std::vector<std::uint8_t> ancestors(static_cast<std::size_t>(slots * longest * beams));
  for (std::size_t i = 0; i < ancestors.size(); ++i) {
    const bool shared = shared_start && static_cast<std::int64_t>(i) / beams % longest < 12;
    ancestors[i] =
        static_cast<std::uint8_t>(shared ? 0 : whole(random, 0, static_cast<int>(beams) - 1));
  }
  const SearchState state{.length = lab.put(lengths),
                          .done = lab.put(Ints(static_cast<std::size_t>(slots), 0)),
                          .ancestor = lab.put(ancestors),
                          .slots = slots,
                          .beams = beams,
                          .longest = longest};
  const std::int64_t rows = static_cast<std::int64_t>(groups.size()) * beams;
  const Matrix qkv = random_matrix(random, rows, 3 * width, lab.type());
  const Tensor out = lab.uninitialized(rows, width, lab.type(), 2 * gap);
  const StepRows step{lab.put(groups), static_cast<std::int64_t>(groups.size()), beams};
  const PagedCaches caches{
      {pages.cache}, {pages.cache}, lab.put(Ints(static_cast<std::size_t>(slots), 0))};
  lab->attend_self(lab.queue(), lab.put(qkv, lab.type(), gap), {state, step, caches}, 0,
                   usual_attention(width, heads), out);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int32_t slot = groups[static_cast<std::size_t>(r / beams)];
    pages.store(pages.row(slot, lengths[static_cast<std::size_t>(slot)], r % beams),
                row_of(qkv, r) + width);
  }
  EXPECT_EQ(lab.get(pages.cache.pages).values, pages.contents.values)
      << "The step must write the new keys and values, and nothing else.";
  const Matrix found = lab.get(out);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int32_t slot = groups[static_cast<std::size_t>(r / beams)],
                       length = lengths[static_cast<std::size_t>(slot)];
    std::vector<KeyRow> keys;
    for (std::int32_t t = 0; t < length; ++t)
      keys.push_back(pages.at(
          slot, t, ancestors[static_cast<std::size_t>((slot * longest + t) * beams + r % beams)]));
    keys.push_back(pages.at(slot, length, r % beams));
    expect_attention(found, r, attention(row_of(qkv, r), keys, width, heads), backend(),
                     fmt::format("length {}", length));
    if (HasFatalFailure()) return;
  }
}

struct ManyCase {
  std::string name;
  std::int64_t slots, beams;
};

std::vector<ManyCase> many_cases() {
  if (few_cases()) return {{"slots290_beams3", 290, 3}};
  return {{"slots560_beams3", 560, 3}, {"slots560_beams1", 560, 1}};
}

class BackendStepAttention : public OnBackendWith<ManyCase> {};
INSTANTIATE_TEST_SUITE_P(, BackendStepAttention,
                         testing::ValuesIn(on_each(cache_backends(), many_cases())), CaseName());

// There are so many sentences that each thread block of a GPU has several, one after another. Their
// lengths end anywhere in its tiles, and some of the sentences are done.
TEST_P(BackendStepAttention, OfManySentences) {
  const auto& [name, slots, beams] = test();
  const std::int64_t longest = 40, width = 64, page_tokens = 8,
                     per_slot = (longest + page_tokens) / page_tokens;
  const int heads = 2;
  Pages self(lab, random, slots, per_slot, page_tokens, beams, width),
      cross(lab, random, slots, per_slot, page_tokens, 1, width);
  Ints lengths, sources, done, groups;
  for (std::int32_t slot = 0; slot < slots; ++slot) {
    lengths.push_back(whole(random, 0, longest - 1));
    sources.push_back(whole(random, 1, longest));
    done.push_back(whole(random, 0, 9) == 0);
    groups.push_back(slot);
  }
  std::shuffle(groups.begin(), groups.end(), random);
  std::vector<std::uint8_t> ancestors(static_cast<std::size_t>(slots * longest * beams));
  for (std::uint8_t& ancestor : ancestors)
    ancestor = static_cast<std::uint8_t>(whole(random, 0, static_cast<int>(beams) - 1));
  const SearchState state{.length = lab.put(lengths),
                          .done = lab.put(done),
                          .ancestor = lab.put(ancestors),
                          .slots = slots,
                          .beams = beams,
                          .longest = longest};
  const std::int64_t rows = slots * beams;
  const Matrix qkv = random_matrix(random, rows, 3 * width, lab.type()),
               query = random_matrix(random, rows, width, lab.type());
  const Tensor self_out = lab.uninitialized(rows, width, lab.type()),
               cross_out = lab.uninitialized(rows, width, lab.type());
  const StepRows step{lab.put(groups), slots, beams};
  const std::int32_t* source_lengths = lab.put(sources);
  const PagedCaches caches{{cross.cache}, {self.cache}, source_lengths};
  lab->attend_self(lab.queue(), lab.put(qkv, lab.type()), {state, step, caches}, 0,
                   usual_attention(width, heads), self_out);
  lab->attend_cross(lab.queue(), lab.put(query, lab.type()), {state, step, caches}, 0,
                    usual_attention(width, heads), cross_out);
  const Matrix found = lab.get(self_out), found_cross = lab.get(cross_out);
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto slot = static_cast<std::size_t>(groups[static_cast<std::size_t>(r / beams)]);
    if (done[slot]) continue;
    std::vector<KeyRow> keys;
    for (std::int32_t t = 0; t < lengths[slot]; ++t)
      keys.push_back(
          self.at(static_cast<std::int64_t>(slot), t,
                  ancestors[static_cast<std::size_t>(
                      (static_cast<std::int64_t>(slot) * longest + t) * beams + r % beams)]));
    self.store(self.row(static_cast<std::int64_t>(slot), lengths[slot], r % beams),
               row_of(qkv, r) + width);
    keys.push_back(self.at(static_cast<std::int64_t>(slot), lengths[slot], r % beams));
    expect_attention(found, r, attention(row_of(qkv, r), keys, width, heads), backend(),
                     fmt::format("self, length {}", lengths[slot]));
    keys.clear();
    for (std::int32_t t = 0; t < sources[slot]; ++t)
      keys.push_back(cross.at(static_cast<std::int64_t>(slot), t, 0));
    expect_attention(found_cross, r, attention(row_of(query, r), keys, width, heads), backend(),
                     fmt::format("cross, length {}", sources[slot]));
    if (HasFatalFailure()) return;
  }
}

struct CrossCase {
  std::string name;
  std::int64_t beams, width;
  int heads;
  std::int64_t gap, page_tokens;
};

// These are all pairs of the numbers of beams and the shapes.
std::vector<CrossCase> cross_cases() {
  struct Shape {
    int width, heads, gap, page_tokens;
  };
  std::vector<CrossCase> cases;
  for (const int beams : {1, 4, 9}) {
    for (const auto& [width, heads, gap, page_tokens] : {Shape{10, 5, 3, 3},
                                                         {248, 2, 0, 8},
                                                         {64, 2, 0, 16},
                                                         {192, 3, 8, 16},
                                                         {128, 1, 16, 16},
                                                         {1024, 16, 8, 16}})
      cases.push_back({fmt::format("beams{}_width{}_heads{}_gap{}_pages{}", beams, width, heads,
                                   gap, page_tokens),
                       beams, width, heads, gap, page_tokens});
  }
  return cases;
}

class BackendCrossAttention : public OnBackendWith<CrossCase> {};
INSTANTIATE_TEST_SUITE_P(, BackendCrossAttention,
                         testing::ValuesIn(on_each(cache_backends(), cross_cases())), CaseName());

TEST_P(BackendCrossAttention, OfAllBeamsIsOverTheSlotsSource) {
  const auto& [name, beams, width, heads, gap, page_tokens] = test();
  const std::int64_t slots = 5, longest = 40;
  const Pages pages(lab, random, slots, (longest + page_tokens - 1) / page_tokens, page_tokens, 1,
                    width);
  const Ints lengths{1, 40, 16, 17, 3}, groups{2, 4, 0, 1};
  const std::int64_t rows = static_cast<std::int64_t>(groups.size()) * beams;
  const Matrix query = random_matrix(random, rows, width, lab.type());
  const Tensor out = lab.uninitialized(rows, width, lab.type(), 2 * gap);
  const Pages own(lab, random, slots, 1, page_tokens, beams, width);
  const Ints none(static_cast<std::size_t>(slots), 0);
  const SearchState state{
      .length = lab.put(none),
      .done = lab.put(none),
      .ancestor = lab.put(std::vector<std::uint8_t>(static_cast<std::size_t>(slots * beams))),
      .slots = slots,
      .beams = beams,
      .longest = 1};
  const StepRows step{lab.put(groups), static_cast<std::int64_t>(groups.size()), beams};
  const std::int32_t* source_lengths = lab.put(lengths);
  const PagedCaches caches{{pages.cache}, {own.cache}, source_lengths};
  lab->attend_cross(lab.queue(), lab.put(query, lab.type(), gap), {state, step, caches}, 0,
                    usual_attention(width, heads), out);
  const Matrix found = lab.get(out);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int32_t slot = groups[static_cast<std::size_t>(r / beams)];
    std::vector<KeyRow> keys;
    for (std::int32_t t = 0; t < lengths[static_cast<std::size_t>(slot)]; ++t)
      keys.push_back(pages.at(slot, t, 0));
    expect_attention(found, r, attention(row_of(query, r), keys, width, heads), backend(),
                     fmt::format("length {}", lengths[static_cast<std::size_t>(slot)]));
    if (HasFatalFailure()) return;
  }
  EXPECT_EQ(lab.get(pages.cache.pages).values, pages.contents.values);
}

}  // namespace
}  // namespace xlate::test
