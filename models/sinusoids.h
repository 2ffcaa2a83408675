// Sinusoidal positions (Vaswani et al. 2017), computed as sentences come to need them.
#pragma once

#include "engine/backend.h"
#include "models/network_description.h"

namespace xlate {

class Sinusoids {
 public:
  Sinusoids() = default;
  /// Room for positions 0 … longest − 1 of rows `width` wide. Throws Error where the backend has
  /// not so much memory.
  Sinusoids(Backend&, const EmbeddingDescription&, std::int64_t longest, std::int64_t width);

  /// [longest, width], float32, of which the rows that were filled mean something.
  const Tensor& rows() const { return rows_; }
  /// Computes positions 0 … count − 1, those that are not there yet.
  void fill(Backend&, Queue&, std::int64_t count);

 private:
  Buffer memory_;
  Tensor rows_;
  double rate_ = 1;
  std::int64_t offset_ = 0;
  std::int64_t filled_ = 0;
};

}  // namespace xlate
