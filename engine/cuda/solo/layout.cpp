// This file lays out the shared memory of the solo kernel's blocks (layout.h).
#include "engine/cuda/solo/layout.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "engine/cuda/attention/attention.h"

namespace xlate::cuda {
namespace {

// A block holds at most this many keys of a head of 64 columns in shared memory.
constexpr int kMostHeldKeys = 80;
// This many bytes lie behind a key and its value, so that reading several of them at once meets no
// bank conflicts.
constexpr int kKeyGap = 64;
// This is enough for the SlotState (search/advance.cuh) of 8 hypotheses and 16 candidates.
constexpr int kSlotStateBytes = 1024;

// Returns how much memory the search needs for candidates and the SlotState.
int best_bytes(const SoloArgs& args) {
  return args.beams * args.candidates * (args.candidates + 2) *
             static_cast<int>(sizeof(TokenValue)) +
         kSlotStateBytes;
}

// Calls visit for all rows of an operation, also for those that it does not have.
template <class Visit>
void each_rows(SoloOp& op, const Visit& visit) {
  for (SoloRows* rows : {&op.x, &op.residual, &op.out, &op.residual_low_bits, &op.out_low_bits})
    visit(*rows);
}
// Calls visit for all rows of a step.
template <class Visit>
void each_rows(SoloPlan& plan, const Visit& visit) {
  for (SoloRows* rows : {&plan.args.embedded, &plan.args.embedded_low_bits, &plan.args.hidden})
    visit(*rows);
  for (SoloOp& op : plan.ops) each_rows(op, visit);
}

// Finds when the rows of each tensor are in use. Time 0 is the embedding, time i + 1 is operation i
// of the list, and the last time is the search.
//
// Blocks do not compute in step. When a block sends rows of an operation to another block, the
// other one has begun the exchange before, and so it is done with everything before that exchange.
// It may still be at the operation of that exchange, or at a norm behind it. Rows are therefore in
// use from that operation on, and not only from the operation that sends them. If the operation is
// a product whose outputs go to all blocks, its x is not in use any more: the sender has received
// the outputs of all tiles, and a warp sends or posts them after it has read x. Norms and the
// embedding have no exchange. What they write is not sent. In a wide network a product for heads
// sends nothing either, but its exchange has been begun by all blocks of the cluster.
class RowUse {
 public:
  struct Tensor {
    int id, bytes;
    std::vector<bool> in_use;  // It says whether the tensor is in use at each time.
    // The rows that were written last are in use from this time on.
    int since = -1;
    int at = 0;
  };

  explicit RowUse(SoloPlan& plan) {
    const int times = static_cast<int>(plan.ops.size()) + 2;
    each_rows(plan, [&](const SoloRows& rows) {
      if (rows.pitch != 0 && !find(rows))
        tensors.push_back({rows.at, rows.pitch * plan.args.beams,
                           std::vector<bool>(static_cast<std::size_t>(times))});
    });
    write(plan.args.embedded, 0, 0), write(plan.args.embedded_low_bits, 0, 0);
    // The next rows that are sent are in use from this time on.
    int from = 0;
    for (int i = 0; i + 2 < times; ++i)
      from = operate(plan.ops[static_cast<std::size_t>(i)], i + 1, from);
    read(plan.args.hidden, times - 1);
    // The first block's memory for the search is a tensor as well.
    Tensor best{kBest, (best_bytes(plan.args) + 15) / 16 * 16,
                std::vector<bool>(static_cast<std::size_t>(times))};
    best.in_use.back() = true;
    tensors.push_back(best);
  }

  static constexpr int kBest = -1;
  std::vector<Tensor> tensors;
  bool valid = true;

 private:
  Tensor* find(const SoloRows& rows) {
    const auto found = std::find_if(tensors.begin(), tensors.end(),
                                    [&](const Tensor& tensor) { return tensor.id == rows.at; });
    return found == tensors.end() ? nullptr : &*found;
  }
  static auto place(Tensor& tensor, int time) { return tensor.in_use.begin() + time; }

