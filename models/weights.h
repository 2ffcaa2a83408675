// A model file's tensors in a backend's memory, in the type it computes with; tied ones once.
#pragma once

#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/backend.h"
#include "models/model_file.h"

namespace xlate {

class Weights {
 public:
  Weights(const ModelFile&, Backend&, Queue&);

  /// NAME.weight [out, in] and NAME.bias [out] in the backend's type. Throws Error as ModelFile
  /// does.
  Linear linear(const std::string& name, std::int64_t out, std::int64_t in);
  /// The same with the bias in float32.
  Linear projection(const std::string& name, std::int64_t out, std::int64_t in);
  /// NAME.weight and NAME.bias [width], in float32.
  Norm norm(const std::string& name, std::int64_t width, float epsilon);
  /// A matrix in the backend's type.
  Tensor matrix(const std::string& name, std::int64_t rows, std::int64_t columns);
  /// A table of positions, in float32.
  Tensor positions(const std::string& name, std::int64_t rows, std::int64_t columns);
  /// Bytes taken on the device.
  std::int64_t bytes() const { return bytes_; }
  /// The memory; whoever holds it keeps the tensors alive.
  std::vector<Buffer> release() { return std::move(buffers_); }

 private:
  Tensor vector(const std::string& name, std::int64_t size, DType type);
  Tensor load(const StoredTensor&, DType type);
  void upload_expanded(const StoredTensor&, DType type, std::int64_t elements, char* device);

  const ModelFile& file_;
  Backend& backend_;
  Queue& queue_;
  std::vector<Buffer> buffers_;
  /// Place in the file, stored type, rows, columns, place of the scales, type on the device.
  using Key = std::tuple<const std::byte*, DType, std::int64_t, std::int64_t, const float*, DType>;
  std::map<Key, Tensor> loaded_;
  std::int64_t bytes_ = 0;
};

/// Writes `count` elements from index `first` of the stored tensor as float32.
void expand(const StoredTensor&, std::int64_t first, std::int64_t count, float* out);

}  // namespace xlate
