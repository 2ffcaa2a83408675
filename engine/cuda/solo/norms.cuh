// This file has the solo kernel's embedding and norms. Every block that computes layers computes
// them for itself.
#pragma once

#include "engine/cuda/norms/norm.cuh"
#include "engine/cuda/solo/block.cuh"

namespace xlate::cuda {

// A lane holds at most this many vectors of a row in a norm.
constexpr int kSoloNormVectors = 4;

template <class T>
__device__ __forceinline__ T* row_at(const SoloRows& rows, int row, char* memory) {
  return reinterpret_cast<T*>(memory + rows.at + row * rows.pitch);
}
// Returns a row of the residual stream. A pointer is null where there are no such rows.
template <class T>
__device__ __forceinline__ ResidualRow<T> residual_row_at(const SoloRows& rounded,
                                                          const SoloRows& low_bits, int row,
                                                          char* memory) {
  return {rounded.pitch ? row_at<T>(rounded, row, memory) : nullptr,
          low_bits.pitch ? row_at<std::int8_t>(low_bits, row, memory) : nullptr};
}

// Embeds the last token of each hypothesis.
template <class T, bool kAny>
__device__ inline void embed_rows(const SoloArgs& args, const SoloStepResult& step_result,
                                  char* memory) {
  constexpr int kSize = Vector16<T>::kSize;
  const int vectors = args.width / kSize;
  const float* position = args.positions + step_result.length * args.positions_stride;
  for (int i = threadIdx.x; i < args.beams * vectors; i += kSoloThreads) {
    const int row = i / vectors, column = i % vectors * kSize;
    const T* table =
        static_cast<const T*>(args.table) + step_result.tokens[row] * args.table_stride;
    float values[kSize];
    unpack_vector<T>(values, load_vector(table + column));
    const Floats<kSize> places =
        kAny && !args.positions ? Floats<kSize>() : Floats<kSize>(position + column);
#pragma unroll
    for (int j = 0; j < kSize; ++j) values[j] = fmaf(values[j], args.scale, places.values[j]);
    store_values(residual_row_at<T>(args.embedded, args.embedded_low_bits, row, memory), column,
                 values);
  }
}

// Returns where the gain and the shift of a norm are kept. Two places are used in turns, so that
// the next norm's can be fetched while one is read.
__device__ __forceinline__ float* norm_place(const SoloArgs& args, char* memory, int turn) {
  return reinterpret_cast<float*>(memory + args.layout.norm) + turn * args.layout.norm_floats;
}
// Starts copying the gain and the shift of a norm. The threads from `first` on call it.
template <bool kAny>
__device__ __forceinline__ void fetch_norm(const SoloOp& op, float* to, int first) {
  const int vectors = op.in / 4, all = kAny && !op.shift ? vectors : 2 * vectors;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) - first; i < all; i += kSoloThreads - first) {
    copy_async(to + 4 * i, i < vectors ? op.gain + 4 * i : op.shift + 4 * (i - vectors));
  }
}

// Computes the norm of a row that is not added to anything, with a warp. It is not inlined because
// a step has at most one such norm.
template <class T>
__device__ __noinline__ void norm_lone_row(const SoloOp& op, int row, const float* gain,
                                           char* memory) {
  float values[1][kSoloNormVectors][Vector16<T>::kSize];
  load_sum<T, float, kSoloNormVectors>(
      values[0], nullptr, nullptr,
      residual_row_at<const T>(op.residual, op.residual_low_bits, row, memory), op.in);
  const auto out = residual_row_at<T>(op.out, op.out_low_bits, row, memory);
  norm_values<T, kSoloNormVectors, 1, true>(
      values, gain, op.shift ? gain + op.in : nullptr, op.in, op.epsilon,
      [&](int, int column, const float(&results)[Vector16<T>::kSize]) {
        store_values(out, column, results);
      },
      op.rms != 0);
}

// This is a thread's part of every norm: the vector at `column` of the rows `row`, `row` + `rows`
// and so on. A thread that has none begins behind the last row.
struct SoloNormPart {
  int row, column, rows;
  __device__ explicit SoloNormPart(const SoloArgs& args) {
    const int thread = static_cast<int>(threadIdx.x), vectors = args.width / 8;
    rows = kSoloThreads / vectors;
    row = thread / vectors < rows ? thread / vectors : kSoloRows;
    column = thread % vectors * 8;
  }
};

