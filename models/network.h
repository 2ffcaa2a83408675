// Loads a model file's network into a backend's memory. network.cpp is the only place that says the
// name and the shape of every tensor.
#pragma once

#include <memory>
#include <vector>

#include "engine/backend.h"
#include "engine/network.h"
#include "models/model_file.h"

namespace xlate {

/// Holds a network with the memory of its weights, which copies of the object share. The backend
/// must outlive them all.
struct LoadedNetwork {
  NetworkDescription described;
  // The tensors are views of `memory`.
  Network network;
  std::shared_ptr<const std::vector<Buffer>> memory;
  // The weights are copied on this queue. Work that reads them must be ordered behind it.
  std::shared_ptr<Queue> queue;
  /// Returns the bytes of the weights in the backend's memory.
  std::int64_t bytes() const {
    std::size_t sum = 0;
    for (const Buffer& buffer : *memory) sum += buffer.bytes();
    return static_cast<std::int64_t>(sum);
  }
};

/// Copies the weights of the file into the backend's memory. Computed positions are left empty.
/// Throws Error if a tensor is missing or has another shape, or if the backend has too little
/// memory.
LoadedNetwork load_network(const ModelFile&, Backend&);

}  // namespace xlate
