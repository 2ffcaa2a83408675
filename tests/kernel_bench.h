// Times the backend's operations on a GPU, at the shapes of ende-base or at those that the options
// of bench_kernels.cpp name.
//
// An operation is called many times in one CUDA graph, over so many buffers that no call finds its
// data in L2. The graph runs once to keep the device busy while its next replays are enqueued.
// Those replays are timed with events, and the median of the intervals is reported. The bytes of a
// call are those that must move at least once. Each distinct cache entry counts once.
#pragma once

#include <algorithm>
#include <functional>
#include <iosfwd>
#include <nlohmann/json.hpp>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/error.h"
#include "engine/workspace.h"

namespace xlate::test {

inline constexpr std::int64_t kWidth = 512, kInner = 2048, kVocabulary = 32001, kBeams = 4,
                              kPageTokens = 16, kLongest = 60;
// The first kFirst calls are not timed. The backend runs the first of them directly and then
// records one.
inline constexpr std::int64_t kHead = 64;
inline constexpr int kIntervals = 7, kReplays = 3, kLeastCalls = 16, kSearchSteps = 30, kFirst = 5;
// The L2 cache of an H200 has 50 MB.
inline constexpr double kBeyondCache = 160e6;
inline constexpr std::int64_t kMostCopies = 96;

/// Returns the median of at least one value.
inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// The timing of an operation at one shape.
struct Timing {
  std::string operation, shape;
  std::int64_t rows;
  // All three are of one call.
  double seconds, bytes, flops;
};

/// Says what is timed. The defaults are the shapes of ende-base.
struct BenchOptions {
  Precision precision = Precision::kFloat16;
  // Operations whose names do not contain this text are left out.
  std::string only;
  // The heads of attention have kHead columns, so that the width is a multiple of it.
  std::int64_t width = kWidth, inner = kInner;
  // The norm is the one before the next sublayer, as in pre-norm networks.
  bool norm_before = false;
  NormKind norm_kind = NormKind::kLayer;
  // Attention is that of T5: self-attention has a bias by distance, and scores are not scaled.
  bool distance_bias = false;
  // Products with norms are timed as one kernel and as two as well, whatever the number of rows.
  bool both_ways = false;
};

/// Times operations on a GPU, and keeps the timings.
class Bench {
 public:
  explicit Bench(const BenchOptions& options)
      : options_(options),
        backend_(make_backend({.cuda = true, .precision = options.precision})),
        width_(options.width) {
    type_ = backend_->compute_type();
    size_ = static_cast<std::int64_t>(size_of(type_));
    std::mt19937 random(1);
    block_.resize(std::size_t{1} << 21);
    for (float& value : block_) value = static_cast<float>(random() >> 8) * 0x1p-23f - 1;
    if (!options_.distance_bias) return;
    distance_bias_ = floats(width_ / kHead * kDistances);
    attention_.scale = 1;
  }

  void measure_ceilings();
  void linear(std::int64_t rows, std::int64_t in, std::int64_t out, Activation activation);
  void linear_norm(std::int64_t rows, std::int64_t in);
  void norm(std::int64_t rows);
  void embed(std::int64_t rows);
  void attend_self(std::int64_t rows, std::int64_t beams);
  void attend_cross(std::int64_t rows, std::int64_t beams);
  void attend_packed(std::int64_t rows);
  void search_step(std::int64_t rows, int beams);
  void print(std::ostream& out) const;
  nlohmann::json json() const;

 private:
  bool chosen(const std::string& operation) const {
    return options_.only.empty() || operation.find(options_.only) != std::string::npos;
  }
  // Returns the number of buffers at which the data of one call has left the cache when its buffers
  // are used again.
  static std::int64_t copies_for(double bytes) {
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(kBeyondCache / bytes) + 1, 1,
                                    kMostCopies);
  }

  // Returns device memory with random numbers in [−size, size).
  Buffer numbers(std::int64_t count, float size = 1) { return numbers_as(type_, count, size); }
  Buffer floats(std::int64_t count) { return numbers_as(DType::kFloat32, count, 1); }
  Buffer numbers_as(DType type, std::int64_t count, float size) {
    Buffer buffer = backend_->allocate(static_cast<std::size_t>(count) * size_of(type));
    std::vector<float> scaled(block_);
    for (float& value : scaled) value *= size;
    for (std::int64_t at = 0; at < count; at += std::ssize(scaled)) {
      const auto part =
          static_cast<std::size_t>(std::min<std::int64_t>(std::ssize(scaled), count - at));
      backend_->upload_as(*queue_, std::span(scaled).first(part), type,
                          buffer.as<char>() + at * static_cast<std::int64_t>(size_of(type)));
    }
    return buffer;
  }
  template <class T>
  Buffer list(const std::vector<T>& values) {
    Buffer buffer = backend_->allocate(values.size() * sizeof(T));
    backend_->upload(*queue_, std::as_bytes(std::span(values)), buffer.data());
    return buffer;
  }
  Tensor matrix(const Buffer& buffer, std::int64_t rows, std::int64_t columns,
                std::int64_t copy = 0) const {
    return {buffer.as<char>() + copy * rows * columns * size_, type_, rows, columns, columns};
  }
  // Returns rows of the residual stream. They have low bits only in 16-bit types. rests() returns
  // the bytes of the low bits of that many rows.
  ResidualRows wide(const Buffer& rounded, const Buffer& low_bits, std::int64_t rows,
                    std::int64_t copy) const {
    const Tensor rests{low_bits.as<char>() + copy * rows * width_, DType::kInt8, rows, width_,
                       width_};
    return {matrix(rounded, rows, width_, copy), size_ == 2 ? rests : Tensor{}};
  }
  std::int64_t rests(std::int64_t rows) const { return size_ == 2 ? rows * width_ : 0; }

