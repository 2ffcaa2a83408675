// Compares self-attention inside packed sentences with loops in double precision, and tests which
// keys and values of the caches are written. The attention of a decoding step is tested in
// backend_step_attention_test.cpp.
#include <gtest/gtest.h>

#include "tests/attention_reference.h"

namespace xlate::test {
namespace {

using Ints = std::vector<std::int32_t>;

// A case is a batch of packed sentences of `lengths` tokens.
struct PackedCase {
  std::string name;
  std::int64_t width;
  int heads;
  Ints lengths;
};

// A covering list of 27 cases has every shape and every batch. The shapes of 64 and more columns,
// whose heads a GPU can load in vectors of 16 bytes, have all batches whose sentences end at the
// edges of tiles or beside them. The three small shapes have each batch between them.
std::vector<PackedCase> packed_cases() {
  struct Batch {
    const char* name;
    Ints lengths;
  };
  const Batch one{"1", {1}}, five{"5", {5}}, small{"2_1_7", {2, 1, 7}},
      edges{"63_64_65", {63, 64, 65}}, uneven{"1_200_3_129", {1, 200, 3, 129}},
      nine{"9_times_16", Ints(9, 16)};
  std::vector<PackedCase> cases;
  const auto add = [&](std::int64_t width, int heads, std::initializer_list<Batch> batches) {
    for (const auto& [name, lengths] : batches)
      cases.push_back(
          {fmt::format("width{}_heads{}_tokens_{}", width, heads, name), width, heads, lengths});
  };
  add(2, 1, {one, small, uneven});
  add(6, 2, {five, edges, nine});
  add(15, 3, {one, small, uneven});
  add(64, 8, {five, edges, uneven, nine});
  add(64, 2, {one, edges, uneven, nine});
  add(128, 2, {one, five, small, edges, uneven, nine});
  add(256, 2, {five, edges, uneven, nine});
  return cases;
}

class BackendPackedAttention : public OnBackendWith<PackedCase> {};
INSTANTIATE_TEST_SUITE_P(, BackendPackedAttention,
                         testing::ValuesIn(on_each(cache_backends(), packed_cases())), CaseName());

TEST_P(BackendPackedAttention, StaysInsideEachSentence) {
  const auto& [name, width, heads, lengths] = test();
  Ints offsets{0};
  for (const std::int32_t length : lengths) offsets.push_back(offsets.back() + length);
  // With a gap of 8 columns a GPU can still load the columns of a head at once.
  const std::int64_t gap = lengths.size() % 2 ? 0 : 8;
  Matrix qkv = random_matrix(random, offsets.back(), 3 * width, lab.type());
  // One query is so large that its softmax is close to a choice of one key.
  for (std::int64_t c = 0; c < width; ++c) qkv(0, c) *= 16;
  const Tensor out = lab.uninitialized(qkv.rows, width, lab.type(), gap);
  const PackedRows packed{.count = qkv.rows, .offsets_host = offsets, .offsets = lab.put(offsets)};
  lab->attend_self(lab.queue(), lab.put(qkv, lab.type(), gap), packed,
                   usual_attention(width, heads), out);
  const Matrix found = lab.get(out);
  for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
    std::vector<KeyRow> keys;
    for (std::int32_t t = offsets[b]; t < offsets[b + 1]; ++t)
      keys.push_back({row_of(qkv, t) + width, row_of(qkv, t) + 2 * width});
    for (std::int32_t q = offsets[b]; q < offsets[b + 1]; ++q) {
      expect_attention(found, q, attention(row_of(qkv, q), keys, width, heads), backend(),
                       fmt::format("sentence {}", b));
      if (HasFatalFailure()) return;
    }
  }
}

// Sentences attend to sources of other lengths. The result of a row is the same in every pass.
TEST_P(BackendPackedAttention, ReachesTheSourceOfEachSentence) {
  const auto& [name, width, heads, lengths] = test();
  Ints offsets{0}, source_offsets{0};
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    offsets.push_back(offsets.back() + lengths[i]);
    source_offsets.push_back(source_offsets.back() + lengths[lengths.size() - 1 - i] % 70 + 1);
  }
  const Matrix query = random_matrix(random, offsets.back(), width, lab.type()),
               keys_values = random_matrix(random, source_offsets.back(), 2 * width, lab.type());
  const Tensor out = lab.uninitialized(query.rows, width, lab.type()),
               queries = lab.put(query, lab.type()), keys = lab.put(keys_values, lab.type());
  const PackedSourceKeys sources{{}, source_offsets, lab.put(source_offsets)};
  const std::int32_t* offsets_device = lab.put(offsets);
  const auto attend = [&](std::int64_t pass) {
    for (std::int64_t first = 0; first < query.rows; first += pass) {
      const std::int64_t count = std::min(pass, query.rows - first);
      lab->attend_cross(lab.queue(), queries.row_range(first, count),
                        {.count = count,
                         .offsets_host = offsets,
                         .offsets = offsets_device,
                         .first = first,
                         .sources = &sources},
                        keys, usual_attention(width, heads), out.row_range(first, count));
    }
    return lab.get(out);
  };
  const Matrix found = attend(query.rows), again = attend(7),
               cached = as_cached(lab, keys_values, 0);
  for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
    std::vector<KeyRow> rows;
    for (std::int32_t t = source_offsets[b]; t < source_offsets[b + 1]; ++t)
      rows.push_back({row_of(cached, t), row_of(cached, t) + width});
    for (std::int32_t q = offsets[b]; q < offsets[b + 1]; ++q) {
      expect_attention(found, q, attention(row_of(query, q), rows, width, heads), backend(),
                       fmt::format("sentence {}", b));
      if (HasFatalFailure()) return;
    }
  }
  for (std::size_t i = 0; i < found.values.size(); ++i) {
    if (backend().cuda)
      ASSERT_EQ(again.values[i], found.values[i]);
    else
      ASSERT_NEAR(again.values[i], found.values[i], 1e-5);
  }
}

