// Fills in the options that the command line leaves to the model or to the device.
#pragma once

#include "app/options.h"
#include "engine/policy.h"
#include "engine/search_state.h"
#include "models/description.h"

namespace xlate {

/// Returns the rules of search, from options that resolve() and resolve_suppressed() have filled
/// in, and from the model.
SearchRules rules_of(const Options&, const ModelDescription&);

/// Fills in what the command line left to the model: the model's own value, else the default of
/// docs/search.md. Throws UsageError if the command line asks for what the model does not allow, or
/// for more hypotheses than it has beams.
void resolve(Options&, const ModelDescription&);

/// Returns the precision of a run for which the command line asks for this one. For kAuto it is
/// float32 on the CPU, and on a GPU float16, or bfloat16 where values of the network overflow
/// float16.
Precision effective_precision(Precision, const NetworkDescription&, bool gpu);

/// Fills in what the command line left to the device, after resolve(). `gpu` says whether the run
/// got a GPU.
void resolve_device(Options&, const NetworkDescription&, const Policy&, bool gpu);

}  // namespace xlate
