// Prints what the tokenizer of a model file makes of lines: the ids of text, or the text of ids. It
// serves tests/tokenizer_test.py and scripts/compare_tokenizers, and measures the tokenizer's
// speed.
//   tokenize_lines MODEL.bin [--decode] [--source-lang CODE] [--repeat N] [--threads N] < LINES
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/error.h"
#include "models/load.h"
#include "models/model_file.h"
#include "tokenization/utf8.h"

namespace {

using namespace xlate;

struct Arguments {
  const char* model = nullptr;
  // Reads ids and prints text.
  bool decode = false;
  std::string source_lang;
  // If not 0, the program goes over the lines that many times, forth and back, and prints speeds
  // instead.
  int repeat = 0;
  int threads = 1;
};

Arguments read_arguments(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const bool has_value = i + 1 < argc;
    if (std::strcmp(argv[i], "--decode") == 0)
      arguments.decode = true;
    else if (std::strcmp(argv[i], "--source-lang") == 0 && has_value)
      arguments.source_lang = argv[++i];
    else if (std::strcmp(argv[i], "--repeat") == 0 && has_value)
      arguments.repeat = std::atoi(argv[++i]);
    else if (std::strcmp(argv[i], "--threads") == 0 && has_value)
      arguments.threads = std::max(1, std::atoi(argv[++i]));
    else if (!arguments.model && argv[i][0] != '-')
      arguments.model = argv[i];
    else
      fail("unexpected argument '{}'", argv[i]);
  }
  if (!arguments.model) fail("usage: tokenize_lines MODEL.bin [--decode] [--source-lang CODE]");
  return arguments;
}

// Calls each(i) for every i below `count` on several threads, and returns the seconds that it took.
template <class Each>
double seconds_for(std::size_t count, int threads, const Each& each) {
  const auto start = std::chrono::steady_clock::now();
  std::atomic<std::size_t> next{0};
  {
    std::vector<std::jthread> workers;
    for (int t = 0; t < threads; ++t) {
      workers.emplace_back([&] {
        // A worker takes lines in portions, as the program does.
        constexpr std::size_t kPortion = 64;
        for (std::size_t first; (first = next.fetch_add(kPortion)) < count;) {
          for (std::size_t i = first; i < std::min(count, first + kPortion); ++i) each(i);
        }
      });
    }
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Prints a JSON object for each pass over the lines. In `tokens_per_second` a thread does all that
// the program does for a line outside of the device: it makes ids of text and text of ids, and
// writes the text.
void measure(const Arguments& arguments, const Tokenizer& tokenizer, std::int32_t language,
             const std::vector<std::string>& lines) {
  std::vector<std::vector<std::int32_t>> ids(lines.size());
  std::ofstream sink("/dev/null", std::ios::binary);
  std::mutex mutex;
  const auto write = [&](std::string text) {
    text += '\n';
    std::lock_guard lock(mutex);
    sink << text;
  };
  std::size_t bytes = 0;
  for (const std::string& line : lines) bytes += line.size();
  const auto seconds = [&](const auto& each) {
    return seconds_for(lines.size(), arguments.threads, each);
  };
  for (int pass = 0; pass < arguments.repeat; ++pass) {
    const double encode =
        seconds([&](std::size_t i) { ids[i] = tokenizer.encode(lines[i], language); });
    const double decode = seconds([&](std::size_t i) { tokenizer.decode(ids[i]); });
    const double all = seconds(
        [&](std::size_t i) { write(tokenizer.decode(tokenizer.encode(lines[i], language))); });
    std::size_t tokens = 0;
    for (const auto& line : ids) tokens += line.size();
    const auto count = static_cast<double>(tokens);
    fmt::print(
        "{{\"lines\": {}, \"tokens\": {}, \"bytes\": {}, \"encode_tokens_per_second\": {:.0f}, "
        "\"decode_tokens_per_second\": {:.0f}, \"tokens_per_second\": {:.0f}}}\n",
        lines.size(), tokens, bytes, count / encode, count / decode, count / all);
  }
}

void run(const Arguments& arguments) {
  const ModelFile file = ModelFile::open(arguments.model);
  const Tokenizer tokenizer = load_tokenizer(file);
  if (!tokenizer.has_text()) fail("{}: holds no tokenizer for text", arguments.model);
  const auto& description = file.description().tokenizer;
  const std::string code = !arguments.source_lang.empty() ? arguments.source_lang
                           : description                  ? description->source_language
                                                          : "";
  const std::int32_t language = tokenizer.language_id(code);
  if (language < 0 && description && description->around.has_source_language())
    fail("--source-lang: '{}', expected a language code", code);
  std::vector<std::string> lines;
  for (std::string line; std::getline(std::cin, line);) {
    make_valid_utf8(line);
    lines.push_back(std::move(line));
  }
  if (arguments.repeat > 0) {
    measure(arguments, tokenizer, language, lines);
    return;
  }
  for (const std::string& line : lines) {
    if (arguments.decode)
      fmt::print("{}\n", tokenizer.decode(tokenizer.read_ids(line)));
    else
      fmt::print("{}\n", Tokenizer::write_ids(tokenizer.encode(line, language)));
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(read_arguments(argc, argv));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tokenize_lines: %s\n", error.what());
    return 1;
  }
}
