// Decodes the sentences of a run with the network in one type, and goes on with smaller batches
// where the memory is too small.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "app/annotations.h"
#include "app/report.h"
#include "engine/runner.h"
#include "models/model_file.h"
#include "models/transformer.h"

namespace xlate {

/// Says what becomes of decoded sentences. The thread that decodes calls the functions.
struct DecodingOutput {
  // It takes sentences that are decoded, and annotated if the options ask for it.
  std::function<void(std::vector<AnnotatedLine>)> put;
  // It takes sentences of which a logit was +∞ or not a number. Without this function they are an
  // error.
  std::function<void(Sentence)> put_overflow{};
  // It is called before the decoder waits for input. What was put must not be kept any longer,
  // because the next lines may not come before it is written.
  std::function<void()> flush{};
};

class Decoding {
 public:
  /// Loads the network and allocates what decoding needs. The arguments must outlive the object,
  /// and the options of the record must have been filled in. Throws Error if one sentence alone
  /// does not fit into the memory.
  Decoding(const RunRecord&, const ModelFile&, Backend&, const LineMarkup&, DecodingOutput);

  /// Decodes until the input ends or a signal comes. Where the memory runs out, it halves the
  /// budget of tokens and begins the sentences in flight again, which changes no output. Throws
  /// Error as Runner::run() does, and if one sentence alone does not fit.
  void run(SentenceInput&);

  /// Returns the budget of source tokens in flight.
  std::int64_t batch_tokens() const { return options_.batch_tokens; }
  /// Returns how many sentences were begun again because the memory had run out.
  std::int64_t begun_again() const { return begun_again_; }
  /// Returns how often the budget was halved.
  std::int64_t halvings() const { return halvings_; }
  /// Returns the bytes of the weights, and those of the key-value caches.
  std::int64_t weight_bytes() const { return network_.bytes(); }
  std::int64_t cache_bytes() const { return runner_ ? runner_->caches().bytes() : 0; }
  /// Waits for the device and returns the statistics.
  RunnerStatistics statistics() const;

 private:
  /// Makes the runner, with a smaller budget if the memory is too small.
  void start();
  /// Halves the budget because of an error, after whatever the runner had has been freed.
  void halve_budget(const OutOfMemory&);
  std::unique_ptr<Runner> make_runner();
  void take(std::vector<Decoded>);
  void flush();

  const ModelDescription& model_;
  Backend& backend_;
  const LineMarkup& markup_;
  const Policy policy_;
  Options options_;  // They have this object's own budget.
  const DecodingOutput output_;
  LoadedNetwork network_;
  const std::vector<std::int32_t> forced_lengths_;
  std::optional<Annotator> annotator_;
  std::unique_ptr<Transformer> transformer_;
  std::unique_ptr<Runner> runner_;
  std::vector<Sentence> again_;  // They come before the input's sentences, the last one first.
  RunnerStatistics before_;      // They are those of earlier runners.
  std::int64_t begun_again_ = 0, halvings_ = 0;
};

/// Throws Error because sentences of the allowed lengths do not fit into the memory.
[[noreturn]] void fail_for_room(const Options&, const char* cause);

/// Returns the statistics of one run, of which others had the beginning and `last` the end. Seconds
/// are those of `last`, because a backend counts them from its start.
RunnerStatistics with_last(RunnerStatistics before, const RunnerStatistics& last);

/// Returns what is thrown where the host has no room, and says which limits there are.
OutOfMemory no_room();

/// Loads the weights of a model. Throws OutOfMemory that names the model if they have no room, and
/// Error if the file does not describe a network.
LoadedNetwork load_weights(const ModelFile&, Backend&);

}  // namespace xlate
