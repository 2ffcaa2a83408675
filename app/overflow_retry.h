// Decodes sentences once more in float32 where their numbers overflow a smaller type.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "app/decoding.h"

namespace xlate {

/// Collects the sentences of which a logit was +∞ or not a number, and decodes them in batches with
/// a network in float32, which is loaded when the first of them comes. The thread that decodes
/// calls its functions.
class OverflowRetry {
 public:
  using Put = std::function<void(std::vector<AnnotatedLine>)>;
  /// `open` opens a backend in float32. The other arguments must outlive the object.
  OverflowRetry(const RunRecord&, const ModelFile&, const LineMarkup&,
                std::function<std::unique_ptr<Backend>()> open, Put put);

  /// Takes a sentence.
  void add(Sentence sentence) { sentences_.push_back(std::move(sentence)); }
  /// Says that so many other sentences have been decoded, and decodes those that are collected once
  /// they fill a batch or have waited behind many others: what was decoded later is kept until they
  /// are written. Throws Error as Decoding does.
  void pass(std::size_t others);
  /// Decodes all sentences that are collected.
  void flush();

  /// Returns how many sentences were decoded once more.
  std::int64_t count() const { return count_; }
  /// Adds the statistics and the memory of these sentences to those of the run.
  void add_figures(RunRecord&) const;

 private:
  const RunRecord& record_;
  const ModelFile& file_;
  const LineMarkup& markup_;
  const std::function<std::unique_ptr<Backend>()> open_;
  const Put put_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Decoding> decoding_;
  std::vector<Sentence> sentences_;
  std::size_t passed_ = 0;
  std::int64_t count_ = 0;
};

}  // namespace xlate
