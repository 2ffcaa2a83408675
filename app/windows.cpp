// Implements the reading and tokenizing of windows, and the sorting of their sentences by length.
#include "app/windows.h"

#include <algorithm>
#include <atomic>

#include "app/format.h"
#include "app/interrupt.h"
#include "app/markup_lines.h"
#include "engine/threads.h"

namespace xlate {
namespace {

using std::chrono::milliseconds;

// The first window has this many lines. Each window after it is twice as large, up to --window.
constexpr std::int64_t kFirstWindow = 2000;
constexpr std::size_t kWindowBytes = std::size_t{64}
                                     << 20;  // A window with this many bytes is closed early.
constexpr milliseconds kIdle{200};  // After this time without input a window is closed early.
// At most this many windows of lines are read and not yet written: while one window is decoded, one
// is tokenized and one is read.
constexpr std::int64_t kWindowsInFlight = 3;
constexpr std::size_t kBytesInFlight = kWindowsInFlight * kWindowBytes;
constexpr int kLinesNoted = 10;
constexpr std::size_t kLinesPerTask = 64;

}  // namespace

WindowInput::WindowInput(const Options& options, LineReader& reader, const Tokenizer& tokenizer,
                         OrderedOutput& output, const LineTables& tables, RunRecord& record,
                         Console& console, LineReader* prefixes)
    : options_(options),
      reader_(reader),
      tokenizer_(options, tokenizer, record.counters),
      output_(output),
      tables_(tables),
      prefixes_(prefixes),
      record_(record),
      console_(console),
      windows_(1),
      sentences_(1) {
  reading_ = start_thread("reading the input", [this] { read_windows(); });
  try {
    tokenizing_ = start_thread("tokenizing", [this] { tokenize_windows(); });
  } catch (...) {
    stop();
    throw;
  }
}

WindowInput::~WindowInput() { stop(); }

void WindowInput::stop() {
  reader_.stop();
  if (prefixes_) prefixes_->stop();
  output_.give_up_waiting();  // Only the reading thread waits for the output.
  windows_.close();
  sentences_.close();
  if (reading_.joinable()) reading_.join();
  if (tokenizing_.joinable()) tokenizing_.join();
}

std::exception_ptr WindowInput::input_error() {
  std::lock_guard lock(error_mutex_);
  return error_;
}

void WindowInput::end_with(std::exception_ptr error) {
  std::lock_guard lock(error_mutex_);
  if (!error_) error_ = error;
}

const Sentence* WindowInput::next(bool wait) {
  while (current_.empty()) {
    auto window = wait ? sentences_.pop() : sentences_.try_pop();
    if (!window) return nullptr;
    current_ = std::move(*window);
  }
  return &current_.back();
}

Sentence WindowInput::take() {
  Sentence sentence = std::move(current_.back());
  current_.pop_back();
  return sentence;
}

void WindowInput::read_windows() {
  try {
    // The deque holds the end of the last window that is known to be written, then the ends of the
    // windows after it, and the bytes of each.
    struct End {
      std::int64_t line;
      std::size_t bytes;
    };
    std::deque<End> ends{{output_.first_line(), 0}};
    std::size_t bytes_in_flight = 0;
    const std::int64_t most = options_.line_buffered ? 1 : kWindowsInFlight * options_.window;
    // Only objects and markup are kept until their lines are written. Ids are short.
    const bool keeps =
        options_.input_format == Format::kJsonl || options_.markup == MarkupKind::kHtml;
    const std::size_t most_bytes = keeps ? kBytesInFlight : SIZE_MAX;
    std::int64_t size = options_.line_buffered ? 1 : std::min(kFirstWindow, options_.window),
                 line = output_.first_line();
    for (bool more = true, going = true; more;) {
      while (going && (line + size - ends.front().line > most || bytes_in_flight > most_bytes)) {
        ends.pop_front();
        going = output_.wait_written(ends.front().line);
        bytes_in_flight -= ends.front().bytes;
      }
      // Reading waits until the last window has left the queue. At most two windows hold text then:
      // the one that is read, and the one that is tokenized, whose text shrinks meanwhile.
      if (!going || !windows_.wait_for_room()) break;
      Window window{.first_line = line, .lines = {}};
      std::size_t bytes = 0;
      more = read_window(window, size, bytes);
      window.last = !more;
      window.share = reader_.share_taken();
      line += static_cast<std::int64_t>(window.lines.size());
      ends.push_back({line, bytes});
      bytes_in_flight += bytes;
      const Clock::time_point read = Clock::now();
      if (!window.lines.empty() && !windows_.push(std::move(window))) break;
      if (options_.line_buffered && more) {
        if (!output_.wait_written(line)) break;
        record_.latency.add(std::chrono::duration<double, std::milli>(Clock::now() - read).count());
      }
      if (!options_.line_buffered) size = std::min(2 * size, options_.window);
    }
  } catch (...) {
    end_with(std::current_exception());
  }
  windows_.close();
}

// Reads up to `size` lines into the window, and counts their bytes. Returns false if the input has
// ended. An error ends it too, but the lines before the error are kept.
bool WindowInput::read_window(Window& window, std::int64_t size, std::size_t& bytes) {
  while (static_cast<std::int64_t>(window.lines.size()) < size && bytes < kWindowBytes) {
    Line line;
    LineReader::Got got = LineReader::Got::kEnd;
    try {
      got = read_line(line, window.first_line + static_cast<std::int64_t>(window.lines.size()),
                      window.lines.empty() ? milliseconds(-1) : kIdle);
      const auto number = window.first_line + static_cast<std::int64_t>(window.lines.size()) + 1;
      if (prefixes_ && got != LineReader::Got::kTimeout &&
          !read_prefix(got == LineReader::Got::kLine ? &line : nullptr, number))
        got = LineReader::Got::kEnd;
    } catch (...) {
      end_with(std::current_exception());
      got = LineReader::Got::kEnd;
    }
    if (got == LineReader::Got::kEnd) return false;
    if (got == LineReader::Got::kTimeout) return true;
    bytes += line.text.size();
    output_.add_line(line);
    window.lines.push_back(std::move(line));
  }
  return true;
}

// Reads the line of --target-prefix that belongs to a line of the input, or null at its end.
// Returns false if the run is to end. Throws Error if the two files do not have as many lines.
bool WindowInput::read_prefix(Line* line, std::int64_t number) {
  Line prefix;
  const bool is_there = prefixes_->next(prefix, milliseconds(-1)) == LineReader::Got::kLine;
  if (stop_flag() || signal_received()) return false;
  if (is_there != (line != nullptr))
    fail("--target-prefix {}: line {} {}, expected as many lines as in the input",
         options_.target_prefix, number, is_there ? "is one too many" : "is missing");
  if (line && prefix.shortened)
    fail("--target-prefix {}: line {}: more than {} bytes", options_.target_prefix, number,
         LineReader::kMaxLineBytes);
  if (line) line->prefix = std::move(prefix.text);
  return line != nullptr;
}

// Reads a line. Counts as waiting the part of the time in which all earlier lines were already
// written.
LineReader::Got WindowInput::read_line(Line& line, std::int64_t number, milliseconds timeout) {
  const Clock::time_point start = Clock::now();
  const auto got = reader_.next(line, timeout);
  const Clock::time_point end = Clock::now();
  if (number == output_.first_line()) {
    if (got == LineReader::Got::kLine) record_.first_line_read = end;
  } else if (const auto written = output_.written(); written.lines == number) {
    record_.counters.waiting_nanoseconds += std::max<std::int64_t>(
        0, std::chrono::nanoseconds(end - std::max(start, written.last)).count());
  }
  if (got == LineReader::Got::kLine) ++record_.counters.lines_in;
  return got;
}

void WindowInput::tokenize_windows() {
  try {
    while (auto window = windows_.pop()) {
      if (stop_flag()) break;
      auto sentences = sort_out(window->first_line, tokenize(*window));
      for (const Sentence& sentence : sentences)
        record_.counters.source_tokens_read += std::ssize(sentence.ids);
      record_.counters.share_read = window->share;
      // Windows are decoded in turns from long to short and from short to long sentences, so that
      // sentences have like lengths where two windows meet. Otherwise many sentences of another
      // length would begin and end all at once. A window that the end of the input cuts short has
      // its short sentences last, so that few rows are left at the end.
      if (shortest_first_ && !window->last) std::reverse(sentences.begin(), sentences.end());
      shortest_first_ = !shortest_first_;
      if (!sentences.empty() && !sentences_.push(std::move(sentences))) break;
      if (refused_) break;
    }
  } catch (...) {
    end_with(std::current_exception());
  }
  windows_.close();
  sentences_.close();
  reader_.stop();
  output_.give_up_waiting();
}

std::vector<TokenizedLine> WindowInput::tokenize(Window& window) {
  std::vector<TokenizedLine> tokenized(window.lines.size());
  std::atomic<std::size_t> next{0};
  std::mutex failure_mutex;
  std::exception_ptr failure;
  const auto work = [&] {
    const Clock::time_point begun = Clock::now();
    try {
      for (std::size_t first = next.fetch_add(kLinesPerTask); first < tokenized.size();
           first = next.fetch_add(kLinesPerTask)) {
        for (std::size_t i = first; i < std::min(tokenized.size(), first + kLinesPerTask); ++i)
          tokenized[i] = tokenizer_.tokenize(window.lines[i]);
      }
    } catch (...) {
      std::lock_guard lock(failure_mutex);
      failure = std::current_exception();
    }
    record_.counters.tokenize_nanoseconds += std::chrono::nanoseconds(Clock::now() - begun).count();
  };
  const Clock::time_point start = Clock::now();
  const std::size_t tasks = (tokenized.size() + kLinesPerTask - 1) / kLinesPerTask;
  std::vector<std::jthread> threads;
  // Tokenizing takes half of the threads. The other half is left to making text and to the decoder,
  // which spins while it waits for the device and must not also wait for a processor.
  try {
    for (std::size_t i = 1;
         i < std::min(tasks, static_cast<std::size_t>((options_.threads + 1) / 2)); ++i)
      threads.push_back(start_thread("tokenizing", work));
  } catch (const Error&) {
    // The threads that have been started do all the work.
  }
  work();
  threads.clear();
  record_.counters.tokenizing_nanoseconds += std::chrono::nanoseconds(Clock::now() - start).count();
  if (failure) std::rethrow_exception(failure);
  return tokenized;
}

// Returns what is wrong with a line, or an empty text.
std::string WindowInput::problem_of(const TokenizedLine& line) const {
  const auto longest = static_cast<std::size_t>(*options_.max_source_length);
  if (!line.error.empty()) return line.error;
  if (line.shortened) return fmt::format("more than {} bytes", LineReader::kMaxLineBytes);
  if (line.tokens > longest)
    return fmt::format("{}{} source tokens, expected at most {}",
                       options_.split_sentences ? "a sentence of " : "", line.tokens, longest);
  if (line.target.tokens > line.target.most)
    return fmt::format("{} target tokens, expected at most {}", line.target.tokens,
                       line.target.most);
  return {};
}

// Returns what becomes of a line with a problem. A line that cannot be tokenized can be skipped
// only if it is an object.
LongLines WindowInput::rule_of(const TokenizedLine& line) const {
  if (line.error.empty()) return options_.long_lines;
  const bool skip =
      options_.input_format == Format::kJsonl && options_.long_lines == LongLines::kSkip;
  return skip ? LongLines::kSkip : LongLines::kError;
}

// Counts a line with a problem that is not refused, and says what becomes of it.
void WindowInput::note_long_line(const std::string& what, LongLines rule,
                                 const TokenizedLine& line) {
  const bool too_many = line.tokens > static_cast<std::size_t>(*options_.max_source_length),
             skipped = rule == LongLines::kSkip, split = rule == LongLines::kSplit && too_many,
             // Nothing brings back what lies behind the first bytes of a line.
      truncated = !skipped && (!split || line.shortened);
  record_.counters.skipped += skipped;
  record_.counters.split += split;
  record_.counters.truncated += truncated;
  note_line(fmt::format("{}: {}{}{}", what,
                        skipped     ? "skipped"
                        : truncated ? "truncated"
                                    : "",
                        truncated && split ? " and " : "", split ? "split" : ""));
}

// Makes a sentence of a line, or of each of its parts, or for each of its draws.
void WindowInput::add_sentences(std::int64_t line, TokenizedLine entry,
                                std::vector<Sentence>& sentences) {
  const auto draws = static_cast<std::size_t>(options_.num_samples.value_or(1));
  const bool whole = entry.parts.empty() && draws == 1;
  if (entry.parts.empty()) entry.parts.assign(draws, std::move(entry.ids));
  if (!whole) tables_.parts.expect(line, entry.parts.size());
  for (std::size_t part = 0; part < entry.parts.size(); ++part) {
    sentences.push_back({.line = line,
                         .ids = std::move(entry.parts[part]),
                         .limit = entry.limit,
                         .forced_first = entry.target_language,
                         .target = entry.target.ids,
                         // Parts draw other random numbers, too.
                         .draw = static_cast<std::int32_t>(part),
                         .part = whole ? -1 : static_cast<std::int32_t>(part)});
  }
}

// Answers empty lines, truncates, skips or refuses those with a problem, and returns the others
// sorted by length, the longest last.
std::vector<Sentence> WindowInput::sort_out(std::int64_t first_line,
                                            std::vector<TokenizedLine> tokenized) {
  std::vector<Sentence> sentences;
  std::int64_t line = first_line - 1;
  for (TokenizedLine& entry : tokenized) {
    ++line;
    const std::string problem = problem_of(entry);
    if (!problem.empty()) {
      const LongLines rule = rule_of(entry);
      const std::string what = fmt::format("line {}: {}", line + 1, problem);  // It counts from 1.
      if (rule == LongLines::kError) {
        refuse(what);
        break;
      }
      note_long_line(what, rule, entry);
      if (rule == LongLines::kSkip) {
        output_.put(line, format_skipped(line, options_, std::move(entry.fields), problem));
        continue;
      }
    }
    if (entry.ids.empty() && entry.parts.empty()) {
      ++record_.counters.empty;
      std::string markup;
      if (entry.marked) markup = markup_alone(std::move(entry.marked->line), options_);
      output_.put(line, format_empty(line, options_, std::move(entry.fields), std::move(markup)));
      continue;
    }
    if (entry.marked) tables_.markup.put(line, std::move(*entry.marked));
    if (!entry.words.empty()) tables_.words.put(line, std::move(entry.words));
    if (entry.fields.size() > 1) tables_.fields.put(line, std::move(entry.fields));
    add_sentences(line, std::move(entry), sentences);
  }
  std::sort(sentences.begin(), sentences.end(), [](const Sentence& a, const Sentence& b) {
    return a.ids.size() != b.ids.size() ? a.ids.size() < b.ids.size() : a.line > b.line;
  });
  return sentences;
}

// Ends the input before a line that is refused, with an error. Everything before it is still
// translated.
void WindowInput::refuse(const std::string& why) {
  end_with(std::make_exception_ptr(Error(why)));
  refused_ = true;
  reader_.stop();
  output_.give_up_waiting();
}

void WindowInput::note_line(const std::string& text) {
  if (lines_noted_ > kLinesNoted) return;
  console_.note(lines_noted_ < kLinesNoted ? text : "further such lines are counted, not named");
  ++lines_noted_;
}

}  // namespace xlate
