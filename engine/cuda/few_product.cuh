// A layer norm and a product over few rows. Each block has a share of the weight's rows, its warps share the columns, in slices of four
// pieces; the warps' sums are added in one order. The norm's rows are made anew by every block, a warp a row.
#pragma once

#include "engine/cuda/activation.cuh"
#include "engine/cuda/few_device.cuh"

namespace xlate::cuda {

// The norm of x + added, to shared memory, global memory, or both.
template <class T, int kPieces>
__device__ __noinline__ void norm_pieces(const FewOp& op, int row, const float* gain, char* staged, T* out) {
  constexpr int kSize = kPiece<T>;
  const int lane = threadIdx.x % kWarp, pieces = op.in / kSize;
  const T* x = static_cast<const T*>(op.x) + row * op.x_stride;
  const T* added = static_cast<const T*>(op.added) + row * op.added_stride;
  const bool adds = op.added;
  uint4 read[kPieces], more[kPieces];
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int piece = lane + p * kWarp;
    read[p] = piece < pieces ? load_cached(x + piece * kSize) : uint4{};
    more[p] = adds && piece < pieces ? load_cached(added + piece * kSize) : uint4{};
  }
  float values[kPieces][kSize], sum = 0;
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    float second[kSize];
    unpack<T>(read[p], values[p]);
    unpack<T>(more[p], second);
#pragma unroll
    for (int i = 0; i < kSize; ++i) sum += values[p][i] += second[i];
  }
  const float mean = warp_sum(sum) / static_cast<float>(op.in);
  float squares = 0;
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    if (lane + p * kWarp >= pieces) break;
#pragma unroll
    for (int i = 0; i < kSize; ++i) squares += (values[p][i] - mean) * (values[p][i] - mean);
  }
  const float inverse = rsqrtf(warp_sum(squares) / static_cast<float>(op.in) + op.epsilon);
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int piece = lane + p * kWarp;
    if (piece >= pieces) break;
#pragma unroll
    for (int i = 0; i < kSize; ++i) values[p][i] = (values[p][i] - mean) * inverse * gain[piece * kSize + i] + gain[op.in + piece * kSize + i];
    const uint4 y = pack<T>(values[p]);
    if (staged) *reinterpret_cast<uint4*>(staged + piece * 16) = y;
    if (out) *reinterpret_cast<uint4*>(out + piece * kSize) = y;
  }
}

template <class T>
__device__ __forceinline__ void norm_row(const FewOp& op, int row, const FewShared& shared, char* staged, T* out) {
  const auto* gain = reinterpret_cast<const float*>(shared.gain);
  if (op.in <= kNormPieces / 2 * kWarp * kPiece<T>) norm_pieces<T, kNormPieces / 2>(op, row, gain, staged, out);
  else norm_pieces<T, kNormPieces>(op, row, gain, staged, out);
}

// A norm by itself: a block a row, by one warp, which has read the row before it writes.
template <class T>
__device__ void norm_alone(const FewOp& op, const FewShared& shared) {
  if (threadIdx.x >= kWarp) return;
  for (int row = blockIdx.x; row < op.rows; row += gridDim.x) norm_row<T>(op, row, shared, nullptr, static_cast<T*>(op.normed) + row * op.normed_stride);
}

// The product's rows [first, last), after the norm if there is one, in shared memory.
template <class T>
__device__ __forceinline__ void stage_rows(const FewOp& op, FewShared& shared, int first, int last) {
  const int pieces = op.in / kPiece<T>, pitch = pitch_of<T>(op.in);
  char* staged = reinterpret_cast<char*>(shared.rows) + threadIdx.x / kWarp * pitch;
  for (int row = first + threadIdx.x / kWarp; row < last; row += kFewWarps, staged += kFewWarps * pitch) {
    if (op.gain) {
      norm_row<T>(op, row, shared, staged, op.normed && !op.late && blockIdx.x == 0 ? static_cast<T*>(op.normed) + row * op.normed_stride : nullptr);
    } else {
      const T* x = static_cast<const T*>(op.x) + row * op.x_stride;
#pragma unroll 2
      for (int piece = threadIdx.x % kWarp; piece < pieces; piece += kWarp) fetch(reinterpret_cast<uint4*>(staged) + piece, x + piece * kPiece<T>);
    }
  }
  wait_fetched();
  __syncthreads();
}

// What the operation before left in shared memory because its other blocks were still reading where it goes.
template <class T>
__device__ __forceinline__ void write_late(const FewOp& op, const FewShared& shared) {
  if (blockIdx.x != gridDim.x - 1) return;
  const int pieces = op.in / kPiece<T>, pitch = pitch_of<T>(op.in);
  for (int row = threadIdx.x / kWarp; row < op.rows; row += kFewWarps) {
    const char* staged = reinterpret_cast<const char*>(shared.rows) + row * pitch;
    T* out = static_cast<T*>(op.normed) + row * op.normed_stride;
    for (int piece = threadIdx.x % kWarp; piece < pieces; piece += kWarp) *reinterpret_cast<uint4*>(out + piece * kPiece<T>) = *reinterpret_cast<const uint4*>(staged + piece * 16);
  }
  __syncthreads();
}

