// A backend's attention and caches against loops in double precision written here.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/support.h"

namespace xlate::test {
namespace {

using Ints = std::vector<std::int32_t>;

// Where a key lies: a row of a matrix, and its value's.
struct KeyRow {
  const double* key;
  const double* value;
};

// softmax(q·K / √(D/heads))·V for each head.
std::vector<double> attention(const double* query, const std::vector<KeyRow>& keys,
                              std::int64_t width, int heads) {
  const std::int64_t part = width / heads;
  std::vector<double> out(static_cast<std::size_t>(width));
  for (std::int64_t head = 0; head < heads; ++head) {
    std::vector<double> scores;
    for (const KeyRow& row : keys) {
      double dot = 0;
      for (std::int64_t i = head * part; i < (head + 1) * part; ++i) dot += query[i] * row.key[i];
      scores.push_back(dot / std::sqrt(static_cast<double>(part)));
    }
    const double max = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& score : scores) sum += score = std::exp(score - max);
    for (std::size_t t = 0; t < keys.size(); ++t) {
      for (std::int64_t i = head * part; i < (head + 1) * part; ++i)
        out[static_cast<std::size_t>(i)] += scores[t] / sum * keys[t].value[i];
    }
  }
  return out;
}

// A paged cache whose pages lie in another order than the slots, one slot's first page last.
struct Pages {
  Pages(Lab& lab, Random& random, std::int64_t slots, std::int64_t per_slot,
        std::int64_t page_tokens, std::int64_t keys_per_token, std::int64_t width)
      : table(static_cast<std::size_t>(slots * per_slot)), width(width) {
    std::iota(table.begin(), table.end(), 0);
    for (std::size_t i = table.size(); i > 1; --i) std::swap(table[i - 1], table[random() % i]);
    contents = random_matrix(random, slots * per_slot * page_tokens * keys_per_token, 2 * width,
                             lab.type());
    cache = {lab.put(contents, lab.type()), lab.put(table), per_slot, page_tokens, keys_per_token};
  }
  std::int64_t row(std::int64_t slot, std::int64_t t, std::int64_t beam) const {
    const std::int64_t page =
        table[static_cast<std::size_t>(slot * cache.pages_per_slot + t / cache.page_tokens)];
    return (page * cache.page_tokens + t % cache.page_tokens) * cache.keys_per_token + beam;
  }
  KeyRow at(std::int64_t slot, std::int64_t t, std::int64_t beam) const {
    const double* key = &contents.values[static_cast<std::size_t>(row(slot, t, beam) * 2 * width)];
    return {key, key + width};
  }

  Ints table;
  std::int64_t width;
  Matrix contents;  // as the cache should be
  PagedCache cache;
};

class AttentionTest : public OnBackend {
 protected:
  Lab lab{GetParam()};
  Random random{11};

