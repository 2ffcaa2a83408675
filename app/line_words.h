// Keeps the words of source lines while the lines are decoded (--alignment-words).
#pragma once

#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

namespace xlate {

/// Holds the number of the word of each source token, which is −1 for a token that is not text.
using TokenWords = std::vector<std::int32_t>;

/// Any thread may call its functions.
class LineWords {
 public:
  void put(std::int64_t line, TokenWords words) {
    std::lock_guard lock(mutex_);
    words_[line] = std::move(words);
  }
  /// Removes and returns the words of a line. They are empty if there are none.
  TokenWords take(std::int64_t line) {
    std::lock_guard lock(mutex_);
    auto node = words_.extract(line);
    return node ? std::move(node.mapped()) : TokenWords();
  }

 private:
  std::mutex mutex_;
  std::unordered_map<std::int64_t, TokenWords> words_;
};

}  // namespace xlate
