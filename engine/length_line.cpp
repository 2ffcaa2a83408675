// Implements the line of target lengths, by the sums of least squares.
#include "engine/length_line.h"

#include <algorithm>

namespace xlate {

LengthLine::LengthLine(double slope, double intercept, double mean_source, double weight,
                       double most)
    : most_(most),
      count_(weight),
      sources_(weight * mean_source),
      targets_(weight * (slope * mean_source + intercept)),
      squares_(weight * 2 * mean_source * mean_source),
      products_(slope * squares_ + intercept * sources_) {}

void LengthLine::add(double source_tokens, double target_tokens) {
  count_ += 1;
  sources_ += source_tokens;
  targets_ += target_tokens;
  squares_ += source_tokens * source_tokens;
  products_ += source_tokens * target_tokens;
  if (count_ <= most_) return;
  for (double* sum : {&count_, &sources_, &targets_, &squares_, &products_}) *sum /= 2;
}

double LengthLine::at(double source_tokens) const {
  const double mean = sources_ / count_, spread = squares_ - mean * sources_,
               together = products_ - mean * targets_;
  // Where all sources are equally long, there is no slope.
  const double slope = spread > 1e-6 * squares_ ? std::max(0.0, together / spread) : 0;
  return targets_ / count_ + slope * (source_tokens - mean);
}

}  // namespace xlate
