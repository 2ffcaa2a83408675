// Maps a model file, and checks its prefix, its hash, and every entry of its lists of tensors and
// files.
#include "models/model_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/error.h"
#include "models/section.h"

namespace xlate {
namespace {

using nlohmann::json;

constexpr std::string_view kMagic = "XLATEMDL";
constexpr std::uint32_t kOldestVersion = 1, kVersion = 2;
// These are the offsets of docs/model-format.md, in bytes: the hash covers everything from byte 16
// to the end of the file.
constexpr std::size_t kHashedFrom = 16, kHeaderAt = 40, kAlignment = 64;

// The numbers of the file are little-endian, as those of the processors that xlate runs on are.
template <class T>
T number_at(std::span<const std::byte> bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return shape.size() == 1 ? fmt::format("[{}]", shape[0])
                           : fmt::format("[{}, {}]", shape[0], shape[1]);
}

std::string name_of(const json& entry, const std::string& file, const char* list) {
  if (!entry.is_object() || !entry.contains("name") || !entry["name"].is_string())
    fail("{}: an entry of '{}' has no name", file, list);
  return entry["name"].get<std::string>();
}

std::uint64_t offset_of(const json& entry, const char* key, const std::string& file,
                        const std::string& name) {
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_number_unsigned())
    fail("{}: '{}' has no whole number '{}'", file, name, key);
  return found->get<std::uint64_t>();
}

DType dtype_of(const json& entry, const std::string& file, const std::string& name) {
  const auto found = entry.find("dtype");
  for (const DType type : {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kInt8}) {
    if (found != entry.end() && *found == name_of(type)) return type;
  }
  fail("{}: tensor '{}' has dtype {}, expected float32, float16, bfloat16 or int8", file, name,
       found == entry.end() ? "missing" : brief(*found));
}

// Returns the present name of a tensor of version 1. That version knew norms after a sublayer only,
// and called them "norm" instead of "norm_after".
std::string renamed(std::string name) {
  if (const std::size_t at = name.find(".norm."); at != std::string::npos)
    name.insert(at + 5, "_after");
  return name;
}

void check_hash(const std::string& name, std::span<const std::byte> bytes) {
  const std::uint64_t stored = number_at<std::uint64_t>(bytes, 8);
  const std::uint64_t found = XXH64(bytes.data() + kHashedFrom, bytes.size() - kHashedFrom, 0);
  if (found != stored)
    fail("{}: damaged: the hash of its bytes is {:016x}, expected {:016x}", name, found, stored);
}

// Checks the bytes before the header (magic, hash, version, sizes) and returns the bytes of the
// header.
std::span<const std::byte> check_prefix(const std::string& name, std::span<const std::byte> bytes,
                                        bool verify_hash) {
  if (bytes.size() < kMagic.size() ||
      std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    fail(
        "{}: not a model file: it does not begin with {} (scripts/convert.py makes one from a "
        "checkpoint)",
        name, kMagic);
  }
  if (bytes.size() < kHeaderAt)
    fail("{}: cut short: {} bytes, expected at least {}", name, bytes.size(), kHeaderAt);
  if (const auto version = number_at<std::uint32_t>(bytes, 16);
      version < kOldestVersion || version > kVersion) {
    fail("{}: format version is {}, expected {} to {}", name, version, kOldestVersion, kVersion);
  }
  const auto header = number_at<std::uint64_t>(bytes, 24),
             size = number_at<std::uint64_t>(bytes, 32);
  if (size != bytes.size())
    fail("{}: {}: {} bytes, expected {}", name, size > bytes.size() ? "cut short" : "too long",
         bytes.size(), size);
  if (verify_hash) check_hash(name, bytes);
  if (header > bytes.size() - kHeaderAt)
    fail("{}: header of {} bytes, expected at most {}", name, header, bytes.size() - kHeaderAt);
  return bytes.subspan(kHeaderAt, header);
}

// Returns a path as a shell takes it for one word.
std::string for_shell(const std::string& path) {
  constexpr const char* kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./+,:@%=-";
  if (path.find_first_not_of(kPlain) == std::string::npos) return path;
  std::string quoted = "'";
  for (const char c : path) quoted += c == '\'' ? "'\\''" : std::string(1, c);
  return quoted + "'";
}

}  // namespace

