// Says which stage of the pipeline bounded the speed of a run.
#pragma once

#include "app/report.h"

namespace xlate {

/// Holds the share of the process's time in which each stage was at work. The stages overlap, so
/// the shares may add up to more than 1.
struct RunStages {
  double load = 0;      // the model was loaded
  double input = 0;     // nothing was left to do but to wait for input
  double tokenize = 0;  // lines were made ids
  double device = 0;    // the network was computed
  double output = 0;    // ids were made text, or text was written: the larger of the two shares
};

/// Returns the stages of a run whose process took that many seconds.
RunStages stages_of(const RunRecord&, double process_seconds);

/// Returns the name of the stage with the largest share, or null if no stage was reached.
const char* bound_of(const RunStages&);

}  // namespace xlate
