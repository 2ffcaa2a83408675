// Keeps lines of HTML while their text is translated (--markup html).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tokenization/text_range.h"

namespace xlate {

/// Holds a line with markup. It is read once more when the line is written, so that its tags take
/// no memory meanwhile.
struct MarkedLine {
  std::string line;
  // For each part of the line, or once for all draws, the bytes of the line's text that its source
  // tokens stand for. It is empty where a token stands for none, and for lines without tags.
  std::vector<std::vector<TextRange>> tokens{};
};

/// Any thread may call its functions.
class LineMarkup {
 public:
  void put(std::int64_t line, MarkedLine marked) {
    std::lock_guard lock(mutex_);
    lines_[line] = std::make_shared<const MarkedLine>(std::move(marked));
  }
  /// Returns what is kept of a line, or null.
  std::shared_ptr<const MarkedLine> find(std::int64_t line) const {
    std::lock_guard lock(mutex_);
    const auto found = lines_.find(line);
    return found == lines_.end() ? nullptr : found->second;
  }
  /// Returns whether a line has tags.
  bool has_tags(std::int64_t line) const {
    const auto marked = find(line);
    return marked && !marked->tokens.empty();
  }
  void remove(std::int64_t line) {
    std::lock_guard lock(mutex_);
    lines_.erase(line);
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::int64_t, std::shared_ptr<const MarkedLine>> lines_;
};

}  // namespace xlate
