// Runs a fuzz target without libFuzzer, so that a build with any compiler replays what the fuzzer
// has found. It runs each file in the given folders unchanged and with some mutations. Random
// changes alone find little that is new; that is the task of fuzz_model_file itself.
//
// It also ends with an error if a single allocation is much larger than the input: a number in a
// file must not ask for memory that the file's bytes do not fill.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <new>
#include <random>
#include <string>
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

namespace {

// No single allocation may have more bytes than this.
std::size_t most_bytes = SIZE_MAX;

void run(const std::uint8_t* data, std::size_t size) {
  // A byte of a table can become a few pointers and texts. The rest is for tables of a fixed size
  // and for texts, which a pipeline may make longer.
  constexpr std::size_t kPerByte = 64, kRest = std::size_t{4} << 20;
  most_bytes = kRest + kPerByte * size;
  LLVMFuzzerTestOneInput(data, size);
  most_bytes = SIZE_MAX;
}

}  // namespace

// The deletes below serve what every form of `new` without an alignment has given, so that all of
// these forms are replaced together. std::stable_sort calls the one that throws nothing.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  if (bytes > most_bytes) {
    std::fprintf(stderr, "an allocation of %zu bytes, expected at most %zu\n", bytes, most_bytes);
    std::abort();
  }
  return std::malloc(bytes);
}
void* operator new(std::size_t bytes) {
  if (void* memory = operator new(bytes, std::nothrow)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }

// Takes the number of mutations of each file, and folders.
int main(int argc, char** argv) {
  // A mutation may grow by this number of bytes.
  constexpr std::size_t kRoom = 4096;
  if (argc < 3) return 2;
  const unsigned long mutations = std::stoul(argv[1]);
  int files = 0;
  for (int i = 2; i < argc; ++i) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      std::ifstream file(entry.path(), std::ios::binary);
      const std::vector<std::uint8_t> seed{std::istreambuf_iterator<char>(file), {}};
      run(seed.data(), seed.size());
      for (unsigned n = 0; n < mutations; ++n) {
        std::vector<std::uint8_t> input = seed;
        input.resize(seed.size() + kRoom);
        run(input.data(), LLVMFuzzerCustomMutator(input.data(), seed.size(), input.size(), n));
      }
      ++files;
    }
  }
  std::printf("%d files, %lu mutations of each\n", files, mutations);
  return files > 0 ? 0 : 1;
}
