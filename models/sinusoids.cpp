// Computes rows of sinusoids on the host and copies them to the device.
#include "models/sinusoids.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace xlate {
namespace {

// Rows are computed 64 at a time, so that sentences which are each a little longer than the last do
// not cause a copy each.
constexpr std::int64_t kPositionsAtOnce = 64;

}  // namespace

Sinusoids::Sinusoids(Backend& backend, const EmbeddingDescription& wanted, std::int64_t longest,
                     std::int64_t width)
    : memory_(backend.allocate(static_cast<std::size_t>((longest + 1) * width) * sizeof(float))),
      rows_{memory_.data(), DType::kFloat32, longest + 1, width, width},
      rate_(wanted.rate),
      offset_(wanted.offset) {}

// The first half of a row has sines and the second half has cosines, of the angles (p + offset) /
// 10000^(j / rate). They are computed in double and stored as float32 (docs/model-format.md). Only
// the rows that a sentence has needed are computed, because few sentences are as long as the
// longest that is allowed.
void Sinusoids::fill(Backend& backend, Queue& queue, std::int64_t count) {
  if (!rows_ || count <= filled_) return;
  const std::int64_t width = rows_.columns, half = width / 2, longest = rows_.rows - 1;
  if (filled_ == 0)
    backend.clear(queue, rows_.as<float>() + longest * width,
                  static_cast<std::size_t>(width) * sizeof(float));
  count = std::min((count + kPositionsAtOnce - 1) / kPositionsAtOnce * kPositionsAtOnce, longest);
  std::vector<double> divisors(static_cast<std::size_t>(half));
  for (std::int64_t j = 0; j < half; ++j)
    divisors[static_cast<std::size_t>(j)] = std::pow(10000.0, static_cast<double>(j) / rate_);
  std::vector<float> row(static_cast<std::size_t>(width));
  for (std::int64_t p = filled_; p < count; ++p) {
    for (std::int64_t j = 0; j < half; ++j) {
      const double angle = static_cast<double>(p + offset_) / divisors[static_cast<std::size_t>(j)];
      row[static_cast<std::size_t>(j)] = static_cast<float>(std::sin(angle));
      row[static_cast<std::size_t>(half + j)] = static_cast<float>(std::cos(angle));
    }
    backend.upload(queue, std::as_bytes(std::span(row)), rows_.as<float>() + p * width);
  }
  filled_ = count;
}

// Where both stacks compute their positions, they share one table, which is made for the longer of
// the longest source and the longest target. The encoder's offset and rate count for both.
Sinusoids add_sinusoids(Backend& backend, const NetworkDescription& described, Network& network,
                        std::int64_t longest_source, std::int64_t longest_target) {
  const auto computed = [](const StackDescription& stack) {
    return stack.embedding.positions == Positions::kSinusoidal;
  };
  const bool source = computed(described.encoder), target = computed(described.decoder);
  if (!source && !target) return {};
  Sinusoids sinusoids(backend, (source ? described.encoder : described.decoder).embedding,
                      std::max(source ? longest_source : 0, target ? longest_target : 0),
                      network.decoder.width);
  if (source) network.encoder.embedding.positions = sinusoids.rows();
  if (target) network.decoder.embedding.positions = sinusoids.rows();
  return sinusoids;
}

}  // namespace xlate
