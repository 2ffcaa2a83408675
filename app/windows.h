// Turns lines into sentences. One thread reads the input in windows, another one tokenizes each
// window and sorts it by length, and the decoder takes sentences from the first window. The number
// of windows that are read but not yet written is bounded.
#pragma once

#include <deque>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "app/console.h"
#include "app/line_reader.h"
#include "app/line_tables.h"
#include "app/line_tokenizer.h"
#include "app/options.h"
#include "app/ordered_output.h"
#include "app/queue.h"
#include "app/report.h"
#include "engine/runner.h"
#include "tokenization/tokenizer.h"

namespace xlate {

class WindowInput final : public SentenceInput {
 public:
  /// Starts reading, and puts what is kept of lines into the tables. The options must have been
  /// filled in by resolve() and resolve_device(), and all arguments must outlive the object. Throws
  /// Error if a thread cannot be started, and UsageError if the template leaves no room for a line.
  WindowInput(const Options&, LineReader&, const Tokenizer&, OrderedOutput&, const LineTables&,
              RunRecord&, Console&, LineReader* prefixes = nullptr);
  ~WindowInput() override;

  const Sentence* next(bool wait) override;
  Sentence take() override;

  /// Ends reading and waits for the threads.
  void stop();
  /// Returns the error that ended the input early, or null. It must be thrown only after everything
  /// before it is written.
  std::exception_ptr input_error();

 private:
  struct Window {
    std::int64_t first_line = 0;
    std::vector<Line> lines;
    bool last = false;
    // It is LineReader::share_taken() behind the last line.
    double share = -1;
  };

  void read_windows();
  bool read_window(Window&, std::int64_t size, std::size_t& bytes);
  LineReader::Got read_line(Line&, std::int64_t number, std::chrono::milliseconds timeout);
  bool read_prefix(Line*, std::int64_t number);
  void tokenize_windows();
  std::vector<TokenizedLine> tokenize(Window&);
  std::string problem_of(const TokenizedLine&) const;
  LongLines rule_of(const TokenizedLine&) const;
  void note_long_line(const std::string& what, LongLines, const TokenizedLine&);
  void add_sentences(std::int64_t line, TokenizedLine, std::vector<Sentence>&);
  std::vector<Sentence> sort_out(std::int64_t first_line, std::vector<TokenizedLine>);
  void refuse(const std::string& why);
  void note_line(const std::string& text);
  void end_with(std::exception_ptr);

  const Options& options_;
  LineReader& reader_;
  const LineTokenizer tokenizer_;
  OrderedOutput& output_;
  const LineTables tables_;
  LineReader* prefixes_;  // the lines of --target-prefix, or null
  RunRecord& record_;
  Console& console_;
  BoundedQueue<Window> windows_;
  BoundedQueue<std::vector<Sentence>> sentences_;
  std::vector<Sentence> current_;  // The decoder takes sentences from its back.
  bool shortest_first_ = false;    // It holds for the next window to be tokenized.
  int lines_noted_ = 0;
  bool refused_ = false;  // A refused line has ended the input. Only the tokenizing thread uses it.
  std::mutex error_mutex_;
  std::exception_ptr error_;
  std::jthread reading_, tokenizing_;
};

}  // namespace xlate
