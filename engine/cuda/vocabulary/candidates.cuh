// What a thread of the vocabulary kernel (project.cu) keeps of its two rows while it processes
// tiles: the sum of a tile's exponentials and the best candidates.
#pragma once

#include "engine/cuda/vocabulary/schedule.cuh"

namespace xlate::cuda {
namespace {

// A thread's state of two rows (h = 0, 1) over a range of tiles. The accumulators d of a tile are
// laid out as in products/warpgroup.cuh.
struct RowState {
  float top[2], sum[2];  // The thread's exponentials of a tile add up to sum·2^top.
  // With several candidates this is a threshold: a value that comes later and is not above it is
  // not among the row's best. With one candidate it is the best value of the thread so far.
  float bound[2];
  int token[2];      // With one candidate, the token of that value.
  float highest[2];  // The thread's largest value of the tile.

  // Returns the largest of the thread's 8 values in 32 columns of a row.
  template <int kRow, int kQuarter>
  __device__ __forceinline__ static float highest_in(const float (&d)[64]) {
    float most = d[16 * kQuarter + 2 * kRow];
#pragma unroll
    for (int i = 1; i < 8; ++i) most = fmaxf(most, d[16 * kQuarter + i / 2 * 4 + 2 * kRow + i % 2]);
    return most;
  }
  template <int kRow>
  __device__ __forceinline__ static float highest_of(const float (&d)[64]) {
    return fmaxf(fmaxf(highest_in<kRow, 0>(d), highest_in<kRow, 1>(d)),
                 fmaxf(highest_in<kRow, 2>(d), highest_in<kRow, 3>(d)));
  }
  __device__ __forceinline__ void find_highest(const float (&d)[64]) {
    highest[0] = highest_of<0>(d), highest[1] = highest_of<1>(d);
  }

  // Sets the exponents to which the powers of the tile are relative.
  __device__ __forceinline__ void set_top() {
#pragma unroll
    for (int h = 0; h < 2; ++h) top[h] = highest[h] * kLog2E, sum[h] = 0;
  }
  // Adds the values of the upper half of 2·kHalf to those of the lower half.
  template <int kHalf>
  __device__ __forceinline__ static void fold(float (&d)[64]) {
#pragma unroll
    for (int i = 0; i < kHalf; ++i) d[i] += d[i + kHalf];
  }
  // Adds the exponentials of the tile, as powers of two relative to the top, in one order. It
  // overwrites d, because there are no registers for the powers beside the logits.
  __device__ __forceinline__ void add_powers(float (&d)[64]) {
    const float reference[2] = {reference_of(top[0]), reference_of(top[1])};
#pragma unroll
    for (int i = 0; i < 64; ++i) d[i] = exp2_fast(fmaf(d[i], kLog2E, -reference[i / 2 % 2]));
    fold<32>(d);
    fold<16>(d);
    fold<8>(d);
    fold<4>(d);
    sum[0] += d[0] + d[1];
    sum[1] += d[2] + d[3];
  }

  // With one candidate: keeps the largest value of the tile if it exceeds the best so far. Of equal
  // values it keeps the one with the smallest token.
  template <int kRow>
  __device__ __forceinline__ void keep_best(const float (&d)[64], int first_id) {
    const float best = highest[kRow];
    if (!(best > bound[kRow])) return;
    bound[kRow] = best;
#pragma unroll
    for (int j = 15; j >= 0; --j) {
#pragma unroll
      for (int b = 1; b >= 0; --b) {
        if (d[4 * j + 2 * kRow + b] == best) token[kRow] = first_id + 8 * j + b;
      }
    }
  }

