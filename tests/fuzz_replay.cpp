// Runs a fuzz target without libFuzzer, so that any compiler's build keeps what the fuzzer has
// found: each file of the folders named, as it is and in some mutations. Random changes alone find
// little that is new: fuzz_model_file itself does that.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned seed);

// What libFuzzer gives a mutator for the rest of its work: here a few bytes changed, at times the
// end cut off.
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t) {
  static std::minstd_rand random(1);
  if (size == 0) return 0;
  for (unsigned changes = 1 + random() % 4; changes > 0; --changes)
    data[random() % size] = static_cast<std::uint8_t>(random());
  return random() % 16 == 0 ? random() % size : size;
}

int main(int argc, char** argv) {
  constexpr unsigned kMutations = 100;
  constexpr std::size_t kRoom = 4096;  // for a mutation to grow into
  int files = 0;
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      std::ifstream file(entry.path(), std::ios::binary);
      const std::vector<std::uint8_t> seed{std::istreambuf_iterator<char>(file), {}};
      LLVMFuzzerTestOneInput(seed.data(), seed.size());
      for (unsigned n = 0; n < kMutations; ++n) {
        std::vector<std::uint8_t> input = seed;
        input.resize(seed.size() + kRoom);
        LLVMFuzzerTestOneInput(input.data(),
                               LLVMFuzzerCustomMutator(input.data(), seed.size(), input.size(), n));
      }
      ++files;
    }
  }
  std::printf("%d files\n", files);
  return files > 0 ? 0 : 1;
}