  // Finds what an operation uses. Rows that it sends are in use from `from` on. Returns from when
  // on those of the next operation are.
  int operate(const SoloOp& op, int time, int from) {
    read(op.x, time), read(op.residual, time), read(op.residual_low_bits, time);
    if (op.kind == SoloKind::kNorm) {
      write(op.out, time, time), write(op.out_low_bits, time, time);
      return from;
    }
    if (op.out.pitch != 0) {
      Tensor& out = *find(op.out);
      valid =
          valid && std::none_of(place(out, from), place(out, time + 1), [](bool b) { return b; });
    }
    write(op.out, time, from);
    return op.kind == SoloKind::kLinear && !op.for_heads ? time + 1 : time;
  }
  void read(const SoloRows& rows, int time) {
    if (rows.pitch == 0) return;
    Tensor& tensor = *find(rows);
    // The program reads rows that nothing has written.
    if (tensor.since < 0) return static_cast<void>(valid = false);
    std::fill(place(tensor, tensor.since), place(tensor, time + 1), true);
  }
  void write(const SoloRows& rows, int time, int from) {
    if (rows.pitch == 0) return;
    Tensor& tensor = *find(rows);
    tensor.since = from;
    std::fill(place(tensor, from), place(tensor, time + 1), true);
  }
};

bool in_use_together(const RowUse::Tensor& a, const RowUse::Tensor& b) {
  return std::inner_product(
      a.in_use.begin(), a.in_use.end(), b.in_use.begin(), false,
      [](bool x, bool y) { return x || y; }, [](bool x, bool y) { return x && y; });
}

// Gives each tensor the lowest place that is free whenever it is in use. Returns the bytes of all.
int place_in_order(std::vector<RowUse::Tensor>& tensors) {
  int bytes = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    RowUse::Tensor& tensor = tensors[i];
    tensor.at = 0;
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t j = 0; j < i; ++j) {
        const RowUse::Tensor& other = tensors[j];
        if (tensor.at < other.at + other.bytes && other.at < tensor.at + tensor.bytes &&
            in_use_together(tensor, other))
          tensor.at = other.at + other.bytes, moved = true;
      }
    }
    bytes = std::max(bytes, tensor.at + tensor.bytes);
  }
  return bytes;
}

