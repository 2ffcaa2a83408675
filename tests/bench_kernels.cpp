// Times the backend's operations on a GPU at the shapes of ende-base or at others, and what a copy
// and a large product reach on the same GPU:
//   bench_kernels [--precision fp16|fp32|bf16] [--rows 4,256,…] [--only TEXT] [--json FILE]
//                 [--width 512] [--inner 2048] [--norm after|before] [--kind layer|rms] [--bias]
// --norm before is a pre-norm network, where --kind names the norm. With any of the options from
// --width to --kind, products with norms are timed as one kernel and as two as well, whatever the
// number of rows. --bias is attention as in T5, where self-attention has a bias by distance and
// scores are not scaled. kernel_bench.h says how operations are timed.
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>

#include "tests/kernel_bench.h"

namespace xlate::test {
namespace {

struct Arguments {
  BenchOptions bench;
  std::vector<std::int64_t> rows{4, 256, 1024, 4096, 16384};
  std::string json;
};

// Returns what a value of an option stands for. Throws Error if it is none of the known ones.
template <class Value>
Value one_of(const std::string& name, const std::string& value,
             const std::map<std::string, Value>& known) {
  const auto found = known.find(value);
  if (found != known.end()) return found->second;
  std::string names;
  for (const auto& [each, unused] : known) names += (names.empty() ? "" : ", ") + each;
  fail("{}: '{}', expected one of: {}", name, value, names);
}

// Reads an option of the shapes. Returns false if it is another one.
bool read_shape(const std::string& name, const std::string& value, BenchOptions& options) {
  if (name == "--width")
    options.width = std::stoll(value);
  else if (name == "--inner")
    options.inner = std::stoll(value);
  else if (name == "--norm")
    options.norm_before = one_of<bool>(name, value, {{"after", false}, {"before", true}});
  else if (name == "--kind")
    options.norm_kind =
        one_of<NormKind>(name, value, {{"layer", NormKind::kLayer}, {"rms", NormKind::kRms}});
  else
    return false;
  return options.both_ways = true;
}

Arguments read(int count, char** arguments) {
  Arguments read;
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    if (name == "--bias") {
      read.bench.distance_bias = true;
      continue;
    }
    const std::string value = ++i < count ? arguments[i] : "";
    if (name == "--precision") {
      read.bench.precision = one_of<Precision>(name, value,
                                               {{"fp32", Precision::kFloat32},
                                                {"fp16", Precision::kFloat16},
                                                {"bf16", Precision::kBFloat16}});
    } else if (name == "--rows") {
      read.rows.clear();
      std::istringstream list(value);
      for (std::string number; std::getline(list, number, ',');)
        read.rows.push_back(std::stoll(number));
    } else if (name == "--only") {
      read.bench.only = value;
    } else if (name == "--json") {
      read.json = value;
    } else if (!read_shape(name, value, read.bench)) {
      fail(
          "unknown argument '{}', expected --precision, --rows, --only, --json, --width, --inner, "
          "--norm, --kind or --bias",
          name);
    }
  }
  if (read.bench.width < kHead || read.bench.width % kHead != 0 || read.bench.inner < 1)
    fail("--width {} --inner {}: expected a width in multiples of {} and an inner width",
         read.bench.width, read.bench.inner, kHead);
  if (read.bench.norm_kind == NormKind::kRms && !read.bench.norm_before)
    fail("--kind rms: expected with --norm before");
  return read;
}

void run(int count, char** arguments) {
  const auto [options, rows, json] = read(count, arguments);
  const std::int64_t width = options.width, inner = options.inner;
  Bench bench(options);
  bench.measure_ceilings();
  for (const std::int64_t r : rows) {
    bench.linear(r, width, 3 * width, Activation::kNone);
    bench.linear(r, width, width, Activation::kNone);
    bench.linear(r, width, inner, Activation::kRelu);
    bench.linear(r, inner, width, Activation::kNone);
    bench.norm(r);
    bench.linear_norm(r, width);
    bench.linear_norm(r, inner);
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
}  // namespace xlate::test

int main(int count, char** arguments) {
  try {
    xlate::test::run(count, arguments);
  } catch (const std::exception& error) {
    std::cerr << "bench_kernels: " << error.what() << '\n';
    return 1;
  }
}
