// Copies a model file's tensors into a backend's memory, in the type that it computes with. Tied
// tensors are copied once.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/backend.h"
#include "models/model_file.h"

namespace xlate {

/// Loads tensors by name. Each function throws Error as ModelFile does, if a tensor is missing or
/// has another shape, if a value exceeds what float16 can hold where that is the type to compute
/// in, and if the backend has too little memory. Copies are made in the order of the
/// queue. File, backend and queue must outlive the object.
class Weights {
 public:
  Weights(const ModelFile&, Backend&, Queue&);

  /// Returns NAME.weight [out, in], packed if the backend packs weights, and, if the file has
  /// LIKE.bias, NAME.bias [out], both in the backend's compute type. LIKE is the name of the same
  /// product in the first layer of the stack, or NAME.
  Linear linear(const std::string& name, const std::string& like, std::int64_t out,
                std::int64_t in);
  /// Returns NAME.weight [out, in] as linear() does and, if the file has it, NAME.bias [out] times
  /// `scale` in float32, the type of the logits.
  Linear projection(const std::string& name, std::int64_t out, std::int64_t in, float scale = 1);
  /// Returns NAME.weight (the gain) and, if the file has LIKE.bias, NAME.bias (the shift), both
  /// [width] in float32 and times `scale`.
  Norm norm(const std::string& name, const std::string& like, std::int64_t width, NormKind kind,
            float epsilon, float scale = 1);
  /// Returns the matrix `name` [rows, columns] in the backend's compute type.
  Tensor matrix(const std::string& name, std::int64_t rows, std::int64_t columns);
  /// Returns the table `name` [rows, columns], of positions or of biases, in float32.
  Tensor table(const std::string& name, std::int64_t rows, std::int64_t columns);
  /// Returns the vector `name` [size] in float32.
  Tensor numbers(const std::string& name, std::int64_t size);
  /// Returns the bytes that have been allocated so far.
  std::int64_t bytes() const { return bytes_; }
  /// Returns the memory of all tensors that were loaded, which live as long as it does.
  std::vector<Buffer> release() { return std::move(buffers_); }

 private:
  /// Returns the layer with these weights, and without a bias.
  Linear weights(const std::string& name, std::int64_t out, std::int64_t in);
  Tensor vector(const std::string& name, std::int64_t size, DType type);
  /// Returns the vector `name` if the file has the vector `like`, and else an absent tensor.
  Tensor vector_if(const std::string& like, const std::string& name, std::int64_t size, DType type);
  /// Returns the vector `name` in float32, times `scale`.
  Tensor scaled(const std::string& name, std::int64_t size, float scale);
  /// Returns the same if the file has the vector `like`, and else an absent tensor.
  Tensor scaled_if(const std::string& like, const std::string& name, std::int64_t size,
                   float scale);
  /// Allocates and copies a tensor in this type, unless the same one has been loaded before. The
  /// rows of a matrix are padded with zeros to a multiple of Backend::row_multiple().
  Tensor load(const std::string& name, const StoredTensor&, DType type);
  void upload_expanded(const std::string& name, const StoredTensor&, DType type,
                       std::int64_t elements, char* device);
  /// Throws Error if a finite value of the tensor `name` overflows the type, which only float16
  /// does.
  void check_range(const std::string& name, std::span<const float>, DType type) const;

  const ModelFile& file_;
  Backend& backend_;
  Queue& queue_;
  std::vector<Buffer> buffers_;
  /// Two loads give the same tensor if these agree: the address in the file, the stored type, the
  /// rows, the columns, the address of the scales, and the type on the device.
  using Key = std::tuple<const std::byte*, DType, std::int64_t, std::int64_t, const float*, DType>;
  static Key key_of(const StoredTensor& stored, DType type) {
    return {stored.data, stored.dtype, stored.rows, stored.columns, stored.scale, type};
  }
  std::map<Key, Tensor> loaded_;
  std::map<Key, std::shared_ptr<const PackedWeight>> packed_;
  std::int64_t bytes_ = 0;
};

/// Writes elements [first, first + count) of the stored tensor, counted row after row, as float32
/// to `out` [count]. An int8 element is multiplied by the scale of its row.
void expand(const StoredTensor&, std::int64_t first, std::int64_t count, float* out);

}  // namespace xlate
