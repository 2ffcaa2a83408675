// Writes an encoder-decoder Transformer (Vaswani et al. 2017) as programs. This is the only place
// that says what a network computes, in which order.
#pragma once

#include "engine/network.h"
#include "engine/program.h"

namespace xlate {

/// Returns the encoder's program, for packed source sentences of N tokens (PackedRows). Its result
/// is the keys and values of the source for the cross-attention of all decoder layers, [N,
/// layers·2·D]: layer after layer, keys before values. The program refers to the network's weights,
/// which must outlive it.
Program encoder_program(const Network&);
/// Returns the program of one decoding step over R rows (Step). Its result is the last hidden rows,
/// [R, D], which the projection onto the vocabulary reads. The weights must outlive it.
Program step_program(const Network&);

}  // namespace xlate
