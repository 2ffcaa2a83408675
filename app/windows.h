// Lines to sentences: one thread reads the input in windows, another tokenizes them and sorts each
// by length, and the decoder takes sentences from the foremost window. At most a few windows are on
// their way, up to their last line's output.
#pragma once

#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "app/console.h"
#include "app/line_reader.h"
#include "app/options.h"
#include "app/ordered_output.h"
#include "app/queue.h"
#include "app/report.h"
#include "engine/runner.h"
#include "tokenization/tokenizer.h"

namespace xlate {

class WindowInput final : public SentenceInput {
 public:
  /// Starts reading. `options` are resolved; everything must outlive the object.
  WindowInput(const Options&, LineReader&, const Tokenizer&, OrderedOutput&, RunRecord&, Console&);
  ~WindowInput() override;

  const Sentence* next(bool wait) override;
  Sentence take() override;

  /// Ends reading and waits for the threads.
  void stop();
  /// What ended the input early, if anything did: to be thrown once all that came before it is
  /// written.
  std::exception_ptr input_error();

 private:
  struct Window {
    std::int64_t first_line = 0;
    std::vector<Line> lines;
    bool last = false;
  };
  struct Tokenized {
    std::vector<std::int32_t> ids;  // at most as many as the model may read, the end token the last
    std::size_t tokens = 0;         // of the whole line
    bool shortened = false;
    std::string error;  // of ids that are none
  };

  void read_windows();
  bool read_window(Window&, std::int64_t size);
  LineReader::Got read_line(Line&, std::int64_t number, std::chrono::milliseconds timeout);
  void tokenize_windows();
  std::vector<Tokenized> tokenize(Window&);
  Tokenized tokenize_line(Line&);
  std::vector<Sentence> sort_out(std::int64_t first_line, std::vector<Tokenized>);
  void refuse(const std::string& why);
  void note_long_line(const std::string& text);
  void end_with(std::exception_ptr);

  const Options& options_;
  LineReader& reader_;
  const Tokenizer& tokenizer_;
  OrderedOutput& output_;
  RunRecord& record_;
  Console& console_;
  BoundedQueue<Window> windows_;
  BoundedQueue<std::vector<Sentence>> sentences_;
  std::vector<Sentence> current_;  // taken from the back
  bool shortest_first_ = false;    // of the window that comes next
  int long_lines_noted_ = 0;
  bool refused_ = false;  // a line ended the input; of the tokenizing thread
  std::mutex error_mutex_;
  std::exception_ptr error_;
  std::jthread reading_, tokenizing_;
};

}  // namespace xlate
