// Times the backend's operations on a GPU at the shapes of ende-base, and what a copy and a large
// product reach on the same GPU:
//   bench_kernels [--precision fp16|fp32|bf16] [--rows 4,256,…] [--only TEXT] [--json FILE]
// An operation is called many times in one CUDA graph, over so many buffers that no call finds its
// data in L2. The graph runs once to keep the device busy while its next replays are enqueued.
// Those replays are timed with events, and the median of the intervals is reported. The bytes of a
// call are those that must move at least once. Each distinct cache entry counts once.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "engine/backend.h"
#include "engine/error.h"
#include "engine/search.h"
#include "engine/workspace.h"
#include "tests/linear_norm.h"

namespace xlate {
namespace {

constexpr std::int64_t kWidth = 512, kInner = 2048, kVocabulary = 32001, kBeams = 4,
                       kPageTokens = 16, kLongest = 60;
// The first kFirst calls are not timed. The backend runs the first of them directly and then
// records one.
constexpr int kHeads = 8, kIntervals = 7, kReplays = 3, kLeastCalls = 16, kSearchSteps = 30,
              kFirst = 5;
// The L2 cache of an H200 has 50 MB.
constexpr double kBeyondCache = 160e6;
constexpr std::int64_t kMostCopies = 96;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Timing {
  std::string operation, shape;
  std::int64_t rows;
  // All three are of one call.
  double seconds, bytes, flops;
};

class Bench {
 public:
  Bench(Precision precision, std::string only)
      : backend_(make_backend({.cuda = true, .precision = precision})), only_(std::move(only)) {
    type_ = backend_->compute_type();
    size_ = static_cast<std::int64_t>(size_of(type_));
    std::mt19937 random(1);
    block_.resize(std::size_t{1} << 21);
    for (float& value : block_) value = static_cast<float>(random() >> 8) * 0x1p-23f - 1;
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
    return only_.empty() || operation.find(only_) != std::string::npos;
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
    const Tensor rests{low_bits.as<char>() + copy * rows * kWidth, DType::kInt8, rows, kWidth,
                       kWidth};
    return {matrix(rounded, rows, kWidth, copy), size_ == 2 ? rests : Tensor{}};
  }
  std::int64_t rests(std::int64_t rows) const { return size_ == 2 ? rows * kWidth : 0; }

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