  // Results are averages of values in [−1, 1): the bound is absolute. A dot product of D/heads ≤ 64
  // terms and the exponential move a share by 2⁻¹⁸ of itself at most, a GPU's exponential (2
  // + 1.16·|x| units) by twice that. The result is rounded once; on a GPU's tensor cores the shares
  // are 16-bit too, which moves an average by another unit at most.
  double bound() const {
    return (GetParam().cuda ? 0x1p-16 : 0x1p-17) +
           (GetParam().cuda ? 2 : 1) * unit_roundoff(lab.type());
  }
  void expect_row(const Matrix& found, std::int64_t row, const std::vector<double>& expected,
                  const std::string& what) {
    for (std::int64_t c = 0; c < found.columns; ++c) {
      ASSERT_NEAR(found(row, c), expected[static_cast<std::size_t>(c)], bound())
          << what << ": row " << row << ", column " << c;
    }
  }
  static const double* row_of(const Matrix& matrix, std::int64_t row) {
    return &matrix.values[static_cast<std::size_t>(row * matrix.columns)];
  }
};
INSTANTIATE_TEST_SUITE_P(, AttentionTest, testing::ValuesIn(backends()), backend_name);

TEST_P(AttentionTest, Packed) {
  struct Shape {
    std::int64_t width;
    int heads;
  };
  const std::vector<Ints> batches{
      {1}, {5}, {2, 1, 7}, {63, 64, 65}, {1, 200, 3, 129}, {16, 16, 16, 16, 16, 16, 16, 16, 16}};
  for (const Shape shape : {Shape{2, 1}, {6, 2}, {15, 3}, {64, 8}, {64, 2}, {128, 2}, {256, 2}}) {
    for (const Ints& lengths : batches) {
      Ints offsets{0};
      for (const std::int32_t length : lengths) offsets.push_back(offsets.back() + length);
      const std::int64_t gap =
          lengths.size() % 2 ? 0 : 8;  // heads of 8 columns stay where a GPU reads them at once
      Matrix qkv = random_matrix(random, offsets.back(), 3 * shape.width, lab.type());
      for (std::int64_t c = 0; c < shape.width; ++c) qkv(0, c) *= 16;  // one query that picks
      const Tensor out = lab.uninitialized(qkv.rows, shape.width, lab.type(), gap);
      const PackedRows packed{
          .count = qkv.rows, .offsets_host = offsets, .offsets = lab.put(offsets)};
      lab->attend_self(lab.queue(), lab.put(qkv, lab.type(), gap), packed, shape.heads, out);
      const Matrix found = lab.get(out);
      for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
        std::vector<KeyRow> keys;
        for (std::int32_t t = offsets[b]; t < offsets[b + 1]; ++t)
          keys.push_back({row_of(qkv, t) + shape.width, row_of(qkv, t) + 2 * shape.width});
        for (std::int32_t q = offsets[b]; q < offsets[b + 1]; ++q) {
          expect_row(found, q, attention(row_of(qkv, q), keys, shape.width, shape.heads),
                     fmt::format("sentence {} of {}, width {}", b, lengths.size(), shape.width));
          if (HasFatalFailure()) return;
        }
      }
      lab.clear();
    }
  }
}

