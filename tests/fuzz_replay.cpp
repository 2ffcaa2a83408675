// Runs a fuzz target without libFuzzer, so that a build with any compiler replays what the fuzzer
// has found. It runs each file in the given folders unchanged and with some mutations. Random
// changes alone find little that is new; that is the task of fuzz_model_file itself.
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

// Takes the place of libFuzzer's function that a custom mutator may call. This version changes a
// few bytes and sometimes cuts off the end.
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t) {
  static std::minstd_rand random(1);
  if (size == 0) return 0;
  for (unsigned changes = 1 + random() % 4; changes > 0; --changes)
    data[random() % size] = static_cast<std::uint8_t>(random());
  return random() % 16 == 0 ? random() % size : size;
}

int main(int argc, char** argv) {
  constexpr unsigned kMutations = 100;
  // A mutation may grow by this number of bytes.
  constexpr std::size_t kRoom = 4096;
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
