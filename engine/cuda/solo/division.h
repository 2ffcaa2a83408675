// Divides the products of a step among the blocks of the solo kernel that compute layers. It is
// called when the operations of a step are known (compiler.cpp). Nothing here needs a device.
#pragma once

#include "engine/cuda/solo/layout.h"

namespace xlate::cuda {

/// Says whether the network is wide, and how many blocks compute its layers: at most `most_blocks`,
/// or the 16 of one cluster where it is narrow or the others would be fewer than the heads. Then
/// sets what SoloOp says of the tiles, rounds and stages of each product, whose `in`, `width` and
/// `tiles` must be known, and the size of SoloPost::area.
void divide_products(SoloPlan&, int most_blocks);

}  // namespace xlate::cuda