// Does what lay_out does, for blocks that hold this many keys.
bool lay_out_with(SoloPlan& plan, int row_bytes, int vocabulary_blocks, int shared_bytes,
                  int longest_source, int held_keys) {
  SoloArgs& args = plan.args;
  SoloLayout& layout = args.layout;
  const int beams = args.beams, head = args.attention_width / args.heads,
            entries = static_cast<int>(args.state.longest) * beams + kTileKeys;
  // `entries` has kTileKeys more than there are keys, so that the last tile of keys is a whole one.
  int end = 0;
  const auto reserve = [&](std::size_t bytes) {
    return std::exchange(end, end + (static_cast<int>(bytes) + 15) / 16 * 16);
  };
  const auto reserve_for = [&](int count, std::size_t bytes) {
    return reserve(static_cast<std::size_t>(count) * bytes);
  };
  layout.key_pitch = 2 * head * 2 + kKeyGap;
  layout.held_keys = held_keys;
  layout.ops = reserve(plan.ops.size() * sizeof(SoloOp));
  // Two norms have their gain and shift here in turns.
  const bool shifts = std::any_of(plan.ops.begin(), plan.ops.end(), [](const SoloOp& op) {
    return op.kind == SoloKind::kNorm && op.shift;
  });
  layout.norm_floats = (shifts ? 2 : 1) * args.width;
  layout.norm = reserve_for(2 * layout.norm_floats, sizeof(float));
  layout.self_keys = reserve_for(held_keys, static_cast<std::size_t>(layout.key_pitch));
  layout.cross_keys = reserve_for(held_keys, static_cast<std::size_t>(layout.key_pitch));
  layout.list_rows = reserve_for(entries, sizeof(std::int32_t));
  layout.list_beam_masks = reserve_for(entries, 1);
  layout.list_biases = reserve_for(args.distance_bias ? entries : 0, sizeof(float));
  layout.source_rows = reserve_for(longest_source, sizeof(std::int32_t));
  const int rows = reserve_for(row_bytes, 1);
  // Products without a bias share zeros.
  int most_outputs = 0;
  for (SoloOp& op : plan.ops) {
    if (op.kind != SoloKind::kLinear) continue;
    const int outputs = most_tiles_of(op.tiles, args.layer_blocks) * kSoloTileOutputs;
    if (op.bias)
      op.biases = reserve_for(outputs, 2);
    else
      most_outputs = std::max(most_outputs, outputs);
  }
  const int zeros = reserve_for(most_outputs, 2);
  layout.stages = std::min(kSoloMostStages, (shared_bytes - end) / kSoloStageBytes);
  const int ring = layout.stages * kSoloStageBytes;
  layout.bytes = ring + end;
  for (int* at :
       {&layout.ops, &layout.norm, &layout.self_keys, &layout.cross_keys, &layout.list_rows,
        &layout.list_beam_masks, &layout.list_biases, &layout.source_rows})
    *at += ring;
  for (SoloOp& op : plan.ops) {
    if (op.kind == SoloKind::kLinear) op.biases = ring + (op.bias ? op.biases : zeros);
  }
  each_rows(plan, [&](SoloRows& at) {
    if (at.pitch != 0) at.at += ring + rows;
  });
  layout.best += ring + rows;

  end = 0;
  layout.slice_tiles = (args.tiles + vocabulary_blocks - 1) / vocabulary_blocks;
  layout.hidden = reserve_for(beams * (args.width * 2 + kSoloGap), 1);
  layout.logits = reserve_for(beams * layout.slice_tiles * kSoloTileIds, sizeof(float));
  layout.never = reserve_for(layout.slice_tiles * kSoloTileIds / 8, 1);
  layout.best_of_tiles = reserve_for(beams * layout.slice_tiles, sizeof(unsigned));
  layout.vocabulary_stages = std::min(kSoloMostStages, (shared_bytes - end) / kSoloStageBytes);
  for (int* at : {&layout.hidden, &layout.logits, &layout.never, &layout.best_of_tiles})
    *at += layout.vocabulary_stages * kSoloStageBytes;
  layout.bytes = std::max(layout.bytes, layout.vocabulary_stages * kSoloStageBytes + end);
  return layout.stages >= kSoloLeastStages && layout.vocabulary_stages >= kSoloLeastStages;
}

}  // namespace

// A first fit is good or bad by the order in which tensors get their places. Two orders are tried:
// that of their first use, and the largest ones first.
std::optional<int> share_rows(SoloPlan& plan) {
  RowUse use(plan);
  if (!use.valid) return {};
  std::vector<RowUse::Tensor> tensors = use.tensors, largest_first = use.tensors;
  std::stable_sort(largest_first.begin(), largest_first.end(),
                   [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  int bytes = place_in_order(tensors);
  if (const int other = place_in_order(largest_first); other < bytes)
    bytes = other, tensors = std::move(largest_first);
  const auto place_of = [&](int id) {
    return std::find_if(tensors.begin(), tensors.end(),
                        [&](const auto& tensor) { return tensor.id == id; })
        ->at;
  };
  each_rows(plan, [&](SoloRows& rows) {
    if (rows.pitch != 0) rows.at = place_of(rows.at);
  });
  plan.args.layout.best = place_of(RowUse::kBest);
  return bytes;
}

// Finds the largest number of held keys that leaves enough memory for the ring of stages. What has
// a fixed size is placed behind the ring, and the ring gets what is left.
bool lay_out(SoloPlan& plan, int row_bytes, int vocabulary_blocks, int shared_bytes,
             int longest_source) {
  const int most = plan.args.attention_width / plan.args.heads <= 64
                       ? kMostHeldKeys
                       : kMostHeldKeys / 2 / kTileKeys * kTileKeys;
  for (int held = most; held > 0; held -= kTileKeys) {
    SoloPlan tried = plan;
    if (!lay_out_with(tried, row_bytes, vocabulary_blocks, shared_bytes, longest_source, held))
      continue;
    plan = std::move(tried);
    return true;
  }
  return false;
}

}  // namespace xlate::cuda