// The pieces of one warp's work on a block's tiles, tile after tile, in each the warp's slices: visit(j, address or null) for up to kAhead of
// them from number `base` on.
template <class T, class Visit>
__device__ __forceinline__ void each_piece(const FewOp& op, const Share& share, int tile, int base, const Visit& visit) {
  constexpr int kSliceStep = kFewWarps * 4;
  const int each = op.slices_each, pieces = op.in / kPiece<T>, stride = op.weight_stride;
  const int left = min(kAhead, min(kRoundTiles, (share.count + kTileRows - 1) / kTileRows - tile) * each - base);
  int t = 0, s = 0;
  if (base > 0) t = base / each, s = base - t * each;
  const int first_piece = threadIdx.x / kWarp * 4 + threadIdx.x % 4;
  int row = (tile + t) * kTileRows + threadIdx.x % kWarp / 4, piece = first_piece + s * kSliceStep;
  const T* p = static_cast<const T*>(op.weight) + static_cast<std::int64_t>(share.first + row) * stride;
#pragma unroll 1
  for (int j = 0; j < left; ++j) {
    visit(j, row < share.count && piece < pieces ? p + piece * kPiece<T> : nullptr);
    piece += kSliceStep;
    if (++s == each) s = 0, row += kTileRows, piece = first_piece, p += kTileRows * stride;
  }
}

template <class T>
__device__ __forceinline__ void fetch_weights(const FewOp& op, const Share& share, int tile, int base, FewShared& shared) {
  each_piece<T>(op, share, tile, base, [&](int j, const T* p) { fetch(&shared.ahead[j][threadIdx.x], p); });
}

// Brings what fetch_weights will ask for into L2.
template <class T>
__device__ __forceinline__ void approach_weights(const FewOp& op) {
  each_piece<T>(op, share_of(op), 0, 0, [&](int, const T* p) {
    if (p) bring(p);
  });
}

// Each warp's sums of the round's tiles with up to eight rows, [warp][kFewRows][kRoundTiles·kTileRows]. `held` tells whether the weights
// that the first piece of work needs are in `ahead`.
template <class T>
__device__ __forceinline__ void add_slices(const FewOp& op, const Share& share, int first_tile, const char* x, int row_count, bool held, FewShared& shared) {
  constexpr int kSliceBytes = kFewWarps * 64;
  const int each = op.slices_each, warp = threadIdx.x / kWarp, most = op.in * static_cast<int>(sizeof(T)) - 16, pitch = pitch_of<T>(op.in);
  const int total = min(kRoundTiles, (share.count + kTileRows - 1) / kTileRows - first_tile) * each, first_place = warp * 64 + threadIdx.x % 4 * 16;
  const auto staged = [&](int r, int place) { return *reinterpret_cast<const uint4*>(x + r * pitch + place); };
  Tile<T> tile;
  float* out = shared.sums + warp * kFewRows * kRound;
  int s = 0, place = first_place;
  for (int base = 0; base < total; base += kAhead) {
    if (!held || base > 0) fetch_weights<T>(op, share, first_tile, base, shared), wait_fetched();
    const int left = min(kAhead, total - base);
#pragma unroll 2
    for (int j = 0; j < left; ++j) {
      // Behind a row's end the weight is 0, and x any number of the row.
      tile.add(Tile<T>::load(staged, min(place, most), row_count), shared.ahead[j][threadIdx.x]);
      place += kSliceBytes;
      if (++s < each) continue;
      tile.finish(row_count, [&](int r, int i, float sum) { out[r * kRound + i] = sum; });
      s = 0, place = first_place, out += kTileRows;
    }
  }
}

// The bias of a thread's output in the first round.
template <class T>
__device__ __forceinline__ float load_bias(const FewOp& op) {
  const Share share = share_of(op);
  const int count = min(kRound, share.count), n = threadIdx.x & ((1 << (kWarp - __clz(count - 1))) - 1);
  return op.bias && n < count ? to_float(static_cast<const T*>(op.bias)[share.first + n]) : 0.0f;
}

// Up to eight rows from `row` on, of which `staged` is the first in shared memory.
template <class T>
__device__ __forceinline__ void product_of_rows(const FewOp& op, FewShared& shared, const Share& share, int row, int last, int staged, bool& held, float first_bias) {
  const int row_count = min(kFewRows, last - row);
  for (int first = 0; first < share.count; first += kRound) {
    const int count = min(kRound, share.count - first), log = kWarp - __clz(count - 1);  // of the next power of two
    const int n = threadIdx.x & ((1 << log) - 1), r = threadIdx.x >> log, column = share.first + first + n;
    const bool mine = n < count && r < row_count;
    float bias = first_bias, residual = 0;
    if (first > 0 && mine && op.bias) bias = to_float(static_cast<const T*>(op.bias)[column]);
    if (mine && op.residual) residual = load_value(static_cast<const T*>(op.residual) + (row + r) * op.residual_stride + column);
    add_slices<T>(op, share, first / kTileRows, reinterpret_cast<const char*>(shared.rows) + (row - staged) * pitch_of<T>(op.in), row_count, held, shared);
    held = held && share.count <= kRound && (share.count + kTileRows - 1) / kTileRows * op.slices_each <= kAhead;
    __syncthreads();
    if (mine) {
      const float* sums = shared.sums + r * kRound + n;
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kFewWarps; ++w) sum += sums[w * kFewRows * kRound];
      const float y = activate(sum + bias, op.activation) + residual;
      static_cast<T*>(op.out_rows)[(row + r) * op.out_stride + column] = from_float<T>(y);
    }
    if (first + kRound < share.count || row + kFewRows < op.rows) __syncthreads();
  }
}

template <class T>
__device__ __forceinline__ void product(const FewOp& op, FewShared& shared, float first_bias) {
  const Share share = share_of(op);
  bool held = true;
  for (int staged = 0; staged < op.rows; staged += op.rows_staged) {
    const int last = min(staged + op.rows_staged, op.rows);
    stage_rows<T>(op, shared, staged, last);
    for (int row = staged; row < last; row += kFewRows) product_of_rows<T>(op, shared, share, row, last, staged, held, first_bias);
    if (last < op.rows) __syncthreads();
  }
}

}  // namespace xlate::cuda
