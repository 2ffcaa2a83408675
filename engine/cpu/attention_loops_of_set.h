// Defines the loops of attention_loops.h for one instruction set. attention_loops.cpp includes this
// file once for each of them, with kLanes as the number of floats of a register, inside a namespace
// of its own. Functions of other headers must not be used here, because the linker could keep their
// copy with the instructions of one set for all callers.

typedef float Floats __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

static inline Floats load(const float* from) { return *reinterpret_cast<const Floats*>(from); }
// Widens numbers in bfloat16, which are the upper halves of those in float32.
static inline float load_one(const std::uint16_t* from) {
  const std::uint32_t bits = static_cast<std::uint32_t>(*from) << 16;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}
static inline float load_one(const float* from) { return *from; }
typedef std::uint32_t Words __attribute__((vector_size(kLanes * 4), aligned(2), may_alias));
static inline Floats floats_of(Words bits) {
  Floats values;
  __builtin_memcpy(&values, &bits, sizeof(values));
  return values;
}
static inline Floats load(const std::uint16_t* from) {
  typedef std::uint16_t Halves __attribute__((vector_size(kLanes * 2), aligned(2), may_alias));
  return floats_of(__builtin_convertvector(*reinterpret_cast<const Halves*>(from), Words) << 16);
}
// Widens 2 · kLanes numbers at once. Two of them lie in each word, the first one below.
struct Pairs {
  Floats first, second;
};
static inline Pairs load_pairs(const std::uint16_t* from) {
  const Words words = *reinterpret_cast<const Words*>(from);
  return {floats_of(words << 16), floats_of(words & 0xffff0000u)};
}
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

// Adds the lanes i and i ^ kDistance, of `b` where i has that bit and else of `a`.
template <int kDistance>
static inline Floats added(Floats a, Floats b) {
#if defined(__clang__)
  Floats result;
  for (int i = 0; i < kLanes; ++i)
    result[i] = i & kDistance ? b[i] + b[i ^ kDistance] : a[i] + a[i ^ kDistance];
  return result;
#else
  typedef std::int32_t Indices __attribute__((vector_size(kLanes * 4)));
  Indices own, other;
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    const int vector = i & kDistance ? kLanes : 0;
    own[i] = vector + i;
    other[i] = vector + (i ^ kDistance);
  }
  return __builtin_shuffle(a, b, own) + __builtin_shuffle(a, b, other);
#endif
}

// Returns the sums of kLanes vectors, each in the lane of its number: with kDistance = 1 and first
// = 0, sum_of(vector(i)) in lane i, bit for bit. It needs fewer instructions than sum_of() for
// each.
template <int kDistance, class Vector>
static inline Floats sums_of(const Vector& vector, int first) {
  if constexpr (kDistance == kLanes)
    return vector(first);
  else
    return added<kDistance>(sums_of<2 * kDistance>(vector, first),
                            sums_of<2 * kDistance>(vector, first + kDistance));
}

// Returns a vector whose lanes add up to the dot product of the columns that fill whole vectors.
static inline Floats products_of(const float* query, const float* key, std::int64_t n) {
  Floats even = {}, odd = {};
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    even += load(query + i) * load(key + i);
    odd += load(query + i + kLanes) * load(key + i + kLanes);
  }
  for (; i + kLanes <= n; i += kLanes) even += load(query + i) * load(key + i);
  return even + odd;
}

// Does the same with a key in bfloat16. The query is as separate_pairs() has left it.
static inline Floats products_of(const float* query, const std::uint16_t* key, std::int64_t n) {
  Floats even = {}, odd = {};
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const Pairs pairs = load_pairs(key + i);
    even += load(query + i) * pairs.first;
    odd += load(query + i + kLanes) * pairs.second;
  }
  for (; i + kLanes <= n; i += kLanes) even += load(query + i) * load(key + i);
  return even + odd;
}

// Puts the first numbers of the pairs of each 2 · kLanes before the second ones, as load_pairs()
// gives them. What does not fill so many stays as it is.
static inline void separate_pairs(const float* x, std::int64_t n, float* out) {
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) {
      out[i + j] = x[i + 2 * j];
      out[i + kLanes + j] = x[i + 2 * j + 1];
    }
  }
  for (; i < n; ++i) out[i] = x[i];
}

template <class T>
static inline const T* key_of(const KeyRows& rows, std::int64_t t) {
  return static_cast<const T*>(rows.keys[t]);
}

// Scores the keys of one head of up to kLanes tokens from `first` on for one head of queries.
template <class T>
static inline void score_block(const float* query, const KeyRows& rows, std::int64_t first,
                               std::int64_t count, std::int64_t offset, float* scores) {
  const std::int64_t n = rows.head;
  if (2 * count > kLanes) {
    const Floats sums = sums_of<1>(
        [&](int i) {
          const std::int64_t t = first + (i < count ? i : count - 1);
          return products_of(query, key_of<T>(rows, t) + offset, n);
        },
        0);
    if (count == kLanes)
      store(scores, sums);
    else
      for (std::int64_t i = 0; i < count; ++i) scores[i] = sums[i];
  } else {
    for (std::int64_t i = 0; i < count; ++i)
      scores[i] = sum_of(products_of(query, key_of<T>(rows, first + i) + offset, n));
  }
  for (std::int64_t column = n / kLanes * kLanes; column < n; ++column) {
    for (std::int64_t i = 0; i < count; ++i)
      scores[i] += query[column] * load_one(key_of<T>(rows, first + i) + offset + column);
  }
}

