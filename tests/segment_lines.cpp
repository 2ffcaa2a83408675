// Prints the pieces of lines as ids of a SentencePiece model, for scripts/compare_sentencepiece, or
// measures the speed of segmentation.
//   segment_lines MODEL.spm [--library] [--repeat N] < LINES > IDS
#include <sentencepiece_processor.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>

#include "engine/error.h"
#include "tokenization/sentencepiece/segmenter.h"
#include "tokenization/utf8.h"

namespace {

using namespace xlate;

struct Arguments {
  const char* model = nullptr;
  // Uses the installed SentencePiece library instead of our own segmentation.
  bool library = false;
  // If not 0, the program goes over the lines that many times and prints lines per second instead
  // of ids.
  int repeat = 0;
};

Arguments read_arguments(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--library") == 0)
      arguments.library = true;
    else if (std::strcmp(argv[i], "--repeat") == 0 && i + 1 < argc)
      arguments.repeat = std::atoi(argv[++i]);
    else if (!arguments.model)
      arguments.model = argv[i];
    else
      fail("unexpected argument '{}'", argv[i]);
  }
  if (!arguments.model) fail("usage: segment_lines MODEL.spm [--library] [--repeat N] < LINES");
  return arguments;
}

template <class Segment>
void run(const Arguments& arguments, const std::vector<std::string>& lines,
         const Segment& segment) {
  if (arguments.repeat == 0) {
    for (const std::string& line : lines) fmt::print("{}\n", fmt::join(segment(line), " "));
    return;
  }
  for (int pass = 0; pass < arguments.repeat; ++pass) {
    std::size_t pieces = 0;
    const auto start = std::chrono::steady_clock::now();
    for (const std::string& line : lines) pieces += segment(line).size();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    fmt::print("{:.0f} lines/s, {:.0f} pieces/s\n", static_cast<double>(lines.size()) / seconds,
               static_cast<double>(pieces) / seconds);
  }
}

void segment_lines(const Arguments& arguments) {
  std::ifstream file(arguments.model, std::ios::binary);
  if (!file) fail("{}: cannot be opened", arguments.model);
  const std::string bytes(std::istreambuf_iterator<char>(file), {});
  std::vector<std::string> lines;
  for (std::string line; std::getline(std::cin, line);) {
    make_valid_utf8(line);
    lines.push_back(line);
  }
  if (!arguments.library) {
    const Segmenter segmenter(bytes, arguments.model);
    run(arguments, lines, [&](const std::string& line) { return segmenter.segment(line).ids; });
    return;
  }
  sentencepiece::SentencePieceProcessor library;
  if (const auto status = library.LoadFromSerializedProto(bytes); !status.ok())
    fail("{}: {}", arguments.model, status.ToString());
  run(arguments, lines, [&](const std::string& line) {
    std::vector<int> ids;
    if (const auto status = library.Encode(line, &ids); !status.ok())
      fail("SentencePiece: {}", status.ToString());
    return ids;
  });
}

}  // namespace

int main(int argc, char** argv) {
  try {
    segment_lines(read_arguments(argc, argv));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "segment_lines: %s\n", error.what());
    return 1;
  }
}
