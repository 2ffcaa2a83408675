// Loads a model file's network into a backend's memory. network.cpp is the only place that says the
// name and the shape of every tensor.
#pragma once

#include <vector>

#include "engine/backend.h"
#include "engine/network.h"
#include "models/model_file.h"

namespace xlate {

/// Holds a network with the memory of its weights.
struct LoadedNetwork {
  // The tensors are views of `memory`.
  Network network;
  std::vector<Buffer> memory;
};

/// Copies the weights of the file into the backend's memory, in the order of the queue. Computed
/// positions are left empty. Throws Error if a tensor is missing or has another shape, or if the
/// backend has too little memory.
LoadedNetwork load_network(const ModelFile&, Backend&, Queue&);

}  // namespace xlate
