// Divides the products of a step among the blocks of the solo kernel that compute layers. It is
// called when the operations of a step are known (compiler.cpp). Nothing here needs a device.
#pragma once

#include "engine/cuda/solo/layout.h"

namespace xlate::cuda {

/// Chooses how many clusters compute the layers, which are at most `most_clusters`, and one for a
/// narrow network. Then sets what SoloOp says of the tiles, rounds and stages of each product,
/// whose `width`, `tiles` and `boxes` must be known, and the size of SoloPost::area.
void divide_products(SoloPlan&, int most_clusters);

}  // namespace xlate::cuda
