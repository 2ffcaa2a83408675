// Calls each operation with data like that of a run, for the timings of kernel_bench.h.
#include "engine/search.h"
#include "tests/kernel_bench.h"

namespace xlate::test {

void Bench::linear(std::int64_t rows, std::int64_t in, std::int64_t out, Activation activation) {
  if (!chosen("linear")) return;
  const double bytes = static_cast<double>((in * out + out + rows * (in + out)) * size_);
  const std::int64_t copies = copies_for(bytes);
  const Buffer x = numbers(copies * rows * in), w = numbers(copies * in * out, 0.05f),
               b = numbers(out), y = numbers(copies * rows * out);
  const std::string epilogue = activation == Activation::kRelu ? ", bias, relu" : ", bias";
  add("linear", fmt::format("{}→{}{}", in, out, epilogue), rows, bytes,
      2.0 * static_cast<double>(rows * in * out), copies, [&](std::int64_t i) {
        backend_->linear(*queue_, matrix(x, rows, in, i),
                         {matrix(w, out, in, i), matrix(b, 1, out)}, activation,
                         matrix(y, rows, out, i));
      });
}

void Bench::embed(std::int64_t rows) {
  if (!chosen("embed")) return;
  const double bytes = static_cast<double>(2 * rows * width_ * size_ + rests(rows));
  const std::int64_t copies = copies_for(bytes);
  const Buffer low_bits = numbers(copies * rows * width_), table = numbers(kVocabulary * width_),
               places = floats(kLongest * width_), y = numbers(copies * rows * width_);
  std::vector<std::int32_t> ids, positions;
  for (std::int64_t i = 0; i < copies * rows; ++i)
    ids.push_back(static_cast<std::int32_t>(i * 7919 % kVocabulary)),
        positions.push_back(static_cast<std::int32_t>(i % kLongest));
  const Buffer ids_device = list(ids), positions_device = list(positions);
  const Embedding embedding{matrix(table, kVocabulary, width_),
                            {places.data(), DType::kFloat32, kLongest, width_, width_},
                            22.6f};
  add("embed", fmt::format("{} of {}", width_, kVocabulary), rows, bytes, 0, copies,
      [&](std::int64_t i) {
        backend_->embed(*queue_, embedding,
                        PackedRows{.count = rows,
                                   .ids = ids_device.as<std::int32_t>() + i * rows,
                                   .positions = positions_device.as<std::int32_t>() + i * rows},
                        wide(y, low_bits, rows, i));
      });
}

// Makes caches for sentences of 1 to 59 tokens, whose pages are shuffled. Where each beam has keys
// of its own, the beams of a sentence share all of its tokens but the last six.
Bench::Caches Bench::make_caches(std::int64_t groups, std::int64_t beams,
                                 std::int64_t keys_per_token, std::int64_t copies) {
  constexpr std::int64_t parted = 6;
  const std::int64_t slots = groups * copies, per_slot = (kLongest + kPageTokens) / kPageTokens;
  std::vector<std::int32_t> table(static_cast<std::size_t>(slots * per_slot)), lengths, listed;
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::int32_t>(i);
  std::shuffle(table.begin(), table.end(), std::mt19937(2));
  std::vector<std::uint8_t> ancestors(static_cast<std::size_t>(slots * kLongest * beams));
  Caches made;
  for (std::int64_t slot = 0; slot < slots; ++slot) {
    const auto length = static_cast<std::int32_t>(1 + slot * 37 % (kLongest - 1));
    lengths.push_back(length);
    listed.push_back(static_cast<std::int32_t>(slot));
    const std::int64_t own = keys_per_token == 1 ? 0 : std::min<std::int64_t>(parted, length);
    made.keys += static_cast<double>(length - own + own * beams) / static_cast<double>(copies);
    for (std::int64_t t = length - own; t < length; ++t) {
      for (std::int64_t k = 0; k < beams; ++k)
        ancestors[static_cast<std::size_t>((slot * kLongest + t) * beams + k)] =
            static_cast<std::uint8_t>(k);
    }
  }
  const std::int64_t rows = slots * per_slot * kPageTokens * keys_per_token;
  made.pages = numbers(rows * 2 * width_);
  made.table = list(table), made.lengths = list(lengths), made.groups = list(listed),
  made.ancestors = list(ancestors);
  made.done = list(std::vector<std::int32_t>(static_cast<std::size_t>(slots)));
  made.cache = {matrix(made.pages, rows, 2 * width_), made.table.as<std::int32_t>(), per_slot,
                kPageTokens, keys_per_token};
  made.state = {.length = made.lengths.as<std::int32_t>(),
                .done = made.done.as<std::int32_t>(),
                .ancestor = made.ancestors.as<std::uint8_t>(),
                .slots = slots,
                .beams = beams,
                .longest = kLongest};
  return made;
}

void Bench::attend_self(std::int64_t rows, std::int64_t beams) {
  if (!chosen("attend_self")) return;
  const std::int64_t groups = rows / beams,
                     copies = copies_for(static_cast<double>(groups * 40 * 2 * width_ * size_));
  const Caches made = make_caches(groups, beams, beams, copies);
  const Buffer qkv = numbers(copies * rows * 3 * width_), out = numbers(copies * rows * width_);
  const double keys = made.keys * 2 * width_,
               bytes = (keys + static_cast<double>(rows * width_ * (3 + 2 + 1))) *
                       static_cast<double>(size_);
  const std::string shape = fmt::format("{} beams, lengths 1…{}{}", beams, kLongest, self_name());
  const auto rows_of = [&](std::int64_t i) {
    return StepRows{made.groups.as<std::int32_t>() + i * groups, groups, beams};
  };
  // A decoding step lists its keys once for all layers. Here each call has rows of its own, so the
  // keys are listed before each call, and that time is subtracted. The sources have no tokens.
  const Buffer none = list(std::vector<std::int32_t>(static_cast<std::size_t>(made.state.slots)));
  const PagedCaches caches{{made.cache}, {made.cache}, none.as<std::int32_t>()};
  const double begin = list_keys(shape, rows, copies, [&](std::int64_t i) {
    return Step{made.state, rows_of(i), caches};
  });
  add(
      "attend_self", shape, rows, bytes, 0, copies,
      [&](std::int64_t i) {
        backend_->attend_self(*queue_, matrix(qkv, rows, 3 * width_, i),
                              Step{made.state, rows_of(i), caches}, 0, self_attention(),
                              matrix(out, rows, width_, i));
      },
      begin);
}

void Bench::attend_cross(std::int64_t rows, std::int64_t beams) {
  if (!chosen("attend_cross")) return;
  const std::int64_t groups = rows / beams,
                     copies = copies_for(static_cast<double>(groups * 30 * 2 * width_ * size_));
  const Caches made = make_caches(groups, beams, 1, copies);
  const Buffer query = numbers(copies * rows * width_), out = numbers(copies * rows * width_);
  const double bytes = (made.keys * 2 * width_ + static_cast<double>(2 * rows * width_)) *
                       static_cast<double>(size_);
  const std::string shape = fmt::format("{} beams, lengths 1…{}{}", beams, kLongest, heads_name());
  const auto rows_of = [&](std::int64_t i) {
    return StepRows{made.groups.as<std::int32_t>() + i * groups, groups, beams};
  };
  // Self-attention has no history here, so that its key lists cost little.
  SearchState unused = made.state;
  const Buffer none = list(std::vector<std::int32_t>(static_cast<std::size_t>(made.state.slots)));
  unused.length = none.as<std::int32_t>();
  const PagedCaches caches{{made.cache}, {made.cache}, made.state.length};
  const double begin = list_keys(shape, rows, copies, [&](std::int64_t i) {
    return Step{unused, rows_of(i), caches};
  });
  add(
      "attend_cross", shape, rows, bytes, 0, copies,
      [&](std::int64_t i) {
        backend_->attend_cross(*queue_, matrix(query, rows, width_, i),
                               Step{unused, rows_of(i), caches}, 0, attention_,
                               matrix(out, rows, width_, i));
      },
      begin);
}

void Bench::attend_packed(std::int64_t rows) {
  if (!chosen("attend_packed")) return;
  std::vector<std::int32_t> offsets{0};
  double squares = 0;
  for (std::int64_t i = 0; offsets.back() < rows; ++i) {
    const std::int64_t length =
        std::min<std::int64_t>(1 + i * 37 % kLongest, rows - offsets.back());
    offsets.push_back(static_cast<std::int32_t>(offsets.back() + length));
    squares += static_cast<double>(length * length);
  }
  const double bytes = static_cast<double>(4 * rows * width_ * size_);
  const std::int64_t copies = copies_for(bytes);
  const Buffer qkv = numbers(copies * rows * 3 * width_), out = numbers(copies * rows * width_),
               offsets_device = list(offsets);
  add("attend_packed", fmt::format("lengths 1…{}{}", kLongest, self_name()), rows, bytes,
      4.0 * static_cast<double>(width_) * squares, copies, [&](std::int64_t i) {
        backend_->attend_self(*queue_, matrix(qkv, rows, 3 * width_, i),
                              PackedRows{.count = rows,
                                         .offsets_host = offsets,
                                         .offsets = offsets_device.as<std::int32_t>()},
                              self_attention(), matrix(out, rows, width_, i));
      });
}

// Times the first thirty steps of new sentences, none of which ends, and stores the mean of a step.
void Bench::search_step(std::int64_t rows, int beams) {
  if (!chosen("search_step")) return;
  const std::int64_t slots = rows / beams, padded = (kVocabulary + backend_->row_multiple() - 1) /
                                                    backend_->row_multiple() *
                                                    backend_->row_multiple();
  const Buffer weight = numbers(padded * width_, 0.2f), hidden = numbers(rows * width_, 2),
               bias = floats(kVocabulary);
  const Projection projection{{matrix(weight, padded, width_).row_range(0, kVocabulary),
                               {bias.data(), DType::kFloat32, 1, kVocabulary, kVocabulary}}};
  const std::int32_t end = 0, pad = kVocabulary - 1;
  Search search(*backend_, *queue_,
                {.beams = beams, .start = pad, .ends = {end}, .never_chosen = {end, pad}}, slots,
                2 * kSearchSteps);
  std::vector<std::int32_t> listed;
  std::vector<SlotStart> starts;
  for (std::int32_t slot = 0; slot < slots; ++slot) {
    listed.push_back(slot);
    starts.push_back({.slot = slot, .limit = 2 * kSearchSteps, .start = pad});
  }
  const Buffer groups = list(listed);
  const StepRows step{groups.as<std::int32_t>(), slots, beams};
  const double seconds = timed(
      kSearchSteps,
      [&] {
        for (int i = 0; i < kSearchSteps; ++i)
          search.step(matrix(hidden, rows, width_), step, projection);
      },
      [&] { search.start(starts); });
  const double bytes = static_cast<double>((padded + rows) * width_ * size_);
  keep({"search_step",
        fmt::format("{}→{}, {}", width_, kVocabulary,
                    beams == 1 ? "greedy" : fmt::format("{} beams", beams)),
        rows, seconds, bytes, 2.0 * static_cast<double>(rows * width_ * kVocabulary)});
}

}  // namespace xlate::test
