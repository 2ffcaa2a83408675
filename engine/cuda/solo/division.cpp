// This file divides products among blocks (division.h).
#include "engine/cuda/solo/division.h"

#include <algorithm>

namespace xlate::cuda {
namespace {

// One cluster computes the layers of networks that are at most this wide. An exchange between
// clusters takes about a thousand clocks more than one within a cluster, which narrow products do
// not win back (docs/kernels/batch_one.md, What was tried).
constexpr int kNarrowWidth = 512;

// Returns how many tiles a block has at most, of those of `blocks` blocks.
int tiles_each(const SoloOp& op, int blocks) { return (op.tiles + blocks - 1) / blocks; }

// Returns whether every one of these clusters has tiles of a product.
bool all_have_tiles(const SoloOp& op, int clusters) {
  return op.kind != SoloKind::kLinear ||
         op.tiles > (clusters - 1) * kSoloCluster * tiles_each(op, clusters * kSoloCluster);
}

// Every cluster must have a part of every product, or it could fall so far behind the others that
// they overwrite what it has not read (docs/kernels/batch_one.md, What must hold).
int layer_clusters(const SoloPlan& plan, int most_clusters) {
  if (plan.args.width <= kNarrowWidth) return 1;
  int count = std::min(plan.args.width / kSoloClusterColumns, most_clusters);
  while (count > 1 && !std::all_of(plan.ops.begin(), plan.ops.end(),
                                   [&](const SoloOp& op) { return all_have_tiles(op, count); }))
    --count;
  return std::max(count, 1);
}

// Returns how many boxes of each tile fit into a stage, out of the numbers that the kernel knows.
int stage_boxes(const SoloOp& op, const SoloArgs& args) {
  constexpr int kBoxBytes = kSoloTileOutputs * 64 * 2;
  const bool wide = args.layer_clusters > 1;
  const int most = wide ? kSoloMostStageBoxes : kSoloStageBoxes,
            least = wide || args.any ? kSoloStageBoxes / 2 : kSoloStageBoxes;
  for (int boxes = most; boxes >= least; boxes -= 2) {
    if (op.boxes % boxes == 0 && boxes * op.round_tiles * kBoxBytes <= kSoloStageBytes)
      return boxes;
  }
  return 1;
}

}  // namespace

void divide_products(SoloPlan& plan, int most_clusters) {
  SoloArgs& args = plan.args;
  args.layer_clusters = layer_clusters(plan, most_clusters);
  for (SoloOp& op : plan.ops) {
    if (op.kind != SoloKind::kLinear) continue;
    op.tiles_each = tiles_each(op, args.layer_clusters * kSoloCluster);
    op.rounds = (op.tiles_each + kSoloWarps - 1) / kSoloWarps;
    op.round_tiles = (op.tiles_each + op.rounds - 1) / op.rounds;
    op.stage_boxes = stage_boxes(op, args);
    op.stages = op.boxes / op.stage_boxes;
    const int words = op.out_kind == SoloOut::kFloat32 ? 2 : 1;
    args.post.area = std::max(args.post.area, 4 * words * op.width);
  }
}

}  // namespace xlate::cuda
