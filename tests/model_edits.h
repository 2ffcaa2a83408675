// This header changes the tiny models of model_builder.h, and reads model files as the program
// does.
#pragma once

#include <functional>
#include <utility>

#include "models/load.h"
#include "models/model_file.h"
#include "models/network.h"
#include "models/weights.h"
#include "tests/model_builder.h"

namespace xlate::test {

/// An edit changes a model.
using Edit = std::function<void(ModelBuilder&)>;

/// Reads everything in a file. Throws Error if something is wrong.
inline void load_all(const AlignedBytes& bytes, bool verify_hash = true) {
  const ModelFile file("tiny.bin", bytes.span(), verify_hash);
  load_tokenizer(file);
  const auto backend = make_backend({.threads = 1});
  load_network(file, *backend);
}

/// Sets header[section][key] to a value.
inline Edit set(const char* section, const char* key, nlohmann::json value) {
  return [=](ModelBuilder& model) { model.header[section][key] = value; };
}
/// Removes header[section][key].
inline Edit erase(const char* section, const char* key) {
  return [=](ModelBuilder& model) { model.header[section].erase(key); };
}

/// Sets the value at a JSON pointer below header["network"].
inline Edit at(const char* path, nlohmann::json value) {
  return [=](ModelBuilder& model) {
    model.header["network"][nlohmann::json::json_pointer(path)] = value;
  };
}

}  // namespace xlate::test