  // Returns the seconds of one call; `step` makes `calls` of them. Where `before` is given, it runs
  // before each timed interval and is not timed.
  double timed(std::int64_t calls, const std::function<void()>& step,
               const std::function<void()>& before = {}) {
    const int replays = before ? 1 : kReplays;
    std::vector<double> seconds;
    for (int i = 0; i < kIntervals + kFirst; ++i) {
      if (before)
        before();
      else
        backend_->repeat(*queue_, 1, 1, step);
      const double earlier = i < kFirst ? 0 : backend_->work_seconds().decode;
      // An untimed replay keeps the device busy.
      if (i >= kFirst && !before) backend_->repeat(*queue_, 1, 1, step);
      backend_->begin_work(*queue_, Work::kDecode);
      for (int n = 0; n < replays; ++n) backend_->repeat(*queue_, 1, 1, step);
      backend_->end_work(*queue_, Work::kDecode);
      const double later = backend_->work_seconds().decode;
      if (i >= kFirst) seconds.push_back((later - earlier) / static_cast<double>(replays * calls));
    }
    return median(seconds);
  }
  // Times call(copy) over all copies, subtracts the known time `part` of a part of the call, and
  // stores the timing. Returns the seconds of one call.
  double add(const std::string& operation, const std::string& shape, std::int64_t rows,
             double bytes, double flops, std::int64_t copies,
             const std::function<void(std::int64_t)>& call, double part = 0) {
    const std::int64_t calls = std::max<std::int64_t>(copies, kLeastCalls);
    keep({operation, shape, rows,
          timed(calls,
                [&] {
                  for (std::int64_t i = 0; i < calls; ++i) call(i % copies);
                }) -
              part,
          bytes, flops});
    return timings_.back().seconds;
  }
  void keep(const Timing& timing) {
    timings_.push_back(timing);
    fmt::print(stderr, "{} {}, {} rows: {:.2f} µs\n", timing.operation, timing.shape, timing.rows,
               timing.seconds * 1e6);
    backend_->work_seconds();
    queue_ = backend_->make_queue();
  }

  // Times what a run over a step does before its first operation. On a GPU it lists the keys that
  // the rows of the step will read.
  double list_keys(const std::string& shape, std::int64_t rows, std::int64_t copies,
                   const std::function<Step(std::int64_t)>& step_of) {
    return add("keys of a step", shape, rows, 0, 0, copies,
               [&](std::int64_t i) { backend_->run(*queue_, Program(), Workspace(), step_of(i)); });
  }

  struct Caches {
    Buffer pages, table, lengths, done, ancestors, groups;
    PagedCache cache;
    SearchState state;
    // This is the number of distinct keys that a call reads, averaged over the copies.
    double keys = 0;
  };
  Caches make_caches(std::int64_t groups, std::int64_t beams, std::int64_t keys_per_token,
                     std::int64_t copies);

  // Returns the norm of a gain and a shift, which an RMS norm has not.
  Norm norm_of(const Buffer& gain, const Buffer& shift) const {
    const auto row = [&](const Buffer& buffer) {
      return Tensor{buffer.data(), DType::kFloat32, 1, width_, width_};
    };
    const bool rms = options_.norm_kind == NormKind::kRms;
    return {row(gain), rms ? Tensor{} : row(shift), 1e-5f, options_.norm_kind};
  }
  // Says in a shape which norm it is, if it is not that of ende-base.
  std::string norm_name() const {
    if (!options_.norm_before) return "";
    return options_.norm_kind == NormKind::kRms ? ", RMS norm before" : ", layer norm before";
  }
  // Returns the bytes of the rows that a norm before a sublayer leaves.
  std::int64_t normed_bytes(std::int64_t rows) const {
    return options_.norm_before ? rows * width_ * size_ : 0;
  }
  // Returns the self-attention, and what a shape says of it if it is not that of ende-base.
  Attention self_attention() const {
    Attention attention = attention_;
    if (options_.distance_bias)
      attention.distance_bias = {distance_bias_.data(), DType::kFloat32, attention_.heads,
                                 kDistances, kDistances};
    return attention;
  }
  std::string heads_name() const {
    return width_ == kWidth ? "" : fmt::format(", {} heads", attention_.heads);
  }
  std::string self_name() const {
    return heads_name() + (options_.distance_bias ? ", distance bias" : "");
  }

  struct NormedProduct;
  void linear_norm_both_ways(const NormedProduct&, const std::string& shape, double bytes,
                             double flops, std::int64_t copies);

  // A distance bias tells keys at up to 128 positions before and behind a query apart.
  static constexpr std::int64_t kDistances = 2 * 128 + 1;

  BenchOptions options_;
  std::unique_ptr<Backend> backend_;
  std::int64_t width_;
  Attention attention_{static_cast<int>(width_ / kHead), kHead, 0.125f, {}};
  std::unique_ptr<Queue> queue_{backend_->make_queue()};
  DType type_;
  std::int64_t size_;
  std::vector<float> block_;
  Buffer distance_bias_;
  std::vector<Timing> timings_;
  // The rates are in bytes and in operations per second.
  double copy_rate_ = 0, product_rate_ = 0;
};

}  // namespace xlate::test