// All keys of the last head are the same, so that its first key wins.
TEST_P(BackendPackedAttention, FindsTheKeyWithTheLargestMeanWeight) {
  const auto& [name, width, heads, lengths] = test();
  Ints offsets{0}, source_offsets{0};
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    offsets.push_back(offsets.back() + lengths[i]);
    source_offsets.push_back(source_offsets.back() + lengths[lengths.size() - 1 - i] + 1);
  }
  const std::int64_t head = width / heads;
  Matrix query = random_matrix(random, offsets.back(), width, lab.type()),
         keys =
             as_cached(lab, random_matrix(random, source_offsets.back(), 2 * width, lab.type()), 0);
  for (std::int64_t t = 0; t < keys.rows; ++t)
    for (std::int64_t c = width - head; c < width; ++c) keys(t, c) = 0.5;
  const PackedSourceKeys sources{{}, source_offsets, lab.put(source_offsets)};
  const PackedRows rows{.count = query.rows,
                        .offsets_host = offsets,
                        .offsets = lab.put(offsets),
                        .sources = &sources};
  for (const bool all : {true, false}) {
    HeadSet set;
    for (int h = all ? 0 : heads - 1; h < heads; ++h) set.add(h);
    std::int32_t* out = lab.put(Ints(static_cast<std::size_t>(query.rows), -1));
    lab->align(lab.queue(), lab.put(query, lab.type()), rows, lab.put(keys, lab.type()),
               usual_attention(width, heads), set, out);
    const Ints found = lab.array<std::int32_t>(out, query.rows);
    for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
      const std::int32_t begin = source_offsets[b], n = source_offsets[b + 1] - begin;
      for (std::int32_t q = offsets[b]; q < offsets[b + 1]; ++q) {
        std::vector<double> means(static_cast<std::size_t>(n));
        for (int h = 0; h < heads; ++h) {
          if (!set.has(h)) continue;
          std::vector<double> weights;
          double sum = 0;
          for (std::int32_t t = 0; t < n; ++t) {
            double score = 0;
            for (std::int64_t c = h * head; c < (h + 1) * head; ++c)
              score += query(q, c) * keys(begin + t, c);
            weights.push_back(std::exp(score / std::sqrt(static_cast<double>(head))));
            sum += weights.back();
          }
          for (std::size_t t = 0; t < weights.size(); ++t) means[t] += weights[t] / sum;
        }
        const std::int32_t chosen = found[static_cast<std::size_t>(q)];
        ASSERT_GE(chosen, 0);
        ASSERT_LT(chosen, n);
        // Near-ties may fall either way. The last head alone has the same weight for every key.
        const double most = *std::max_element(means.begin(), means.end());
        ASSERT_GE(means[static_cast<std::size_t>(chosen)], most * (1 - 1e-4)) << "row " << q;
        ASSERT_TRUE(all || chosen == 0);
      }
    }
  }
}

class BackendCaches : public OnBackend {
 protected:
  Lab lab{GetParam(), Sharing::kShared};
  Random random{11};
};
INSTANTIATE_TEST_SUITE_P(, BackendCaches, testing::ValuesIn(cache_backends()), backend_name);

// A backend that runs steps ahead, or rounds up their number of groups, runs steps with sentences
// that are done and with groups without a slot. Neither may change a cache.
TEST_P(BackendCaches, AreLeftAloneByDoneAndEmptyGroups) {
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
  lab->attend_self(lab.queue(), lab.put(qkv, lab.type()), {state, rows, caches}, 0,
                   usual_attention(width, 2), lab.uninitialized(3 * beams, width, lab.type()));
  EXPECT_EQ(lab.get(pages.cache.pages).values, pages.contents.values);
}

TEST_P(BackendCaches, GetTheSourceKeysOfEveryLayer) {
  const std::int64_t slots = 4, per_slot = 3, page_tokens = 5, width = 7;
  std::vector<Pages> layers;
  for (int layer = 0; layer < 3; ++layer)
    layers.emplace_back(lab, random, slots, per_slot, page_tokens, 1, width);
  std::vector<PagedCache> caches;
  for (Pages& layer : layers) {  // All layers share one page table.
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
  lab->store_keys(lab.queue(), lab.put(rows, lab.type(), 4), lab.put(token_slots),
                  lab.put(positions), caches);
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    Pages& pages = layers[static_cast<std::size_t>(layer)];
    for (std::int64_t i = 0; i < rows.rows; ++i) {
      pages.store(pages.row(token_slots[static_cast<std::size_t>(i)],
                            positions[static_cast<std::size_t>(i)], 0),
                  row_of(rows, i) + layer * 2 * width);
    }
    EXPECT_EQ(lab.get(pages.cache.pages).values, pages.contents.values) << "layer " << layer;
  }
}

}  // namespace
}  // namespace xlate::test