// The keys of a token lie next to each other for all heads, so that each token is visited once, in
// blocks. The keys of the next block are fetched meanwhile, because the processor does not guess
// where they lie. The values are not: that took longer.
template <class T>
static inline void score_rows(const float* query, const KeyRows& rows, float* scores) {
  constexpr std::int64_t kLine = 64 / sizeof(T);
  for (std::int64_t t = 0; t < rows.count; t += kLanes) {
    const std::int64_t count = rows.count - t < kLanes ? rows.count - t : kLanes,
                       after = rows.count - t - count, next = after < kLanes ? after : kLanes;
    for (std::int64_t head = 0; head < rows.key_heads; ++head) {
      const std::int64_t offset = head * rows.head;
      for (std::int64_t i = 0; i < next; ++i) {
        const T* key = key_of<T>(rows, t + kLanes + i) + offset;
        for (std::int64_t column = 0; column < rows.head; column += kLine)
          __builtin_prefetch(key + column, 0, 2);
      }
      for (std::int64_t i = head * rows.group; i < (head + 1) * rows.group; ++i)
        score_block<T>(query + i * rows.head, rows, t, count, offset, scores + i * rows.count + t);
    }
  }
}

static void score(const float* query, const KeyRows& rows, float* room, float* scores) {
  if (rows.type != DType::kBFloat16) return score_rows<float>(query, rows, scores);
  for (std::int64_t i = 0; i < rows.key_heads * rows.group; ++i)
    separate_pairs(query + i * rows.head, rows.head, room + i * rows.head);
  score_rows<std::uint16_t>(room, rows, scores);
}

// Sums kVectors registers of columns of the values of one head of keys, for one head of queries.
template <class T, int kVectors>
static inline std::int64_t mix_columns(std::int64_t first, const float* weights,
                                       const KeyRows& rows, std::int64_t offset, float* out) {
  std::int64_t j = first;
  for (; j + kVectors * kLanes <= rows.head; j += kVectors * kLanes) {
    Floats sums[kVectors] = {};
    for (std::int64_t t = 0; t < rows.count; ++t) {
      const T* value = key_of<T>(rows, t) + offset + j;
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[v] += weights[t] * load(value + v * kLanes);
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) store(out + j + v * kLanes, sums[v]);
  }
  return j;
}

// Does the same for values in bfloat16 with kPairs times two registers.
template <int kPairs>
static inline std::int64_t mix_pairs(std::int64_t first, const float* weights, const KeyRows& rows,
                                     std::int64_t offset, float* out) {
  constexpr std::int64_t kColumns = 2 * kPairs * kLanes;
  std::int64_t j = first;
  for (; j + kColumns <= rows.head; j += kColumns) {
    Pairs sums[kPairs] = {};
    for (std::int64_t t = 0; t < rows.count; ++t) {
      const std::uint16_t* value = key_of<std::uint16_t>(rows, t) + offset + j;
#pragma GCC unroll 4
      for (int p = 0; p < kPairs; ++p) {
        const Pairs pairs = load_pairs(value + 2 * p * kLanes);
        sums[p].first += weights[t] * pairs.first;
        sums[p].second += weights[t] * pairs.second;
      }
    }
    for (int p = 0; p < kPairs; ++p) {
      float* to = out + j + 2 * p * kLanes;
      for (int lane = 0; lane < kLanes; ++lane)
        to[2 * lane] = sums[p].first[lane], to[2 * lane + 1] = sums[p].second[lane];
    }
  }
  return j;
}

// Sums the columns of one head that fill whole registers, and returns their number.
static inline std::int64_t mix_head(const float*, const float* weights, const KeyRows& rows,
                                    std::int64_t offset, float* out) {
  const std::int64_t j = mix_columns<float, 4>(0, weights, rows, offset, out);
  return mix_columns<float, 1>(j, weights, rows, offset, out);
}
static inline std::int64_t mix_head(const std::uint16_t*, const float* weights, const KeyRows& rows,
                                    std::int64_t offset, float* out) {
  std::int64_t j = mix_pairs<2>(0, weights, rows, offset, out);
  j = mix_pairs<1>(j, weights, rows, offset, out);
  return mix_columns<std::uint16_t, 1>(j, weights, rows, offset, out);
}

template <class T>
static inline void mix_rows(const float* weights, const KeyRows& rows, float* out) {
  for (std::int64_t i = 0; i < rows.key_heads * rows.group; ++i) {
    const std::int64_t offset = (rows.key_heads + i / rows.group) * rows.head;
    const float* of_head = weights + i * rows.count;
    float* to = out + i * rows.head;
    std::int64_t j = mix_head(static_cast<const T*>(nullptr), of_head, rows, offset, to);
    for (; j < rows.head; ++j) {
      float sum = 0;
      for (std::int64_t t = 0; t < rows.count; ++t)
        sum += of_head[t] * load_one(key_of<T>(rows, t) + offset + j);
      to[j] = sum;
    }
  }
}

static void mix(const float* weights, const KeyRows& rows, float* out) {
  if (rows.type == DType::kBFloat16) return mix_rows<std::uint16_t>(weights, rows, out);
  mix_rows<float>(weights, rows, out);
}

static constexpr AttentionLoops kLoops{multiply, transpose, score, mix};