// Adds rows to the residual stream and normalizes them, with the bits of norm_vectors
// (norms/norm.cuh), in three parts: all threads add the rows to the residual, a warp finds the
// moments of each row, and all threads normalize. One warp for all of a row would have the
// instructions of all three to issue, and these bound a step. All threads that compute call run().
// It calls fetch() where warps without a row have time.
template <class T, bool kAny>
class SoloNorm {
 public:
  __device__ SoloNorm(const SoloArgs& args, const SoloOp& op, char* memory)
      : args_(args), op_(op), memory_(memory) {}

  template <class Fetch>
  __device__ __forceinline__ void run(const SoloNormPart& part, const float* gain, SoloBlock& block,
                                      const Fetch& fetch) const {
#pragma unroll 1
    for (int row = part.row; row < args_.beams; row += part.rows) add_residual(row, part.column);
    sync_workers();
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    if (warp < args_.beams) find_moments(warp, block.moments[warp]);
    fetch();
    sync_workers();
#pragma unroll 1
    for (int first = 0; first < args_.beams; first += part.rows) {
      const int row = first + part.row;
      const bool has_row = row < args_.beams;
      float values[kSize];
      if (has_row) load_values(values, row_at<float>(op_.x, row, memory_) + part.column);
      // Rows may be written over the sums, to where another thread's are.
      sync_workers();
      if (has_row) store(values, row, part.column, gain, block.moments[row]);
    }
  }

 private:
  static constexpr int kSize = Vector16<T>::kSize;
  static_assert(kSize == 8);

  // Adds a vector of the residual to the row of sums, and leaves it there.
  __device__ __forceinline__ void add_residual(int row, int column) const {
    float values[kSize];
    float* const x = row_at<float>(op_.x, row, memory_) + column;
    const auto residual =
        residual_row_at<const T>(op_.residual, op_.residual_low_bits, row, memory_);
    load_values(values, x);
    add_vector<T>(
        values, load_vector(residual.rounded + column),
        residual.low_bits ? *reinterpret_cast<const uint2*>(residual.low_bits + column) : uint2{});
#pragma unroll
    for (int i = 0; i < kSize; i += 4)
      *reinterpret_cast<float4*>(x + i) = *reinterpret_cast<const float4*>(values + i);
  }
  // The loops over a lane's vectors are not unrolled: a warp waits longer for instructions that it
  // executes once than for the loads of the row, which it repeats here.
  __device__ __forceinline__ void find_moments(int row, float2& found) const {
    const float* const x = row_at<float>(op_.x, row, memory_);
    float2 moment[1];
    moments(
        moment, op_.in, op_.epsilon,
        [&](const auto& add) {
#pragma unroll 1
          for (int column = vector_column<T>(0); column < op_.in; column += kWarp * kSize) {
            float values[kSize];
            load_values(values, x + column);
#pragma unroll
            for (int i = 0; i < kSize; ++i) add(0, values[i]);
          }
        },
        kAny && op_.rms != 0);
    if (threadIdx.x % kWarp == 0) found = moment[0];
  }
  // Stores a vector of the normalized row, and where the operation asks for it the sum before that.
  __device__ __forceinline__ void store(float (&values)[kSize], int row, int column,
                                        const float* gain, const float2& moment) const {
    if (kAny && op_.stores_sum)
      store_values(residual_row_at<T>(op_.residual, op_.residual_low_bits, row, memory_), column,
                   values);
    normalize(values, column, gain, moment);
    store_values(residual_row_at<T>(op_.out, op_.out_low_bits, row, memory_), column, values);
  }
  __device__ __forceinline__ void normalize(float (&values)[kSize], int column, const float* gain,
                                            const float2& moment) const {
    const Floats<kSize> gains(gain + column),
        shifts = kAny && !op_.shift ? Floats<kSize>() : Floats<kSize>(gain + op_.in + column);
#pragma unroll
    for (int i = 0; i < kSize; ++i)
      values[i] = fmaf((values[i] - moment.x) * moment.y, gains.values[i], shifts.values[i]);
  }

  const SoloArgs& args_;
  const SoloOp& op_;
  char* memory_;
};

}  // namespace xlate::cuda
