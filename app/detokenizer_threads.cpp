// Implements the making of text.
#include "app/detokenizer_threads.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "app/format.h"
#include "app/markup_lines.h"
#include "engine/threads.h"

namespace xlate {
namespace {

// Decoded lines go to the threads that make text in portions of kLinesPerBatch, of which at most
// kBatchesWaiting wait in the queue. Thousands of short sentences end with each step, so the queue
// has room for those that end in the steps over a window's shortest sentences.
constexpr std::size_t kLinesPerBatch = 32, kBatchesWaiting = 1024;
constexpr int kMostTextThreads = 12;

}  // namespace

DetokenizerThreads::DetokenizerThreads(const Options& options, const Tokenizer& tokenizer,
                                       const LineTables& tables, OrderedOutput& output,
                                       Counters& counters, FirstError& error)
    : options_(options),
      tokenizer_(tokenizer),
      tables_(tables),
      output_(output),
      counters_(counters),
      error_(error),
      queue_(kBatchesWaiting) {
  try {
    for (int i = 0; i < threads_of(options); ++i)
      threads_.push_back(start_thread("making text", [this] { work(); }));
  } catch (...) {
    finish();
    throw;
  }
}

int DetokenizerThreads::threads_of(const Options& options) {
  // On average far fewer of these threads are busy, but short sentences come many times as fast
  // as others.
  return std::clamp(options.threads / 2, 1, kMostTextThreads);
}

void DetokenizerThreads::put(std::vector<AnnotatedLine> lines) {
  for (std::size_t first = 0; first < lines.size(); first += kLinesPerBatch) {
    const auto begin = lines.begin() + static_cast<std::ptrdiff_t>(first),
               end = lines.begin() +
                     static_cast<std::ptrdiff_t>(std::min(lines.size(), first + kLinesPerBatch));
    queue_.push(
        std::vector<AnnotatedLine>(std::make_move_iterator(begin), std::make_move_iterator(end)));
  }
}

void DetokenizerThreads::finish() {
  queue_.close();
  threads_.clear();
}

void DetokenizerThreads::work() {
  while (const auto batch = queue_.pop()) {
    for (const AnnotatedLine& line : *batch) {
      try {
        put_text(line);
      } catch (...) {
        // The loop goes on, since the lines after this one in the batch may come before it in the
        // output.
        error_.set(std::current_exception());
        queue_.close();
      }
    }
  }
}

void DetokenizerThreads::put_text(const AnnotatedLine& line) {
  const Clock::time_point start = Clock::now();
  const Decoded& decoded = line.decoded;
  const std::int64_t number = decoded.sentence.line;
  TokenWords words;
  if (options_.alignment_words) words = tables_.words.take(number);
  const auto marked = tables_.markup.find(number);
  std::vector<LineResult> results = results_of(line, options_, tokenizer_, words, marked.get());
  const bool complete = decoded.sentence.part < 0 || take_line(decoded, results);
  if (complete && options_.markup == MarkupKind::kHtml) {
    add_markup(results, marked.get(), options_);
    tables_.markup.remove(number);
  }
  std::string text;
  if (complete) text = format_line(number, results, options_, tables_.fields.take(number));
  counters_.detokenize_nanoseconds += std::chrono::nanoseconds(Clock::now() - start).count();
  counters_.target_tokens += decoded.result.best_length();
  counters_.source_tokens_done += std::ssize(decoded.sentence.ids);
  if (complete) output_.put(number, std::move(text));
}

bool DetokenizerThreads::take_line(const Decoded& decoded, std::vector<LineResult>& results) {
  auto added = tables_.parts.add(decoded.sentence.line, decoded.sentence.part, decoded.hit_limit,
                                 std::move(results.front()));
  counters_.hit_limit_again += added.hit_limit_again;
  if (added.results.empty()) return false;
  results = std::move(added.results);
  return true;
}

}  // namespace xlate
