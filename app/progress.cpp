// Implements the text of the progress line.
#include "app/progress.h"

#include <fmt/format.h>

#include <algorithm>

namespace xlate {

std::string progress_text(const Counters& counters, const ProgressState& state) {
  std::string text =
      fmt::format("{} {}", state.lines_written, state.lines_written == 1 ? "line" : "lines");
  const double share_read = counters.share_read;
  if (share_read > 0) {
    const auto read = static_cast<double>(counters.source_tokens_read),
               finished = static_cast<double>(counters.source_tokens_done);
    // A part of the input that has only empty lines is done when it is read.
    const double done =
        (share_read - state.first_share) * (read > 0 ? std::min(1.0, finished / read) : 1);
    text += fmt::format(", {:.0f} %", 100 * (state.first_share + done));
    if (done > 0)
      text += fmt::format(", {:.0f} s left",
                          state.seconds * std::max(0.0, 1 - state.first_share - done) / done);
  }
  return text + fmt::format(", {:.0f} tokens/s",
                            state.seconds > 0
                                ? static_cast<double>(counters.target_tokens) / state.seconds
                                : 0.0);
}

}  // namespace xlate
