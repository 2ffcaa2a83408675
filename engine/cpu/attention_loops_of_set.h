// Defines the loops of attention_loops.h for one instruction set. attention_loops.cpp includes this
// file once for each of them, with kLanes as the number of floats of a register, inside a namespace
// of its own. Functions of other headers must not be used here, because the linker could keep their
// copy with the instructions of one set for all callers.

typedef float Floats __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

static inline Floats load(const float* from) { return *reinterpret_cast<const Floats*>(from); }
static inline void store(float* to, Floats values) { *reinterpret_cast<Floats*>(to) = values; }

// Computes kRows rows of a product. kVectors registers of columns are summed at a time.
template <int kRows, int kVectors>
static inline std::int64_t multiply_columns(std::int64_t first, std::int64_t n, std::int64_t k,
                                            const float* a, std::int64_t a_stride, const float* b,
                                            std::int64_t b_stride, float* out,
                                            std::int64_t out_stride) {
  constexpr std::int64_t kColumns = kVectors * kLanes;
  std::int64_t j = first;
  for (; j + kColumns <= n; j += kColumns) {
    Floats sums[kRows][kVectors] = {};
    for (std::int64_t t = 0; t < k; ++t) {
      const float* row = b + t * b_stride + j;
      Floats columns[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) columns[v] = load(row + v * kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) {
        const float each = a[i * a_stride + t];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sums[i][v] += each * columns[v];
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) store(out + i * out_stride + j + v * kLanes, sums[i][v]);
    }
  }
  return j;
}

template <int kRows>
static inline void multiply_rows(std::int64_t n, std::int64_t k, const float* a,
                                 std::int64_t a_stride, const float* b, std::int64_t b_stride,
                                 float* out, std::int64_t out_stride) {
  std::int64_t j = multiply_columns<kRows, 2>(0, n, k, a, a_stride, b, b_stride, out, out_stride);
  j = multiply_columns<kRows, 1>(j, n, k, a, a_stride, b, b_stride, out, out_stride);
  for (; j < n; ++j) {
    for (int i = 0; i < kRows; ++i) {
      float sum = 0;
      for (std::int64_t t = 0; t < k; ++t) sum += a[i * a_stride + t] * b[t * b_stride + j];
      out[i * out_stride + j] = sum;
    }
  }
}

static void multiply(std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
                     std::int64_t a_stride, const float* b, std::int64_t b_stride, float* out,
                     std::int64_t out_stride) {
  std::int64_t i = 0;
  for (; i + 4 <= m; i += 4)
    multiply_rows<4>(n, k, a + i * a_stride, a_stride, b, b_stride, out + i * out_stride,
                     out_stride);
  for (; i < m; ++i)
    multiply_rows<1>(n, k, a + i * a_stride, a_stride, b, b_stride, out + i * out_stride,
                     out_stride);
}

// Blocks of 16 × 16 elements stay in the first cache.
static void transpose(const float* x, std::int64_t x_stride, std::int64_t rows,
                      std::int64_t columns, float* out, std::int64_t out_stride) {
  constexpr std::int64_t kBlock = 16;
  for (std::int64_t i = 0; i < rows; i += kBlock) {
    const std::int64_t last_row = i + kBlock < rows ? i + kBlock : rows;
    for (std::int64_t j = 0; j < columns; j += kBlock) {
      const std::int64_t last_column = j + kBlock < columns ? j + kBlock : columns;
      for (std::int64_t c = j; c < last_column; ++c) {
        for (std::int64_t r = i; r < last_row; ++r) out[c * out_stride + r] = x[r * x_stride + c];
      }
    }
  }
}

// Returns the values with the lanes i and i ^ kDistance exchanged.
template <int kDistance>
static inline Floats exchanged(Floats values) {
#if defined(__clang__)
  Floats result;
  for (int i = 0; i < kLanes; ++i) result[i] = values[i ^ kDistance];
  return result;
#else
  typedef std::int32_t Indices __attribute__((vector_size(kLanes * 4)));
  Indices order;
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) order[i] = i ^ kDistance;
  return __builtin_shuffle(values, order);
#endif
}

// Adds the lanes in pairs, whose distance is halved each time.
static inline float sum_of(Floats values) {
  if constexpr (kLanes >= 16) values += exchanged<8>(values);
  if constexpr (kLanes >= 8) values += exchanged<4>(values);
  values += exchanged<2>(values);
  values += exchanged<1>(values);
  return values[0];
}

static inline float dot(const float* a, const float* b, std::int64_t n) {
  Floats even = {}, odd = {};
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    even += load(a + i) * load(b + i);
    odd += load(a + i + kLanes) * load(b + i + kLanes);
  }
  for (; i + kLanes <= n; i += kLanes) even += load(a + i) * load(b + i);
  float sum = sum_of(even + odd);
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// The keys of a token lie next to each other for all heads, so that each token is visited once. The
// token after the next one is fetched meanwhile, since the processor does not guess where it lies.
static void score(const float* query, const KeyRows& rows, float* scores) {
  constexpr std::int64_t kAhead = 2, kLine = 16;
  const std::int64_t width = rows.key_heads * rows.head;
  for (std::int64_t t = 0; t < rows.count; ++t) {
    if (t + kAhead < rows.count) {
      const float* next = rows.keys[t + kAhead];
      for (std::int64_t i = 0; i < 2 * width; i += kLine) __builtin_prefetch(next + i, 0, 2);
    }
    for (std::int64_t head = 0; head < rows.key_heads; ++head) {
      const float* key = rows.keys[t] + head * rows.head;
      for (std::int64_t i = head * rows.group; i < (head + 1) * rows.group; ++i)
        scores[i * rows.count + t] = dot(query + i * rows.head, key, rows.head);
    }
  }
}

// Sums kVectors registers of columns of the values of one head of keys, for one head of queries.
template <int kVectors>
static inline std::int64_t mix_columns(std::int64_t first, const float* weights,
                                       const KeyRows& rows, std::int64_t offset, float* out) {
  std::int64_t j = first;
  for (; j + kVectors * kLanes <= rows.head; j += kVectors * kLanes) {
    Floats sums[kVectors] = {};
    for (std::int64_t t = 0; t < rows.count; ++t) {
      const float* value = rows.keys[t] + offset + j;
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[v] += weights[t] * load(value + v * kLanes);
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) store(out + j + v * kLanes, sums[v]);
  }
  return j;
}

static void mix(const float* weights, const KeyRows& rows, float* out) {
  for (std::int64_t i = 0; i < rows.key_heads * rows.group; ++i) {
    const std::int64_t offset = (rows.key_heads + i / rows.group) * rows.head;
    const float* of_head = weights + i * rows.count;
    float* to = out + i * rows.head;
    std::int64_t j = mix_columns<4>(0, of_head, rows, offset, to);
    j = mix_columns<1>(j, of_head, rows, offset, to);
    for (; j < rows.head; ++j) {
      float sum = 0;
      for (std::int64_t t = 0; t < rows.count; ++t) sum += of_head[t] * rows.keys[t][offset + j];
      to[j] = sum;
    }
  }
}

static constexpr AttentionLoops kLoops{multiply, transpose, score, mix};
