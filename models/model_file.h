// model.bin (docs/model-format.md): the mapped file, its description, and its tensors and files by
// name.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "engine/tensor.h"
#include "models/description.h"

namespace xlate {

/// A matrix as it lies in the file; a vector is one row. Points into the mapping.
struct StoredTensor {
  DType dtype = DType::kFloat32;
  std::int64_t rows = 0, columns = 0;
  const std::byte* data = nullptr;
  const float* scale = nullptr;  // [rows], of int8
};

class ModelFile {
 public:
  /// Maps the file, verifies its hash and reads its header. Throws Error naming the file, the thing
  /// and both values.
  static ModelFile open(const std::string& path);
  /// The same for bytes in memory, aligned to 64, which must outlive the object. `verify_hash`
  /// false is for tests of what comes after.
  ModelFile(std::string name, std::span<const std::byte> bytes, bool verify_hash = true);

  const std::string& name() const { return name_; }
  std::uint64_t hash() const { return hash_; }
  std::int64_t bytes() const { return static_cast<std::int64_t>(bytes_.size()); }
  const ModelDescription& description() const { return description_; }
  /// Elements of all tensors, tied ones once, scales not counted.
  std::int64_t parameters() const { return parameters_; }

  /// Throws Error where the file has no such tensor or it has another shape.
  StoredTensor matrix(const std::string& name, std::int64_t rows, std::int64_t columns) const;
  StoredTensor vector(const std::string& name, std::int64_t size) const;
  bool has_file(const std::string& name) const { return files_.contains(name); }
  /// An embedded file's bytes. Throws Error where there is none of that name.
  std::string_view file(const std::string& name) const;

 private:
  struct Entry {
    DType dtype = DType::kFloat32;
    std::vector<std::int64_t> shape;
    std::span<const std::byte> data;
  };
  struct Mapping;

  const Entry& tensor(const std::string& name, const std::vector<std::int64_t>& shape) const;
  void read_entries(const nlohmann::json& header);
  void read_tensor(const nlohmann::json& entry);
  std::span<const std::byte> range_of(const nlohmann::json& entry, const char* kind,
                                      const std::string& entry_name) const;

  std::string name_;
  std::shared_ptr<const Mapping> mapping_;
  std::span<const std::byte> bytes_, data_;
  std::uint64_t hash_ = 0;
  std::uint32_t version_ = 0;
  ModelDescription description_;
  std::int64_t parameters_ = 0;
  std::map<std::string, Entry> tensors_;
  std::map<std::string, std::span<const std::byte>> files_;
};

}  // namespace xlate
