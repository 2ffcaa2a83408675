// Fills in the options that the command line leaves to the model or to the device.
#pragma once

#include <algorithm>
#include <cstdint>

#include "app/options.h"
#include "engine/policy.h"
#include "engine/search_state.h"
#include "models/description.h"

namespace xlate {

/// Returns `length`, or the number of positions that the model stores if that is less. If
/// `positions` is 0, positions are computed, and as many as needed are there.
inline std::int64_t within(std::int64_t length, std::int64_t positions) {
  return positions > 0 ? std::min(length, positions) : length;
}

/// Returns the length penalty of a run that names none.
float default_length_penalty(const ModelDescription&);

/// Fills in the length of the longest source where the user has given none.
void set_default_source_length(Options&, std::int64_t length);
/// Returns what a message calls that length, and whether the model has given it.
std::string source_limit_of(const Options&);
/// Fills in the length of the longest source of a model with an encoder. Throws UsageError if the
/// model has too few positions for it.
void resolve_source_length(Options&, const ModelDescription&);

/// Returns the token that every target of the run begins with, or −1 if there is none. The
/// languages must have been resolved.
std::int32_t forced_first_of(const Options&, const ModelDescription&);

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