  // With several candidates: sets the first bounds of a range, from its first tile. Each thread of
  // a quad has at least kLeast values above the new bound of a row.
  template <int kLeast>
  __device__ __forceinline__ void bound_below(const float (&d)[64]) {
    bound_row_below<0, kLeast>(d);
    bound_row_below<1, kLeast>(d);
  }
  template <int kRow, int kLeast>
  __device__ __forceinline__ void bound_row_below(const float (&d)[64]) {
    const float a = highest_in<kRow, 0>(d), b = highest_in<kRow, 1>(d), c = highest_in<kRow, 2>(d),
                e = highest_in<kRow, 3>(d);
    // The second largest of the four maxima if kLeast <= 2, and else the smallest one.
    float most = kLeast <= 2
                     ? fmaxf(fminf(fmaxf(a, b), fmaxf(c, e)), fmaxf(fminf(a, b), fminf(c, e)))
                     : fminf(fminf(a, b), fminf(c, e));
    most = fminf(most, __shfl_xor_sync(kAllLanes, most, 1));
    most = fminf(most, __shfl_xor_sync(kAllLanes, most, 2));
    // The bound is a little lower, so that these values are above it. fmaxf turns the NaN that
    // comes of ∞ − ∞ into −∞.
    bound[kRow] = fmaxf(most - (fabsf(most) * 1e-6f + 1e-30f), kMinusInfinity);
  }
};

// With several candidates a thread keeps, for each of its two rows, the entries that were above the
// row's bound when they came. Their values and ids lie in shared memory in no order. When room runs
// out, the bound is raised to the kCount-th best value of the quad or to a somewhat lower one, and
// the entries below it are dropped.
template <int kCount>
struct CandidateBuffer {
  static constexpr int kSorted = kCount / 2;
  SharedStorage<kCount>& memory;
  int thread;
  std::uint32_t to[2];  // The shared address of each row's next entry.

  __device__ __forceinline__ std::uint32_t begin_of(int row) const {
    return shared_address(&memory.values[row][0][thread]);
  }
  __device__ __forceinline__ int count_of(int row) const {
    return static_cast<int>((row ? to[1] : to[0]) - begin_of(row)) / kNext;
  }
  __device__ __forceinline__ void clear() { to[0] = begin_of(0), to[1] = begin_of(1); }
  // Returns whether every thread of the warp has room for 8 more entries of each row.
  __device__ __forceinline__ bool has_room() const {
    return !__any_sync(kAllLanes, count_of(0) > SharedStorage<kCount>::kEntries - 8 ||
                                      count_of(1) > SharedStorage<kCount>::kEntries - 8);
  }

  // Appends a value and its id if the value is above the bound.
  template <int kRow, int kQuarter, int kValue>
  __device__ __forceinline__ void append_one(const float (&d)[64], float bound, int first_id) {
    // The ids lie behind all values (SharedStorage), at a constant distance. There are two stores,
    // because the operands of a store of two words must be in adjacent registers. Then every
    // register of d would need a free one beside it.
    asm volatile(
        "{\n .reg .pred above;\n .reg .b32 id;\n setp.gt.f32 above, %1, %2;\n"
        " add.s32 id, %3, %4;\n @above st.shared.f32 [%0], %1;\n"
        " @above st.shared.s32 [%0+%5], id;\n @above add.u32 %0, %0, %6;\n}"
        : "+r"(to[kRow])
        : "f"(d[16 * kQuarter + kValue / 2 * 4 + 2 * kRow + kValue % 2]), "f"(bound), "r"(first_id),
          "n"(32 * kQuarter + kValue / 2 * 8 + kValue % 2),
          "n"(SharedStorage<kCount>::kEntries * 2 * kNext), "n"(kNext)
        : "memory");
  }
  template <int kRow, int kQuarter>
  __device__ __forceinline__ void append_row(const float (&d)[64], float bound, int first_id) {
    append_one<kRow, kQuarter, 0>(d, bound, first_id),
        append_one<kRow, kQuarter, 1>(d, bound, first_id);
    append_one<kRow, kQuarter, 2>(d, bound, first_id),
        append_one<kRow, kQuarter, 3>(d, bound, first_id);
    append_one<kRow, kQuarter, 4>(d, bound, first_id),
        append_one<kRow, kQuarter, 5>(d, bound, first_id);
    append_one<kRow, kQuarter, 6>(d, bound, first_id),
        append_one<kRow, kQuarter, 7>(d, bound, first_id);
  }
  // Appends what is above the bound in 32 columns of one row. row_quarter = 2·quarter + row says
  // which; the switch makes constants of it, so that d stays in registers.
  __device__ __forceinline__ void append(int row_quarter, const float (&d)[64],
                                         const RowState& state, int first_id) {
    switch (row_quarter) {
      case 0:
        return append_row<0, 0>(d, state.bound[0], first_id);
      case 1:
        return append_row<1, 0>(d, state.bound[1], first_id);
      case 2:
        return append_row<0, 1>(d, state.bound[0], first_id);
      case 3:
        return append_row<1, 1>(d, state.bound[1], first_id);
      case 4:
        return append_row<0, 2>(d, state.bound[0], first_id);
      case 5:
        return append_row<1, 2>(d, state.bound[1], first_id);
      case 6:
        return append_row<0, 3>(d, state.bound[0], first_id);
      default:
        return append_row<1, 3>(d, state.bound[1], first_id);
    }
  }
  // Returns a bit for each row quarter in which some lane of the warp has a value above its bound.
  __device__ __forceinline__ static unsigned quarters_above(const float (&d)[64],
                                                            const RowState& state) {
    unsigned row_quarters = 0;
    const auto look = [&](int row_quarter, float highest, float bound) {
      row_quarters |= highest > bound ? 1u << row_quarter : 0u;
    };
    look(0, RowState::highest_in<0, 0>(d), state.bound[0]),
        look(1, RowState::highest_in<1, 0>(d), state.bound[1]);
    look(2, RowState::highest_in<0, 1>(d), state.bound[0]),
        look(3, RowState::highest_in<1, 1>(d), state.bound[1]);
    look(4, RowState::highest_in<0, 2>(d), state.bound[0]),
        look(5, RowState::highest_in<1, 2>(d), state.bound[1]);
    look(6, RowState::highest_in<0, 3>(d), state.bound[0]),
        look(7, RowState::highest_in<1, 3>(d), state.bound[1]);
    return __reduce_or_sync(kAllLanes, row_quarters);
  }