// Lengths around the edges of pages, beams that continue each other's history, slots in any order;
// the new key is written and seen.
TEST_P(AttentionTest, SelfOverPagesAndAncestors) {
  struct Shape {
    std::int64_t width;
    int heads;
    std::int64_t gap, beams, page_tokens;
  };
  // The last ones have heads and rows as tensor cores take them.
  for (const Shape& shape : {Shape{12, 3, 2, 1, 1},
                             {12, 3, 2, 2, 4},
                             {12, 3, 2, 5, 16},
                             {64, 2, 0, 1, 16},
                             {64, 2, 8, 5, 4},
                             {128, 2, 0, 1, 16},
                             {128, 2, 16, 4, 16},
                             {192, 3, 8, 9, 1},
                             {256, 2, 0, 8, 16},
                             {512, 16, 8, 3, 8},
                             {1024, 16, 0, 4, 8}}) {
    for (const bool one_past :
         {false, true}) {  // histories that part once, as those of a search do; and any
      const std::int64_t slots = 6, longest = 34, width = shape.width, beams = shape.beams,
                         page_tokens = shape.page_tokens,
                         per_slot = (longest + page_tokens - 1) / page_tokens;
      const int heads = shape.heads;
      Pages pages(lab, random, slots, per_slot, page_tokens, beams, width);
      const Ints lengths{0, 1, 15, 16, 17, 33}, groups{5, 0, 3, 2, 4};  // slot 1 takes no part
      std::vector<std::uint8_t> ancestors(static_cast<std::size_t>(slots * longest * beams));
      for (std::size_t i = 0; i < ancestors.size(); ++i) {
        const bool shared = one_past && static_cast<std::int64_t>(i) / beams % longest < 12;
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
      const Tensor out = lab.uninitialized(rows, width, lab.type(), 2 * shape.gap);
      const StepRows step{lab.put(groups), static_cast<std::int64_t>(groups.size()), beams};
      const PagedCaches caches{
          {pages.cache}, {pages.cache}, lab.put(Ints(static_cast<std::size_t>(slots), 0))};
      lab->attend_self(lab.queue(), lab.put(qkv, lab.type(), shape.gap), {state, step, caches}, 0,
                       heads, out);
      for (std::int64_t r = 0; r < rows; ++r) {
        const std::int32_t slot = groups[static_cast<std::size_t>(r / beams)];
        for (std::int64_t c = 0; c < 2 * width; ++c)
          pages.contents(pages.row(slot, lengths[static_cast<std::size_t>(slot)], r % beams), c) =
              qkv(r, width + c);
      }
      EXPECT_EQ(lab.get(pages.cache.pages).values, pages.contents.values)
          << "the new keys and values, and nothing else";
      const Matrix found = lab.get(out);
      for (std::int64_t r = 0; r < rows; ++r) {
        const std::int32_t slot = groups[static_cast<std::size_t>(r / beams)],
                           length = lengths[static_cast<std::size_t>(slot)];
        std::vector<KeyRow> keys;
        for (std::int32_t t = 0; t < length; ++t)
          keys.push_back(pages.at(
              slot, t,
              ancestors[static_cast<std::size_t>((slot * longest + t) * beams + r % beams)]));
        keys.push_back(pages.at(slot, length, r % beams));
        expect_row(found, r, attention(row_of(qkv, r), keys, width, heads),
                   fmt::format("{} beams, pages of {}, length {}", beams, page_tokens, length));
        if (HasFatalFailure()) return;
      }
      lab.clear();
    }
  }
}

// So many sentences that each block of a GPU has several, one after the other, of lengths that end
// anywhere in its tiles.
TEST_P(AttentionTest, ManySentences) {
  const std::int64_t slots = left_out(1, 2) ? 290 : 560, longest = 40, width = 64, page_tokens = 8,
                     per_slot = (longest + page_tokens) / page_tokens;
  const int heads = 2;
  int turn = 0;
  for (const std::int64_t beams : {3, 1}) {
    if (left_out(turn++, 2)) continue;
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
    const Tensor context = lab.uninitialized(rows, width, lab.type()),
                 other = lab.uninitialized(rows, width, lab.type());
    const StepRows step{lab.put(groups), slots, beams};
    const std::int32_t* source_lengths = lab.put(sources);
    const PagedCaches caches{{cross.cache}, {self.cache}, source_lengths};
    lab->attend_self(lab.queue(), lab.put(qkv, lab.type()), {state, step, caches}, 0, heads,
                     context);
    lab->attend_cross(lab.queue(), lab.put(query, lab.type()), {state, step, caches}, 0, heads,
                      other);
    const Matrix found = lab.get(context), across = lab.get(other);
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto slot = static_cast<std::size_t>(groups[static_cast<std::size_t>(r / beams)]);
      if (done[slot]) continue;
      std::vector<KeyRow> keys;
      for (std::int32_t t = 0; t < lengths[slot]; ++t)
        keys.push_back(
            self.at(static_cast<std::int64_t>(slot), t,
                    ancestors[static_cast<std::size_t>(
                        (static_cast<std::int64_t>(slot) * longest + t) * beams + r % beams)]));
      keys.push_back({row_of(qkv, r) + width, row_of(qkv, r) + 2 * width});
      expect_row(found, r, attention(row_of(qkv, r), keys, width, heads),
                 fmt::format("self, {} beams, length {}", beams, lengths[slot]));
      keys.clear();
      for (std::int32_t t = 0; t < sources[slot]; ++t)
        keys.push_back(cross.at(static_cast<std::int64_t>(slot), t, 0));
      expect_row(across, r, attention(row_of(query, r), keys, width, heads),
                 fmt::format("cross, {} beams, length {}", beams, sources[slot]));
      if (HasFatalFailure()) return;
    }
    lab.clear();
  }
}

// Backends that step ahead, or in buckets, meet sentences that are done and groups without a slot:
// neither may touch a cache.
TEST_P(AttentionTest, SelfLeavesDoneAndEmptyGroupsAlone) {
  const std::int64_t beams = 2, width = 8, longest = 32;
  const Pages pages(lab, random, 2, 2, 16, beams, width);
  const SearchState state{.length = lab.put(Ints{32, 3}),
                          .done = lab.put(Ints{1, 1}),
                          .ancestor = lab.put(std::vector<std::uint8_t>(2 * longest * beams)),
                          .slots = 2,
                          .beams = beams,
                          .longest = longest};
  const Matrix qkv = random_matrix(random, 3 * beams, 3 * width, lab.type());
  const StepRows rows{lab.put(Ints{0, 1, -1}), 3, beams};
  const PagedCaches caches{{pages.cache}, {pages.cache}, lab.put(Ints(2, 0))};
  lab->attend_self(lab.queue(), lab.put(qkv, lab.type()), {state, rows, caches}, 0, 2,
                   lab.uninitialized(3 * beams, width, lab.type()));
  EXPECT_EQ(lab.get(pages.cache.pages).values, pages.contents.values);
}

