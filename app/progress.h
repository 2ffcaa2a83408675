// Describes how far a run is, for the progress line.
#pragma once

#include <cstdint>
#include <string>

#include "app/report.h"

namespace xlate {

/// Says where a run began and how far its output is.
struct ProgressState {
  std::int64_t lines_written = 0;
  // A resumed run begins behind this share of the input.
  double first_share = 0;
  double seconds = 0;  // since the run began
};

/// Returns the lines written and the tokens per second. Where the size of the input is known, the
/// text also has the share of it that is done, and the time that is left. Both count the source
/// tokens of sentences that are done, whether or not they are written yet: within a window the
/// longest sentences are decoded first, and a line is written when all those before it are.
std::string progress_text(const Counters&, const ProgressState&);

}  // namespace xlate