  // Keeps all entries before `first`, and of the others those for which keep(entry) is true.
  // Returns how many entries are left.
  template <class Keep>
  __device__ __forceinline__ int filter(int row, int first, int count, const Keep& keep) {
    int kept = first;
    for (int i = first; i < count; ++i) {
      const TokenValue entry{memory.values[row][i][thread], memory.tokens[row][i][thread]};
      if (!keep(entry)) continue;
      memory.values[row][kept][thread] = entry.value,
      memory.tokens[row][kept][thread] = entry.token;
      ++kept;
    }
    return kept;
  }

  // Returns the kCount-th largest of the quad's values, or a somewhat smaller one: each lane brings
  // only its kSorted largest values, in descending order.
  __device__ __forceinline__ static float bound_of(const float (&own)[kSorted]) {
    float pair[2 * kSorted];  // The values of two lanes are sorted by a bitonic network.
#pragma unroll
    for (int i = 0; i < kSorted; ++i) {
      const float other = __shfl_xor_sync(kAllLanes, own[kSorted - 1 - i], 1);
      pair[i] = fmaxf(own[i], other), pair[kSorted + i] = fminf(own[i], other);
    }
#pragma unroll
    for (int half = kSorted / 2; half > 0; half /= 2) {
#pragma unroll
      for (int i = 0; i < 2 * kSorted; ++i) {
        if (i & half) continue;
        const float high = fmaxf(pair[i], pair[i + half]), low = fminf(pair[i], pair[i + half]);
        pair[i] = high, pair[i + half] = low;
      }
    }
    float least = INFINITY;
#pragma unroll
    for (int i = 0; i < 2 * kSorted; ++i)
      least =
          fminf(least, fmaxf(pair[i], __shfl_xor_sync(kAllLanes, pair[2 * kSorted - 1 - i], 2)));
    return least;
  }
  // Returns the raised bound of a row, drops the entries below it, and sets `count` to how many are
  // left.
  __device__ __forceinline__ float raise(int row, float bound, int& count) {
    float own[kSorted];
#pragma unroll
    for (int k = 0; k < kSorted; ++k) own[k] = kMinusInfinity;
    for (int i = 0; i < count; ++i) {
      float value = memory.values[row][i][thread];
#pragma unroll
      for (int k = 0; k < kSorted; ++k) {
        const float high = fmaxf(own[k], value);
        value = fminf(own[k], value), own[k] = high;
      }
    }
    __syncwarp();
    const float raised = fmaxf(bound, bound_of(own));
    // An entry that equals the bound may still be among the best, because of its smaller id. A
    // value that comes later and equals the bound is not.
    count = filter(row, 0, count, [&](const TokenValue& entry) { return entry.value >= raised; });
    return raised;
  }