// Maps a file into memory for reading, as long as the object lives.
struct ModelFile::Mapping {
  // Throws Error if the path is no regular file, or is empty, or cannot be opened or mapped.
  explicit Mapping(const std::string& path) {
    // With O_NONBLOCK, opening a named pipe does not wait for its writer.
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) fail("{}: cannot be opened: {}", path, std::strerror(errno));
    struct stat status {};
    const bool regular = fstat(file, &status) == 0 && S_ISREG(status.st_mode);
    if (regular && status.st_size > 0) {
      bytes = static_cast<std::size_t>(status.st_size);
      data = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file, 0);
    }
    const int error = errno;
    close(file);
    if (!regular && S_ISDIR(status.st_mode)) {
      fail(
          "{}: a directory, expected a model file; this makes one of a checkpoint: "
          "scripts/convert.py {} -o model.bin",
          path, for_shell(path));
    }
    if (!regular) fail("{}: not a regular file, expected a model file", path);
    if (bytes == 0) fail("{}: empty file", path);
    if (data == MAP_FAILED) fail("{}: cannot be mapped: {}", path, std::strerror(error));
  }
  ~Mapping() {
    if (data != MAP_FAILED) munmap(data, bytes);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  void* data = MAP_FAILED;
  std::size_t bytes = 0;
};

ModelFile ModelFile::open(const std::string& path, bool verify_hash) {
  const auto mapping = std::make_shared<const Mapping>(path);
  const auto read = [&](bool verify) {
    ModelFile file(path, {static_cast<const std::byte*>(mapping->data), mapping->bytes}, verify);
    file.mapping_ = mapping;
    return file;
  };
  if (verify_hash) return read(true);
  try {
    return read(false);
  } catch (const Error&) {
    // The error may follow from damage, which is said in its place.
    return read(true);
  }
}

void ModelFile::verify_hash() const { check_hash(name_, bytes_); }

ModelFile::ModelFile(std::string name, std::span<const std::byte> bytes, bool verify_hash)
    : name_(std::move(name)), bytes_(bytes) {
  const auto header_bytes = check_prefix(name_, bytes, verify_hash);
  hash_ = number_at<std::uint64_t>(bytes, 8);
  const std::size_t data_at =
      (kHeaderAt + header_bytes.size() + kAlignment - 1) / kAlignment * kAlignment;
  if (data_at < bytes.size()) data_ = bytes.subspan(data_at);
  const auto* text = reinterpret_cast<const char*>(header_bytes.data());
  const json header = json::parse(text, text + header_bytes.size(), nullptr, false);
  if (header.is_discarded()) fail("{}: header is not JSON", name_);
  version_ = number_at<std::uint32_t>(bytes, 16);
  description_ = describe(header, version_, name_);
  read_entries(header);
}

void ModelFile::read_entries(const json& header) {
  for (const char* list : {"tensors", "files"}) {
    if (!header.contains(list) || !header[list].is_array())
      fail("{}: header has no array '{}'", name_, list);
  }
  for (const json& entry : header["tensors"]) read_tensor(entry);
  read_files(header["files"]);
  // Tied tensors begin at the same byte and are counted once.
  std::set<const std::byte*> seen;
  for (const auto& [name, entry] : tensors_) {
    if (name.ends_with(".scale") || !seen.insert(entry.data.data()).second) continue;
    parameters_ += static_cast<std::int64_t>(entry.data.size() / size_of(entry.dtype));
  }
}

// Copies the embedded files. What a thread has checked in them must not change afterwards, as it
// would in the mapping if the model were cut short or overwritten meanwhile.
void ModelFile::read_files(const json& list) {
  std::map<std::string, std::span<const std::byte>> ranges;
  // Files may share their bytes, which are copied once.
  std::map<std::pair<const std::byte*, std::size_t>, std::string_view> copies;
  std::size_t bytes = 0;
  for (const json& entry : list) {
    const std::string name = name_of(entry, name_, "files");
    const auto range = range_of(entry, "file", name);
    if (!ranges.emplace(name, range).second) fail("{}: file '{}' is listed twice", name_, name);
    if (!copies.emplace(std::pair{range.data(), range.size()}, "").second) continue;
    // Ranges that overlap could take much more memory than the model has bytes.
    bytes += range.size();
    if (bytes > data_.size()) {
      fail("{}: the files up to '{}' have {} bytes, expected at most the {} of the data", name_,
           name, bytes, data_.size());
    }
  }
  auto text = std::make_shared<std::string>();
  text->reserve(bytes);
  for (auto& [range, copy] : copies) {
    text->append(reinterpret_cast<const char*>(range.first), range.second);
    copy = std::string_view(*text).substr(text->size() - range.second);
  }
  for (const auto& [name, range] : ranges)
    files_.emplace(name, copies.at({range.data(), range.size()}));
  file_text_ = std::move(text);
}

