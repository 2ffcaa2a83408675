// This header decodes a list of sentences by a Runner, for tests.
#pragma once

#include <atomic>
#include <vector>

#include "engine/runner.h"

namespace xlate::test {

/// Gives the sentences of a list.
class ListSource final : public SentenceInput {
 public:
  explicit ListSource(std::vector<Sentence> sentences) : sentences_(std::move(sentences)) {}
  const Sentence* next(bool) override {
    return taken_ < sentences_.size() ? &sentences_[taken_] : nullptr;
  }
  Sentence take() override { return sentences_[taken_++]; }

 private:
  std::vector<Sentence> sentences_;
  std::size_t taken_ = 0;
};

/// Returns the hypotheses of each sentence, by the number of its line, which is less than the
/// number of sentences.
inline std::vector<std::vector<Hypothesis>> decode_sentences(Runner& runner,
                                                             std::vector<Sentence> sentences) {
  std::vector<std::vector<Hypothesis>> results(sentences.size());
  ListSource source(std::move(sentences));
  const std::atomic<bool> stop{false};
  runner.run(
      source,
      [&](std::vector<Decoded> lines) {
        for (Decoded& decoded : lines)
          results[static_cast<std::size_t>(decoded.sentence.line)] = decoded.result.hypotheses();
      },
      stop);
  return results;
}

}  // namespace xlate::test
