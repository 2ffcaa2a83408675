// Computes sinusoidal positions (Vaswani et al. 2017), as far as the sentences of a run need them.
#pragma once

#include "engine/backend.h"
#include "engine/network.h"
#include "models/network_description.h"

namespace xlate {

/// Holds a table of positions in a backend's memory, which fill() extends. A table that is
/// constructed without arguments has no rows, and fill() does nothing.
class Sinusoids {
 public:
  Sinusoids() = default;
  /// Allocates memory for positions 0 … longest − 1, each a row of `width` columns, an even number,
  /// and for a row of zeros behind them.
  /// The description gives the offset and the rate. Throws Error if the backend has too little
  /// memory.
  Sinusoids(Backend&, const EmbeddingDescription&, std::int64_t longest, std::int64_t width);

  /// Returns the table, [longest + 1, width] in float32. Rows that have not been filled are
  /// undefined.
  const Tensor& rows() const { return rows_; }
  /// Returns the number of the row of zeros. It is filled with the first position.
  std::int32_t zeros() const { return static_cast<std::int32_t>(rows_.rows - 1); }
  /// Makes sure that positions 0 … count − 1 are in the table, and computes those that are not, at
  /// most `longest`. They are copied to the device in the order of the queue. Without rows it does
  /// nothing.
  void fill(Backend&, Queue&, std::int64_t count);

 private:
  Buffer memory_;
  Tensor rows_;
  double rate_ = 1;
  std::int64_t offset_ = 0;
  // Rows [0, filled_) have been computed.
  std::int64_t filled_ = 0;
};

/// Allocates computed positions for sources and targets of these lengths, and gives them to the
/// stacks of the network that use them. The result has no rows if no stack computes its positions.
/// Throws Error if the backend has too little memory.
Sinusoids add_sinusoids(Backend&, const NetworkDescription&, Network&, std::int64_t longest_source,
                        std::int64_t longest_target);

}  // namespace xlate