TEST_P(AttentionTest, Cross) {
  struct Shape {
    std::int64_t width;
    int heads;
    std::int64_t gap;
  };
  for (const std::int64_t beams : {1, 4, 9}) {
    for (const Shape& shape :
         {Shape{10, 5, 3}, {64, 2, 0}, {192, 3, 8}, {128, 1, 16}, {1024, 16, 8}}) {
      const std::int64_t slots = 5, longest = 40, width = shape.width,
                         page_tokens = shape.gap % 2 ? 3 : 16;
      const int heads = shape.heads;
      const Pages pages(lab, random, slots, (longest + page_tokens - 1) / page_tokens, page_tokens,
                        1, width);
      const Ints lengths{1, 40, 16, 17, 3}, groups{2, 4, 0, 1};
      const std::int64_t rows = static_cast<std::int64_t>(groups.size()) * beams;
      const Matrix query = random_matrix(random, rows, width, lab.type());
      const Tensor out = lab.uninitialized(rows, width, lab.type(), 2 * shape.gap);
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
      lab->attend_cross(lab.queue(), lab.put(query, lab.type(), shape.gap), {state, step, caches},
                        0, heads, out);
      const Matrix found = lab.get(out);
      for (std::int64_t r = 0; r < rows; ++r) {
        const std::int32_t slot = groups[static_cast<std::size_t>(r / beams)];
        std::vector<KeyRow> keys;
        for (std::int32_t t = 0; t < lengths[static_cast<std::size_t>(slot)]; ++t)
          keys.push_back(pages.at(slot, t, 0));
        expect_row(found, r, attention(row_of(query, r), keys, width, heads),
                   fmt::format("{} beams, pages of {}", beams, page_tokens));
        if (HasFatalFailure()) return;
      }
      EXPECT_EQ(lab.get(pages.cache.pages).values, pages.contents.values);
      lab.clear();
    }
  }
}

TEST_P(AttentionTest, StoreCross) {
  const std::int64_t slots = 4, per_slot = 3, page_tokens = 5, width = 7;
  std::vector<Pages> layers;
  for (int layer = 0; layer < 3; ++layer)
    layers.emplace_back(lab, random, slots, per_slot, page_tokens, 1, width);
  std::vector<PagedCache> caches;
  for (Pages& layer : layers) {  // one table for all
    layer.table = layers[0].table;
    layer.cache.table = layers[0].cache.table;
    caches.push_back(layer.cache);
  }
  Ints token_slots, positions;
  for (const auto& [slot, length] : {std::pair{3, 15}, {0, 1}, {2, 6}}) {
    for (int t = 0; t < length; ++t) token_slots.push_back(slot), positions.push_back(t);
  }
  const Matrix rows = random_matrix(random, static_cast<std::int64_t>(token_slots.size()),
                                    3 * 2 * width, lab.type());
  lab->store_cross(lab.queue(), lab.put(rows, lab.type(), 4), lab.put(token_slots),
                   lab.put(positions), caches);
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    Pages& pages = layers[static_cast<std::size_t>(layer)];
    for (std::int64_t i = 0; i < rows.rows; ++i) {
      for (std::int64_t c = 0; c < 2 * width; ++c) {
        pages.contents(pages.row(token_slots[static_cast<std::size_t>(i)],
                                 positions[static_cast<std::size_t>(i)], 0),
                       c) = rows(i, layer * 2 * width + c);
      }
    }
    EXPECT_EQ(lab.get(pages.cache.pages).values, pages.contents.values) << "layer " << layer;
  }
}

}  // namespace
}  // namespace xlate::test
