// Has small sources of sentences.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "engine/runner.h"

namespace xlate {

/// Gives the sentences of a list, the last one first.
class ListInput final : public SentenceInput {
 public:
  explicit ListInput(std::vector<Sentence> sentences) : sentences_(std::move(sentences)) {}
  const Sentence* next(bool) override { return sentences_.empty() ? nullptr : &sentences_.back(); }
  Sentence take() override {
    Sentence sentence = std::move(sentences_.back());
    sentences_.pop_back();
    return sentence;
  }

 private:
  std::vector<Sentence> sentences_;
};

/// Gives the sentences that are begun again, the last one first, before those of another source.
class BeginAgainInput final : public SentenceInput {
 public:
  /// Takes sentences out of `again`, to which others may be added at any time.
  BeginAgainInput(SentenceInput& source, std::vector<Sentence>& again)
      : source_(source), again_(again) {}
  const Sentence* next(bool wait) override {
    return again_.empty() ? source_.next(wait) : &again_.back();
  }
  Sentence take() override {
    if (again_.empty()) return source_.take();
    Sentence sentence = std::move(again_.back());
    again_.pop_back();
    return sentence;
  }

 private:
  SentenceInput& source_;
  std::vector<Sentence>& again_;
};

/// Gives the sentences of another source, and calls a function before it waits for one: the next
/// lines may not come before everything that was decoded is written.
class FlushBeforeWaiting final : public SentenceInput {
 public:
  FlushBeforeWaiting(SentenceInput& source, std::function<void()> flush)
      : source_(source), flush_(std::move(flush)) {}
  const Sentence* next(bool wait) override {
    const Sentence* next = source_.next(false);
    if (next || !wait) return next;
    flush_();
    return source_.next(true);
  }
  Sentence take() override { return source_.take(); }

 private:
  SentenceInput& source_;
  std::function<void()> flush_;
};

}  // namespace xlate