  Attention attention_{kHeads, kWidth / kHeads, 0.125f, {}};
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Queue> queue_{backend_->make_queue()};
  DType type_;
  std::int64_t size_;
  std::string only_;
  std::vector<float> block_;
  std::vector<Timing> timings_;
  // The rates are in bytes and in operations per second.
  double copy_rate_ = 0, product_rate_ = 0;
};

void require(cudaError_t status) {
  if (status != cudaSuccess) fail("CUDA: {}", cudaGetErrorString(status));
}

void Bench::measure_ceilings() {
  constexpr std::size_t bytes = std::size_t{1} << 30;
  constexpr int copies = 8;
  const Buffer from = backend_->allocate(bytes), to = backend_->allocate(bytes);
  cudaEvent_t begin = nullptr, end = nullptr;
  require(cudaEventCreate(&begin));
  require(cudaEventCreate(&end));
  std::vector<double> rates;
  for (int i = 0; i < kIntervals + 1; ++i) {
    require(cudaEventRecord(begin));
    for (int n = 0; n < copies; ++n)
      require(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice));
    require(cudaEventRecord(end));
    require(cudaEventSynchronize(end));
    float milliseconds = 0;
    require(cudaEventElapsedTime(&milliseconds, begin, end));
    if (i > 0)
      rates.push_back(2.0 * static_cast<double>(bytes) * copies /
                      (static_cast<double>(milliseconds) * 1e-3));
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  copy_rate_ = median(rates);

  constexpr std::int64_t side = 8192;
  const Buffer x = numbers(side * side), w = numbers(side * side),
               y = backend_->allocate(static_cast<std::size_t>(side * side * size_));
  const Linear layer{matrix(w, side, side), {}};
  const double seconds = timed(4, [&] {
    for (int i = 0; i < 4; ++i)
      backend_->linear(*queue_, matrix(x, side, side), layer, Activation::kNone,
                       matrix(y, side, side));
  });
  product_rate_ = 2.0 * side * side * side / seconds;
  queue_ = backend_->make_queue();
}

void Bench::linear(std::int64_t rows, std::int64_t in, std::int64_t out, Activation activation) {
  if (!chosen("linear")) return;
  const double bytes = static_cast<double>((in * out + out + rows * (in + out)) * size_);
  const std::int64_t copies = copies_for(bytes);
  const Buffer x = numbers(copies * rows * in), w = numbers(copies * in * out, 0.05f),
               b = numbers(out), y = numbers(copies * rows * out);
  const std::string epilogue = activation == Activation::kRelu ? ", bias, relu" : ", bias";
  add("linear", fmt::format("{}→{}{}", in, out, epilogue), rows, bytes,
      2.0 * static_cast<double>(rows * in * out), copies, [&](std::int64_t i) {
        backend_->linear(*queue_, matrix(x, rows, in, i),
                         {matrix(w, out, in, i), matrix(b, 1, out)}, activation,
                         matrix(y, rows, out, i));
      });
}

void Bench::linear_norm(std::int64_t rows, std::int64_t in) {
  if (!chosen("linear_norm")) return;
  const double bytes = static_cast<double>(
      (in * kWidth + kWidth + rows * (in + 2 * kWidth)) * size_ + rests(2 * rows));
  const std::int64_t copies = copies_for(bytes);
  const Buffer low_bits = numbers(copies * rows * kWidth);
  const Buffer x = numbers(copies * rows * in), w = numbers(copies * in * kWidth, 0.05f),
               b = numbers(kWidth), r = numbers(copies * rows * kWidth),
               between = floats(rows * kWidth), gain = floats(kWidth), bias = floats(kWidth);
  const Tensor g{gain.data(), DType::kFloat32, 1, kWidth, kWidth},
      s{bias.data(), DType::kFloat32, 1, kWidth, kWidth};
  add("linear_norm", fmt::format("{}→{}, stream", in, kWidth), rows, bytes,
      2.0 * static_cast<double>(rows * in * kWidth), copies, [&](std::int64_t i) {
        test::run_linear_norm(*backend_, *queue_, matrix(x, rows, in, i),
                              {matrix(w, kWidth, in, i), matrix(b, 1, kWidth)},
                              {between.data(), DType::kFloat32, rows, kWidth, kWidth},
                              wide(r, low_bits, rows, i), {g, s});
      });
}

void Bench::norm(std::int64_t rows) {
  if (!chosen("norm")) return;
  const double bytes = static_cast<double>(3 * rows * kWidth * size_ + rests(2 * rows));
  const std::int64_t copies = copies_for(bytes);
  const Buffer low_bits = numbers(copies * rows * kWidth), x = numbers(copies * rows * kWidth),
               r = numbers(copies * rows * kWidth), gain = floats(kWidth), bias = floats(kWidth);
  const Tensor g{gain.data(), DType::kFloat32, 1, kWidth, kWidth},
      b{bias.data(), DType::kFloat32, 1, kWidth, kWidth};
  add("norm", fmt::format("{}, residual", kWidth), rows, bytes, 0, copies, [&](std::int64_t i) {
    backend_->add_norm(*queue_, wide(r, low_bits, rows, i), matrix(x, rows, kWidth, i), {g, b}, {},
                       {});
  });
}

void Bench::embed(std::int64_t rows) {
  if (!chosen("embed")) return;
  const double bytes = static_cast<double>(2 * rows * kWidth * size_ + rests(rows));
  const std::int64_t copies = copies_for(bytes);
  const Buffer low_bits = numbers(copies * rows * kWidth), table = numbers(kVocabulary * kWidth),
               places = floats(kLongest * kWidth), y = numbers(copies * rows * kWidth);
  std::vector<std::int32_t> ids, positions;
  for (std::int64_t i = 0; i < copies * rows; ++i)
    ids.push_back(static_cast<std::int32_t>(i * 7919 % kVocabulary)),
        positions.push_back(static_cast<std::int32_t>(i % kLongest));
  const Buffer ids_device = list(ids), positions_device = list(positions);
  const Embedding embedding{matrix(table, kVocabulary, kWidth),
                            {places.data(), DType::kFloat32, kLongest, kWidth, kWidth},
                            22.6f};
  add("embed", fmt::format("{} of {}", kWidth, kVocabulary), rows, bytes, 0, copies,
      [&](std::int64_t i) {
        backend_->embed(*queue_, embedding,
                        PackedRows{.count = rows,
                                   .ids = ids_device.as<std::int32_t>() + i * rows,
                                   .positions = positions_device.as<std::int32_t>() + i * rows},
                        wide(y, low_bits, rows, i));
      });
}

// Makes caches for sentences of 1 to 59 tokens, whose pages are shuffled. Where each beam has keys
// of its own, the beams of a sentence share all of its tokens but the last six.
Bench::Caches Bench::make_caches(std::int64_t groups, std::int64_t beams,
                                 std::int64_t keys_per_token, std::int64_t copies) {
  constexpr std::int64_t parted = 6;
  const std::int64_t slots = groups * copies, per_slot = (kLongest + kPageTokens) / kPageTokens;
  std::vector<std::int32_t> table(static_cast<std::size_t>(slots * per_slot)), lengths, listed;
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::int32_t>(i);
  std::shuffle(table.begin(), table.end(), std::mt19937(2));
  std::vector<std::uint8_t> ancestors(static_cast<std::size_t>(slots * kLongest * beams));
  Caches made;
  for (std::int64_t slot = 0; slot < slots; ++slot) {
    const auto length = static_cast<std::int32_t>(1 + slot * 37 % (kLongest - 1));
    lengths.push_back(length);
    listed.push_back(static_cast<std::int32_t>(slot));
    const std::int64_t own = keys_per_token == 1 ? 0 : std::min<std::int64_t>(parted, length);
    made.keys += static_cast<double>(length - own + own * beams) / static_cast<double>(copies);
    for (std::int64_t t = length - own; t < length; ++t) {
      for (std::int64_t k = 0; k < beams; ++k)
        ancestors[static_cast<std::size_t>((slot * kLongest + t) * beams + k)] =
            static_cast<std::uint8_t>(k);
    }
  }
  const std::int64_t rows = slots * per_slot * kPageTokens * keys_per_token;
  made.pages = numbers(rows * 2 * kWidth);
  made.table = list(table), made.lengths = list(lengths), made.groups = list(listed),
  made.ancestors = list(ancestors);
  made.done = list(std::vector<std::int32_t>(static_cast<std::size_t>(slots)));
  made.cache = {matrix(made.pages, rows, 2 * kWidth), made.table.as<std::int32_t>(), per_slot,
                kPageTokens, keys_per_token};
  made.state = {.length = made.lengths.as<std::int32_t>(),
                .done = made.done.as<std::int32_t>(),
                .ancestor = made.ancestors.as<std::uint8_t>(),
                .slots = slots,
                .beams = beams,
                .longest = kLongest};
  return made;
}

void Bench::attend_self(std::int64_t rows, std::int64_t beams) {
  if (!chosen("attend_self")) return;
  const std::int64_t groups = rows / beams,
                     copies = copies_for(static_cast<double>(groups * 40 * 2 * kWidth * size_));
  const Caches made = make_caches(groups, beams, beams, copies);
  const Buffer qkv = numbers(copies * rows * 3 * kWidth), out = numbers(copies * rows * kWidth);
  const double keys = made.keys * 2 * kWidth,
               bytes = (keys + static_cast<double>(rows * kWidth * (3 + 2 + 1))) *
                       static_cast<double>(size_);
  const std::string shape = fmt::format("{} beams, lengths 1…{}", beams, kLongest);
  const auto rows_of = [&](std::int64_t i) {
    return StepRows{made.groups.as<std::int32_t>() + i * groups, groups, beams};
  };
  // A decoding step lists its keys once for all layers. Here each call has rows of its own, so the
  // keys are listed before each call, and that time is subtracted. The sources have no tokens.
  const Buffer none = list(std::vector<std::int32_t>(static_cast<std::size_t>(made.state.slots)));
  const PagedCaches caches{{made.cache}, {made.cache}, none.as<std::int32_t>()};
  const double begin = list_keys(shape, rows, copies, [&](std::int64_t i) {
    return Step{made.state, rows_of(i), caches};
  });
  add(
      "attend_self", shape, rows, bytes, 0, copies,
      [&](std::int64_t i) {
        backend_->attend_self(*queue_, matrix(qkv, rows, 3 * kWidth, i),
                              Step{made.state, rows_of(i), caches}, 0, attention_,
                              matrix(out, rows, kWidth, i));
      },
      begin);
}

void Bench::attend_cross(std::int64_t rows, std::int64_t beams) {
  if (!chosen("attend_cross")) return;
  const std::int64_t groups = rows / beams,
                     copies = copies_for(static_cast<double>(groups * 30 * 2 * kWidth * size_));
  const Caches made = make_caches(groups, beams, 1, copies);
  const Buffer query = numbers(copies * rows * kWidth), out = numbers(copies * rows * kWidth);
  const double bytes = (made.keys * 2 * kWidth + static_cast<double>(2 * rows * kWidth)) *
                       static_cast<double>(size_);
  const std::string shape = fmt::format("{} beams, lengths 1…{}", beams, kLongest);
  const auto rows_of = [&](std::int64_t i) {
    return StepRows{made.groups.as<std::int32_t>() + i * groups, groups, beams};
  };
  // Self-attention has no history here, so that its key lists cost little.
  SearchState unused = made.state;
  const Buffer none = list(std::vector<std::int32_t>(static_cast<std::size_t>(made.state.slots)));
  unused.length = none.as<std::int32_t>();
  const PagedCaches caches{{made.cache}, {made.cache}, made.state.length};
  const double begin = list_keys(shape, rows, copies, [&](std::int64_t i) {
    return Step{unused, rows_of(i), caches};
  });
  add(
      "attend_cross", shape, rows, bytes, 0, copies,
      [&](std::int64_t i) {
        backend_->attend_cross(*queue_, matrix(query, rows, kWidth, i),
                               Step{unused, rows_of(i), caches}, 0, attention_,
                               matrix(out, rows, kWidth, i));
      },
      begin);
}

void Bench::attend_packed(std::int64_t rows) {
  if (!chosen("attend_packed")) return;
  std::vector<std::int32_t> offsets{0};
  double squares = 0;
  for (std::int64_t i = 0; offsets.back() < rows; ++i) {
    const std::int64_t length =
        std::min<std::int64_t>(1 + i * 37 % kLongest, rows - offsets.back());
    offsets.push_back(static_cast<std::int32_t>(offsets.back() + length));
    squares += static_cast<double>(length * length);
  }
  const double bytes = static_cast<double>(4 * rows * kWidth * size_);
  const std::int64_t copies = copies_for(bytes);
  const Buffer qkv = numbers(copies * rows * 3 * kWidth), out = numbers(copies * rows * kWidth),
               offsets_device = list(offsets);
  add("attend_packed", fmt::format("lengths 1…{}", kLongest), rows, bytes, 4.0 * kWidth * squares,
      copies, [&](std::int64_t i) {
        backend_->attend_self(*queue_, matrix(qkv, rows, 3 * kWidth, i),
                              PackedRows{.count = rows,
                                         .offsets_host = offsets,
                                         .offsets = offsets_device.as<std::int32_t>()},
                              attention_, matrix(out, rows, kWidth, i));
      });
}

// Times the first thirty steps of new sentences, none of which ends, and stores the mean of a step.
void Bench::search_step(std::int64_t rows, int beams) {
  if (!chosen("search_step")) return;
  const std::int64_t slots = rows / beams, padded = (kVocabulary + backend_->row_multiple() - 1) /
                                                    backend_->row_multiple() *
                                                    backend_->row_multiple();
  const Buffer weight = numbers(padded * kWidth, 0.2f), hidden = numbers(rows * kWidth, 2),
               bias = floats(kVocabulary);
  const Projection projection{{matrix(weight, padded, kWidth).row_range(0, kVocabulary),
                               {bias.data(), DType::kFloat32, 1, kVocabulary, kVocabulary}}};
  const std::int32_t end = 0, pad = kVocabulary - 1;
  Search search(*backend_, *queue_,
                {.beams = beams, .start = pad, .ends = {end}, .never_chosen = {end, pad}}, slots,
                2 * kSearchSteps);
  std::vector<std::int32_t> listed(static_cast<std::size_t>(slots)),
      limits(static_cast<std::size_t>(slots), 2 * kSearchSteps);
  for (std::size_t i = 0; i < listed.size(); ++i) listed[i] = static_cast<std::int32_t>(i);
  const Buffer groups = list(listed);
  const StepRows step{groups.as<std::int32_t>(), slots, beams};
  const double seconds = timed(
      kSearchSteps,
      [&] {
        for (int i = 0; i < kSearchSteps; ++i)
          search.step(matrix(hidden, rows, kWidth), step, projection);
      },
      [&] { search.start(listed, limits); });
  const double bytes = static_cast<double>((padded + rows) * kWidth * size_);
  keep({"search_step",
        fmt::format("{}→{}, {}", kWidth, kVocabulary,
                    beams == 1 ? "greedy" : fmt::format("{} beams", beams)),
        rows, seconds, bytes, 2.0 * static_cast<double>(rows * kWidth * kVocabulary)});
}

void Bench::print(std::ostream& out) const {
  const DeviceInfo info = backend_->info();
  out << fmt::format(
             "{}, driver for CUDA {}, {}, {}. A copy of 1 GiB moves {:.2f} TB/s, "
             "a product of 8192×8192×8192 does {:.0f} TFLOP/s.\n\n",
             info.name, info.driver, info.library, name_of(type_), copy_rate_ * 1e-12,
             product_rate_ * 1e-12)
      << "| operation | shape | rows | µs | GB/s | of the copy | TFLOP/s | of the product |\n"
         "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n";
  for (const Timing& t : timings_) {
    out << fmt::format(
        "| {} | {} | {} | {:.2f} | {:.0f} | {:.0f} % | {} | {} |\n", t.operation, t.shape, t.rows,
        t.seconds * 1e6, t.bytes / t.seconds * 1e-9, 100 * t.bytes / t.seconds / copy_rate_,
        t.flops > 0 ? fmt::format("{:.1f}", t.flops / t.seconds * 1e-12) : "",
        t.flops > 0 ? fmt::format("{:.0f} %", 100 * t.flops / t.seconds / product_rate_) : "");
  }
}

nlohmann::json Bench::json() const {
  const DeviceInfo info = backend_->info();
  nlohmann::json result{{"device", info.name},
                        {"driver", info.driver},
                        {"library", info.library},
                        {"precision", name_of(type_)},
                        {"copy_bytes_per_second", copy_rate_},
                        {"product_flops_per_second", product_rate_}};
  for (const Timing& t : timings_) {
    result["timings"].push_back({{"operation", t.operation},
                                 {"shape", t.shape},
                                 {"rows", t.rows},
                                 {"microseconds", t.seconds * 1e6},
                                 {"bytes", t.bytes},
                                 {"flops", t.flops},
                                 {"bytes_per_second", t.bytes / t.seconds},
                                 {"flops_per_second", t.flops / t.seconds}});
  }
  return result;
}

void run(int count, char** arguments) {
  Precision precision = Precision::kFloat16;
  std::vector<std::int64_t> rows{4, 256, 1024, 4096, 16384};
  std::string only, json;
  for (int i = 1; i < count; i += 2) {
    const std::string name = arguments[i], value = i + 1 < count ? arguments[i + 1] : "";
    if (name == "--precision") {
      const std::map<std::string, Precision> known{{"fp32", Precision::kFloat32},
                                                   {"fp16", Precision::kFloat16},
                                                   {"bf16", Precision::kBFloat16}};
      if (!known.contains(value)) fail("--precision: '{}', expected fp32, fp16 or bf16", value);
      precision = known.at(value);
    } else if (name == "--rows") {
      rows.clear();
      std::istringstream list(value);
      for (std::string number; std::getline(list, number, ',');) rows.push_back(std::stoll(number));
    } else if (name == "--only") {
      only = value;
    } else if (name == "--json") {
      json = value;
    } else {
      fail("unknown argument '{}', expected --precision, --rows, --only or --json", name);
    }
  }
  Bench bench(precision, only);
  bench.measure_ceilings();
  for (const std::int64_t r : rows) {
    bench.linear(r, kWidth, 3 * kWidth, Activation::kNone);
    bench.linear(r, kWidth, kWidth, Activation::kNone);
    bench.linear(r, kWidth, kInner, Activation::kRelu);
    bench.linear(r, kInner, kWidth, Activation::kNone);
    bench.norm(r);
    bench.linear_norm(r, kWidth);
    bench.linear_norm(r, kInner);
    bench.embed(r);
    for (const std::int64_t beams : {std::int64_t{1}, kBeams}) {
      bench.attend_self(r, beams);
      bench.attend_cross(r, beams);
      bench.search_step(r, static_cast<int>(beams));
    }
    bench.attend_packed(r);
  }
  bench.print(std::cout);
  if (!json.empty()) std::ofstream(json) << bench.json().dump(1) << '\n';
}

}  // namespace
}  // namespace xlate

int main(int count, char** arguments) {
  try {
    xlate::run(count, arguments);
  } catch (const std::exception& error) {
    std::cerr << "bench_kernels: " << error.what() << '\n';
    return 1;
  }
}
