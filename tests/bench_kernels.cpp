// Times the backend's operations on a GPU at the shapes of ende-base, and what a copy and a large
// product reach on the same GPU:
//   bench_kernels [--precision fp16|fp32|bf16] [--rows 4,256,…] [--only TEXT] [--json FILE]
// kernel_bench.h says how they are timed.
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>

#include "tests/kernel_bench.h"

namespace xlate::test {
namespace {

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
}  // namespace xlate::test

int main(int count, char** arguments) {
  try {
    xlate::test::run(count, arguments);
  } catch (const std::exception& error) {
    std::cerr << "bench_kernels: " << error.what() << '\n';
    return 1;
  }
}
