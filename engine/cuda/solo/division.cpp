// This file divides products among blocks (division.h).
#include "engine/cuda/solo/division.h"

#include <algorithm>

namespace xlate::cuda {
namespace {

// One cluster computes the layers of networks that are at most this wide
// (docs/kernels/batch_one.md, What was tried).
constexpr int kNarrowWidth = 512;

// Returns how many blocks can compute the layers of a wide network, in whole clusters. Each has a
// tile of every product at least. Otherwise it could fall so far behind the others that they
// overwrite what it has not read (docs/kernels/batch_one.md, What must hold).
int most_layer_blocks(const SoloPlan& plan, int most) {
  int count = std::min(plan.args.width / kSoloTileOutputs, most);
  for (const SoloOp& op : plan.ops) {
    if (op.kind == SoloKind::kLinear) count = std::min(count, op.tiles);
  }
  return count / kSoloWideCluster * kSoloWideCluster;
}

// Returns how many boxes of each tile fit into a stage, out of the numbers that the kernel knows.
int stage_boxes(const SoloOp& op, const SoloArgs& args) {
  constexpr int kBoxBytes = kSoloTileOutputs * 64 * 2;
  const int most = args.wide ? kSoloMostStageBoxes : kSoloStageBoxes,
            least = args.wide || args.any ? kSoloStageBoxes / 2 : kSoloStageBoxes;
  for (int boxes = most; boxes >= least; boxes -= 2) {
    if (op.in / 64 % boxes == 0 && boxes * op.round_tiles * kBoxBytes <= kSoloStageBytes)
      return boxes;
  }
  return 1;
}

}  // namespace

void divide_products(SoloPlan& plan, int most_blocks) {
  SoloArgs& args = plan.args;
  const int blocks = most_layer_blocks(plan, most_blocks);
  args.wide = args.width > kNarrowWidth && blocks >= args.heads;
  args.layer_blocks = args.wide ? blocks : kSoloCluster;
  args.head_stride = args.layer_blocks / args.heads;
  for (const SoloOp& op : plan.ops) {
    const int words = op.out_kind == SoloOut::kFloat32 ? op.width : op.width / 2;
    if (op.kind != SoloKind::kNorm) args.post.area = std::max(args.post.area, args.beams * words);
  }
  for (SoloOp& op : plan.ops) {
    if (op.kind != SoloKind::kLinear) continue;
    const int tiles = most_tiles_of(op.tiles, args.layer_blocks);
    op.rounds = (tiles + kSoloWarps - 1) / kSoloWarps;
    op.round_tiles = (tiles + op.rounds - 1) / op.rounds;
    op.stage_boxes = stage_boxes(op, args);
    op.stages = op.in / 64 / op.stage_boxes;
  }
}

}  // namespace xlate::cuda
