// Reads model.bin (docs/model-format.md): maps the file, checks it, and gives its description, and
// its tensors and embedded files by name.
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

/// Views a [rows, columns] matrix in the mapped file, which is stored row after row. A vector has
/// one row.
struct StoredTensor {
  DType dtype = DType::kFloat32;
  std::int64_t rows = 0, columns = 0;
  const std::byte* data = nullptr;
  // [rows]; the value of an int8 element is the element times the scale of its row. Other types
  // have no scales.
  const float* scale = nullptr;
};

/// Holds a model file that has been checked. Copies share the mapping. Const functions may be
/// called from several threads at once.
class ModelFile {
 public:
  /// Maps the file, verifies its hash (XXH64) and reads its header. Throws Error that names the
  /// file and what is wrong with it, with the value expected and the value found. If `verify_hash`
  /// is not set, the caller must call verify_hash() later, and before that nothing which the file
  /// holds is sure.
  static ModelFile open(const std::string& path, bool verify_hash = true);
  /// Reads the bytes of a model file in memory. They are aligned to 64 bytes and must outlive the
  /// object; `name` stands for the path in messages. Throws Error as open() does. Tests of the
  /// later checks leave the hash unverified.
  ModelFile(std::string name, std::span<const std::byte> bytes, bool verify_hash = true);

  /// Computes the hash of the file, for which all of it is read. Throws Error unless it is the one
  /// that is stored.
  void verify_hash() const;

  /// Returns the path, or the name that the constructor was given.
  const std::string& name() const { return name_; }
  /// Returns the hash that is stored in the file.
  std::uint64_t hash() const { return hash_; }
  /// Returns the size of the file in bytes.
  std::int64_t bytes() const { return static_cast<std::int64_t>(bytes_.size()); }
  const ModelDescription& description() const { return description_; }
  /// Returns the number of elements of all tensors. Tensors that share their bytes count once, and
  /// scales of int8 do not count.
  std::int64_t parameters() const { return parameters_; }

  /// Returns the tensor `name` of shape [rows, columns], with its scales if it is int8. Throws
  /// Error if the file has no such tensor, if it has another shape or number of bytes, or if its
  /// scales are missing or not float32.
  StoredTensor matrix(const std::string& name, std::int64_t rows, std::int64_t columns) const;
  /// Returns the tensor `name` of shape [size]. Throws Error as matrix() does, and if it is int8.
  StoredTensor vector(const std::string& name, std::int64_t size) const;
  /// Returns whether there is a tensor of this name. In a file of version 1, which had every bias
  /// and shift, it returns true, so that a missing one is an error when it is asked for.
  bool has_tensor(const std::string& name) const {
    return version_ == 1 || tensors_.contains(name);
  }
  /// Returns whether there is an embedded file of this name.
  bool has_file(const std::string& name) const { return files_.contains(name); }
  /// Returns the bytes of an embedded file, which are a copy. Throws Error if there is none of this
  /// name.
  std::string_view file(const std::string& name) const;

 private:
  struct Entry {
    DType dtype = DType::kFloat32;
    std::vector<std::int64_t> shape;
    std::span<const std::byte> data;
  };
  struct Mapping;

  /// Returns the entry of a tensor. Throws Error unless it has this shape and the bytes for it.
  const Entry& tensor(const std::string& name, const std::vector<std::int64_t>& shape) const;
  /// Reads the header's lists "tensors" and "files", and counts the parameters.
  void read_entries(const nlohmann::json& header);
  void read_files(const nlohmann::json& list);
  void read_tensor(const nlohmann::json& entry);
  /// Returns the bytes that the entry's "offset" and "bytes" name, which count from the beginning
  /// of the data. Throws Error if the offset is not aligned or the range leaves the data.
  std::span<const std::byte> range_of(const nlohmann::json& entry, const char* kind,
                                      const std::string& entry_name) const;

  std::string name_;
  // This is null where the bytes belong to the caller.
  std::shared_ptr<const Mapping> mapping_;
  // `bytes_` is the whole file. `data_` begins behind the header, and offsets count from there.
  std::span<const std::byte> bytes_, data_;
  std::uint64_t hash_ = 0;
  std::uint32_t version_ = 0;
  ModelDescription description_;
  std::int64_t parameters_ = 0;
  std::map<std::string, Entry> tensors_;
  // The views are of `file_text_`, which copies of this object share.
  std::shared_ptr<const std::string> file_text_;
  std::map<std::string, std::string_view> files_;
};

}  // namespace xlate