  // Calls take(rank, entry) for the best kCount entries of the quad in order, with (−∞, INT32_MAX)
  // where there are fewer. Returns the last one.
  template <class Take>
  __device__ __forceinline__ TokenValue find_best(int row, int count, const Take& take) const {
    TokenValue last{INFINITY, -1};
#pragma unroll 1
    for (int rank = 0; rank < kCount; ++rank) {
      TokenValue best{kMinusInfinity, INT32_MAX};
#pragma unroll 1
      for (int i = 0; i < count; ++i) {
        const TokenValue entry{memory.values[row][i][thread], memory.tokens[row][i][thread]};
        if (better(last, entry) && better(entry, best)) best = entry;
      }
      __syncwarp();
#pragma unroll
      for (int offset = 1; offset < 4; offset *= 2) {
        const TokenValue other{__shfl_xor_sync(kAllLanes, best.value, offset),
                               __shfl_xor_sync(kAllLanes, best.token, offset)};
        if (better(other, best)) best = other;
      }
      take(rank, best);
      last = best;
    }
    return last;
  }

  // Raises the bound of row h as far as its entries allow. Returns how many entries are left.
  __device__ __forceinline__ int raise_row(RowState& state, int h) {
    int count = count_of(h);
    state.bound[h] = raise(h, state.bound[h], count);
    return count;
  }
  __device__ __forceinline__ void raise_both(RowState& state) {
#pragma unroll
    for (int h = 0; h < 2; ++h) to[h] = begin_of(h) + raise_row(state, h) * kNext;
    __syncwarp();
  }
  // Drops the entries whose ids are smaller than `first`.
  __device__ __forceinline__ void drop_before(int first) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      to[h] = begin_of(h) + filter(h, 0, count_of(h), [&](const TokenValue& entry) {
                              return entry.token >= first;
                            }) * kNext;
    }
    __syncwarp();
  }

  // Makes room for 8 more entries of each row.
  __device__ __forceinline__ void prune(RowState& state) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      int count = raise_row(state, h);
      // If many values are equal or nearly all are in one lane, raising the bound is not enough.
      // Then exactly the best kCount entries are kept.
      if (__any_sync(kAllLanes, count > SharedStorage<kCount>::kEntries - 8)) {
        const TokenValue last = find_best(h, count, [](int, const TokenValue&) {});
        count = filter(h, 0, count, [&](const TokenValue& entry) { return !better(last, entry); });
        state.bound[h] = fmaxf(state.bound[h], last.value);
      }
      to[h] = begin_of(h) + count * kNext;
    }
  }

  // Takes what is above the bounds of the rows, 32 columns at a time. Later columns have larger
  // ids, so a value that only equals the bound is not taken. `never` has a bit for each id of the
  // tile that is never chosen, or is null if there is none.
  __device__ __forceinline__ void take(RowState& state, const float (&d)[64], int tile,
                                       const std::uint32_t* never) {
    if (!__any_sync(kAllLanes,
                    state.highest[0] > state.bound[0] || state.highest[1] > state.bound[1]))
      return;
    const int first_id = tile * kTileIds + 2 * (thread % 4);
    for (unsigned row_quarters = quarters_above(d, state); row_quarters;
         row_quarters &= row_quarters - 1) {
      if (!has_room()) prune(state);
      const int row_quarter = __ffs(static_cast<int>(row_quarters)) - 1, row = row_quarter % 2,
                before = count_of(row);
      append(row_quarter, d, state, first_id);
      if (never) {
        const auto chosen = [&](const TokenValue& entry) {
          return !(never[entry.token % kTileIds / 32] >> entry.token % 32 & 1);
        };
        const int kept = filter(row, before, count_of(row), chosen);
        (row ? to[1] : to[0]) = begin_of(row) + kept * kNext;
        __syncwarp();
      }
    }
  }
};

}  // namespace
}  // namespace xlate::cuda
