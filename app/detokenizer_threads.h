// Makes text of what was decoded, on threads of its own.
#pragma once

#include <thread>
#include <vector>

#include "app/annotations.h"
#include "app/first_error.h"
#include "app/line_result.h"
#include "app/line_tables.h"
#include "app/ordered_output.h"
#include "app/queue.h"
#include "app/report.h"
#include "tokenization/tokenizer.h"

namespace xlate {

/// Makes text of decoded lines, and passes it to the output.
class DetokenizerThreads {
 public:
  /// Starts the threads. All arguments must outlive the object. Throws Error if no thread can be
  /// started.
  DetokenizerThreads(const Options&, const Tokenizer&, const LineTables&, OrderedOutput&, Counters&,
                     FirstError&);
  ~DetokenizerThreads() { finish(); }

  /// Returns how many threads a run with these options has.
  static int threads_of(const Options&);

  void put(std::vector<AnnotatedLine>);
  /// Makes text of everything that was put, and ends the threads.
  void finish();

 private:
  void work();
  void put_text(const AnnotatedLine&);
  /// Puts the results of a line in the place of that of its last part or draw. Returns false if
  /// others are to come.
  bool take_line(const Decoded&, std::vector<LineResult>& results);

  const Options& options_;
  const Tokenizer& tokenizer_;
  const LineTables tables_;
  OrderedOutput& output_;
  Counters& counters_;
  FirstError& error_;
  BoundedQueue<std::vector<AnnotatedLine>> queue_;
  std::vector<std::jthread> threads_;
};

}  // namespace xlate