void ModelFile::read_tensor(const json& entry) {
  const std::string name =
      version_ == 1 ? renamed(name_of(entry, name_, "tensors")) : name_of(entry, name_, "tensors");
  Entry tensor{
      .dtype = dtype_of(entry, name_, name), .shape = {}, .data = range_of(entry, "tensor", name)};
  const auto shape = entry.find("shape");
  if (shape == entry.end() || !shape->is_array() || shape->empty() || shape->size() > 2) {
    fail("{}: tensor '{}' has no shape of one or two numbers", name_, name);
  }
  for (const json& size : *shape) {
    if (!size.is_number_unsigned() || size.get<std::uint64_t>() > (std::uint64_t{1} << 31)) {
      fail("{}: tensor '{}' has {} in its shape, expected whole numbers", name_, name, brief(size));
    }
    tensor.shape.push_back(size.get<std::int64_t>());
  }
  if (!tensors_.emplace(name, std::move(tensor)).second)
    fail("{}: tensor '{}' is listed twice", name_, name);
}

std::span<const std::byte> ModelFile::range_of(const json& entry, const char* kind,
                                               const std::string& entry_name) const {
  const std::uint64_t offset = offset_of(entry, "offset", name_, entry_name),
                      count = offset_of(entry, "bytes", name_, entry_name);
  if (offset % kAlignment != 0)
    fail("{}: {} '{}' is at offset {}, expected a multiple of {}", name_, kind, entry_name, offset,
         kAlignment);
  if (offset > data_.size() || count > data_.size() - offset) {
    fail("{}: {} '{}' ends at byte {} + {} of the data, expected at most {}", name_, kind,
         entry_name, offset, count, data_.size());
  }
  return data_.subspan(offset, count);
}

const ModelFile::Entry& ModelFile::tensor(const std::string& name,
                                          const std::vector<std::int64_t>& shape) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    fail("{}: tensor '{}' is missing, expected with shape {}", name_, name, shape_text(shape));
  if (found->second.shape != shape) {
    fail("{}: tensor '{}' has shape {}, expected {}", name_, name, shape_text(found->second.shape),
         shape_text(shape));
  }
  const Entry& entry = found->second;
  // The product does not overflow: models/network_description.cpp bounds the sizes that the
  // expected shape is made of.
  const std::size_t bytes = static_cast<std::size_t>(shape[0]) *
                            static_cast<std::size_t>(shape.size() == 2 ? shape[1] : 1) *
                            size_of(entry.dtype);
  if (entry.data.size() != bytes) {
    fail("{}: tensor '{}' has {} bytes, expected {} of shape {} in {}", name_, name,
         entry.data.size(), bytes, shape_text(shape), xlate::name_of(entry.dtype));
  }
  return entry;
}

StoredTensor ModelFile::matrix(const std::string& name, std::int64_t rows,
                               std::int64_t columns) const {
  const Entry& entry = tensor(name, {rows, columns});
  StoredTensor stored{entry.dtype, rows, columns, entry.data.data(), nullptr};
  if (entry.dtype != DType::kInt8) return stored;
  const Entry& scale = tensor(name + ".scale", {rows});
  if (scale.dtype != DType::kFloat32)
    fail("{}: tensor '{}.scale' has dtype {}, expected float32", name_, name,
         xlate::name_of(scale.dtype));
  stored.scale = reinterpret_cast<const float*>(scale.data.data());
  return stored;
}

StoredTensor ModelFile::vector(const std::string& name, std::int64_t size) const {
  const Entry& entry = tensor(name, {size});
  if (entry.dtype == DType::kInt8)
    fail("{}: tensor '{}' has dtype int8, expected a float type for a vector", name_, name);
  return {entry.dtype, 1, size, entry.data.data(), nullptr};
}

std::string_view ModelFile::file(const std::string& name) const {
  const auto found = files_.find(name);
  if (found == files_.end()) fail("{}: file '{}' is missing", name_, name);
  return found->second;
}

}  // namespace xlate
