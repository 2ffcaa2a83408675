// Implements the second decoding of sentences whose numbers overflow.
#include "app/overflow_retry.h"

#include <algorithm>
#include <utility>

#include "app/sentence_inputs.h"

namespace xlate {
namespace {

constexpr std::size_t kBatch = 256;     // sentences that are decoded once more together
constexpr std::size_t kOthers = 10000;  // sentences behind which none of them waits any longer

}  // namespace

OverflowRetry::OverflowRetry(const RunRecord& record, const ModelFile& file,
                             const LineMarkup& markup,
                             std::function<std::unique_ptr<Backend>()> open, Put put)
    : record_(record), file_(file), markup_(markup), open_(std::move(open)), put_(std::move(put)) {}

void OverflowRetry::pass(std::size_t others) {
  passed_ = sentences_.empty() ? 0 : passed_ + others;
  if (sentences_.size() >= kBatch || passed_ >= kOthers) flush();
}

void OverflowRetry::flush() {
  if (sentences_.empty()) return;
  count_ += std::ssize(sentences_);
  ListInput input(std::exchange(sentences_, {}));
  passed_ = 0;
  try {
    if (!decoding_) {
      backend_ = open_();
      decoding_ =
          std::make_unique<Decoding>(record_, file_, *backend_, markup_, DecodingOutput{put_});
    }
    decoding_->run(input);
  } catch (const OutOfMemory& error) {
    fail("line {}: its numbers overflow {}, and there is no room for the network in float32: {}",
         input.next(false) ? input.next(false)->line + 1 : 0, name_of(record_.options->precision),
         error.what());
  }
}

void OverflowRetry::add_figures(RunRecord& record) const {
  if (!decoding_) return;
  const RunnerStatistics statistics = decoding_->statistics();
  record.statistics.add(statistics);
  WorkSeconds& seconds = record.statistics.seconds;
  seconds.encode += statistics.seconds.encode;
  seconds.decode += statistics.seconds.decode;
  seconds.busy += std::max(0.0, statistics.seconds.busy);
  record.memory.peak_bytes += std::max<std::int64_t>(0, backend_->memory().peak_bytes);
}

}  // namespace xlate
