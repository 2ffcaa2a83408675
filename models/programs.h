// Writes a Transformer (Vaswani et al. 2017) as programs. This is the only place that says what a
// network computes, in which order.
#pragma once

#include "engine/network.h"
#include "engine/program.h"

namespace xlate {

/// Returns the program for N packed source tokens (PackedRows). Its result is keys and values for
/// all decoder layers, [N, layers·2·A'], layer after layer, keys before values, where A' is
/// Attention::key_width(). They are those of cross-attention to the encoder's output. In a decoder
/// alone they are those of self-attention to the tokens of a prompt, which see no later token. The
/// program refers to the network's weights, which must outlive it.
Program source_program(const Network&);
/// Holds the program of the decoder over packed tokens.
struct ScoringProgram {
  Program program;
  // They are the queries of cross-attention of one layer, [N, A].
  TensorId query;
};
/// Returns the program of the decoder over N packed tokens of targets, whose sources the batch has,
/// or of texts, if there is no encoder. Its result is the last hidden rows, [N, D], as that of
/// step_program(). It keeps the queries of cross-attention of `query_layer`, unless that is −1. The
/// weights must outlive it.
ScoringProgram scoring_program(const Network&, std::int64_t query_layer = -1);
/// Returns the program of one decoding step over R rows (Step). Its result is the last hidden rows,
/// [R, D], which the projection onto the vocabulary reads. The weights must outlive it.
Program step_program(const Network&);

}  // namespace xlate
