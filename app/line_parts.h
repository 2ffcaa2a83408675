// Brings together what belongs to one line: the translations of the parts into which it was cut, or
// several draws of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "app/line_result.h"
#include "app/options.h"

namespace xlate {

/// Returns the translation of a line from those of its parts, in order. Its score is that of one
/// hypothesis with the tokens of all parts: the sum of all log-probabilities / tokens^A, where A is
/// --length-penalty.
LineResult join(const std::vector<LineResult>&, const Options&);

/// Keeps the translations of parts, or the draws, until those of a whole line are there. Any thread
/// may call its functions.
class LineParts {
 public:
  explicit LineParts(const Options& options) : options_(options) {}

  /// Says how many parts or draws a line has, before any of them is added.
  void expect(std::int64_t line, std::size_t parts);
  struct Added {
    // If this was the last part to come, it has the joined line, or if it was the last draw, all of
    // them. Otherwise it is empty.
    std::vector<LineResult> results{};
    // Another part of the line had hit the limit before, and so did this one.
    bool hit_limit_again = false;
  };
  /// Takes the translation of a part. `hit_limit` is Decoded::hit_limit.
  Added add(std::int64_t line, std::int32_t part, bool hit_limit, LineResult);

 private:
  struct Waiting {
    std::vector<LineResult> parts;
    std::size_t missing = 0;
    bool hit_limit = false;
  };

  const Options& options_;
  std::mutex mutex_;
  std::unordered_map<std::int64_t, Waiting> waiting_;
};

}  // namespace xlate
