// LengthLine: estimates how long the target of a sentence becomes, from the lengths of the targets
// that were decoded before.
#pragma once

namespace xlate {

/// Has the target tokens of a sentence as a line over its source tokens, fitted by least squares.
/// Real text is near a line through the origin, but where outputs are cut or imposed, they may all
/// be equally long.
class LengthLine {
 public:
  LengthLine() = default;
  /// Begins with the line slope · S + intercept. It counts as much as `weight` sentences of 0 and
  /// of 2 · `mean_source` source tokens, half of them each. When more than `most` sentences have
  /// been counted, everything counted so far is halved, so that recent sentences count more.
  LengthLine(double slope, double intercept, double mean_source, double weight, double most);

  /// Counts a sentence.
  void add(double source_tokens, double target_tokens);
  /// Returns the value of the line. Longer sources never have a smaller one.
  double at(double source_tokens) const;

 private:
  double most_ = 1;
  // These are the number of sentences, and the sums of S, T, S² and S·T over them.
  double count_ = 1, sources_ = 0, targets_ = 0, squares_ = 0, products_ = 0;
};

}  // namespace xlate
