// A model file's network in a backend's memory: one visitor that says every tensor's name and
// shape.
#pragma once

#include <vector>

#include "engine/network.h"
#include "models/model_file.h"

namespace xlate {

struct LoadedNetwork {
  Network network;
  std::vector<Buffer> memory;  // of its weights; whoever holds it keeps them alive
};

/// Throws Error where a tensor is missing or has another shape, or memory does not suffice.
LoadedNetwork load_network(const ModelFile&, Backend&, Queue&);

}  // namespace xlate
