// A Transformer (Vaswani et al. 2017) as programs: the only place that says what is computed in
// which order.
#pragma once

#include "engine/network.h"
#include "engine/program.h"

namespace xlate {

/// Reads packed source sentences; comes to the keys and values of the source for all decoder
/// layers, [N, layers·2·D].
Program encoder_program(const Network&);
/// One decoding step; comes to the last hidden rows, [R, D].
Program step_program(const Network&);

}  // namespace xlate
