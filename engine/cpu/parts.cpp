// Runs whole programs on one thread each, for parts of a batch. Rows of different sentences do not
// meet in a program, so that threads need not wait for each other between its operations, and the
// rows of a part stay in the caches of one processor.
#include <unistd.h>

#include <algorithm>
#include <new>
#include <variant>
#include <vector>

#include "engine/cpu/cpu_backend.h"
#include "engine/error.h"
#include "engine/limits.h"
#include "engine/workspace.h"

namespace xlate::cpu {
namespace {

// Parts have at most about so many rows, because these should stay in a second cache of 2 MiB. With
// 16 threads, parts of 64 rows were as fast as others or faster (docs/benchmarks.md, "The CPU").
constexpr std::int64_t kMostRows = 64;
// They have at least about so many rows, because each part reads all weights. Few weights are read
// from the second cache, at least in part.
constexpr std::int64_t kLeastRows = 32, kLeastRowsOfFewWeights = 16;
constexpr std::size_t kFewWeights = 8 << 20;
// With fewer threads, steps are faster if each weight is read by one of them for all rows.
constexpr int kLeastThreadsOfStep = 4;

// Returns the size of the last cache in bytes, or a usual one if the system does not say it.
std::size_t last_cache_bytes() {
  constexpr std::size_t kUsual = 32 << 20;
  static const long said = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return said > 0 ? static_cast<std::size_t>(said) : kUsual;
}

std::size_t bytes_of(const Linear& layer) {
  return layer.packed
             ? static_cast<const PackedMatrix&>(*layer.packed).bytes()
             : static_cast<std::size_t>(layer.weight.rows * layer.weight.columns) * sizeof(float);
}

std::size_t weight_bytes(const Program& program) {
  std::size_t sum = 0;
  for (const Operation& operation : program.operations()) {
    if (const auto* linear = std::get_if<ApplyLinear>(&operation)) sum += bytes_of(linear->layer);
  }
  return sum;
}

// Divides packed sentences into about `parts` parts of about as many rows each. Returns the first
// sentence of each part, and the number of sentences. A part may have no rows.
std::vector<std::size_t> divide_sentences(std::span<const std::int32_t> offsets,
                                          std::int64_t parts) {
  std::vector<std::size_t> firsts{0};
  const std::size_t sentences = offsets.size() - 1;
  for (std::size_t sentence = 1; sentence < sentences; ++sentence) {
    // The part ends here if the next sentence would end further behind its end than this is before.
    const std::int64_t twice = std::int64_t{offsets[sentence]} + offsets[sentence + 1];
    if (twice * parts > 2 * std::ssize(firsts) * offsets.back()) firsts.push_back(sentence);
  }
  firsts.push_back(sentences);
  return firsts;
}

// Returns whether no thread computes more than 1.5 times the rows that each would have if all had
// equally many. There are `parts` parts, of which the largest has `largest` of all `rows`.
bool is_balanced(std::int64_t parts, std::int64_t largest, std::int64_t rows,
                 std::int64_t threads) {
  const std::int64_t of_thread = (parts + threads - 1) / threads;
  return 2 * of_thread * largest * threads <= 3 * rows;
}

// Calls compute(). Memory that a thread needs while it computes may have no room.
template <class Compute>
void with_room(const Compute& compute) {
  try {
    compute();
  } catch (const std::bad_alloc&) {
    throw OutOfMemory("out of memory: rows of a batch" + memory_limits());
  }
}

}  // namespace

std::int64_t CpuBackend::parts_of(std::int64_t rows, std::size_t weight_bytes) const {
  const std::int64_t threads = pool_.threads(),
                     least = weight_bytes <= kFewWeights ? kLeastRowsOfFewWeights : kLeastRows;
  if (threads == 1 || rows < threads * least || weight_bytes > last_cache_bytes()) return 1;
  // With two parts or more for each thread, one that is held up has the others take a part from it.
  const std::int64_t each = std::max((rows + threads * kMostRows - 1) / (threads * kMostRows),
                                     std::min<std::int64_t>(2, rows / (threads * least)));
  return each * threads;
}

std::vector<std::size_t> CpuBackend::divide(const Program& program, const PackedRows& batch) const {
  // A part has whole sentences, so that a pass that begins or ends within one cannot be divided.
  const std::span<const std::int32_t> offsets = batch.offsets_host;
  if (batch.first != 0 || batch.sources || offsets.empty() || offsets.back() != batch.count)
    return {};
  const std::int64_t parts = parts_of(batch.count, weight_bytes(program));
  if (parts == 1) return {};
  std::vector<std::size_t> firsts = divide_sentences(offsets, parts);
  std::int64_t largest = 0;
  for (std::size_t i = 0; i + 1 < firsts.size(); ++i)
    largest = std::max<std::int64_t>(largest, offsets[firsts[i + 1]] - offsets[firsts[i]]);
  if (!is_balanced(std::ssize(firsts) - 1, largest, batch.count, pool_.threads())) return {};
  return firsts;
}

void CpuBackend::run(Queue& queue, const Program& program, const Workspace& workspace,
                     const PackedRows& batch) {
  const std::vector<std::size_t> firsts = divide(program, batch);
  (firsts.empty() ? packed_ways_.together : packed_ways_.in_parts) = true;
  if (firsts.empty()) return with_room([&] { Backend::run(queue, program, workspace, batch); });
  auto run_part = [&](std::int64_t part, int thread) {
    const std::size_t begin = firsts[static_cast<std::size_t>(part)],
                      end = firsts[static_cast<std::size_t>(part) + 1];
    const std::int32_t first = batch.offsets_host[begin];
    std::vector<std::int32_t> offsets;
    for (std::size_t i = begin; i <= end; ++i) offsets.push_back(batch.offsets_host[i] - first);
    if (offsets.back() == 0) return;
    of_threads_[static_cast<std::size_t>(thread)]->run(
        queue, program, workspace.from_row(first),
        PackedRows{.count = offsets.back(),
                   .ids = batch.ids + first,
                   .positions = batch.positions + first,
                   .offsets_host = offsets,
                   .offsets = offsets.data()});
  };
  with_room([&] { pool_.run(std::ssize(firsts) - 1, run_part); });
}

void CpuBackend::decode(Queue& queue, const Program& program, const Workspace& workspace,
                        const Step& step, const Projection& projection, const SearchRules& rules) {
  const StepRows& rows = step.rows;
  const int threads = pool_.threads();
  const std::int64_t parts =
      threads < kLeastThreadsOfStep
          ? 1
          : parts_of(rows.rows(), weight_bytes(program) + bytes_of(projection.linear));
  const bool together =
      parts == 1 || !is_balanced(parts, (rows.groups + parts - 1) / parts, rows.groups, threads);
  (together ? step_ways_.together : step_ways_.in_parts) = true;
  if (together)
    return with_room([&] { Backend::decode(queue, program, workspace, step, projection, rules); });
  auto decode_part = [&](std::int64_t part, int thread) {
    const std::int64_t first = part * rows.groups / parts, end = (part + 1) * rows.groups / parts;
    if (first == end) return;
    of_threads_[static_cast<std::size_t>(thread)]->decode(
        queue, program, workspace.from_row(first * rows.beams),
        {step.state, {rows.slots + first, end - first, rows.beams}, step.caches}, projection,
        rules);
  };
  with_room([&] { pool_.run(parts, decode_part); });
}

std::map<std::string, std::string> CpuBackend::paths() const {
  std::map<std::string, std::string> paths;
  for (const auto& [name, ways] :
       {std::pair{"packed", packed_ways_}, std::pair{"step", step_ways_}}) {
    if (ways.in_parts || ways.together)
      paths[name] = !ways.together ? "in parts" : ways.in_parts ? "in parts; together" : "together";
  }
  return paths;
}

}  // namespace xlate::cpu
