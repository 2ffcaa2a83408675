// The pieces of a vocabulary by id, and ids by piece: a model file's .pieces table
// (docs/model-format.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace xlate {

class Vocabulary {
 public:
  enum class Lookup { kByIdOnly, kBothWays };
  /// Reads a table of `size` entries; `name` names it in errors. Pieces point into `table`, which
  /// must outlive the object. Throws Error where the table has another number of entries or is cut.
  Vocabulary(std::string_view table, std::int64_t size, Lookup, const std::string& name);

  /// Needs kBothWays. Of equal pieces the first, unless another was preferred.
  std::optional<std::int32_t> id_of(std::string_view piece) const;
  /// Lets this id, which has a piece, be the one of all equal pieces.
  void prefer(std::int32_t id) { ids_.insert_or_assign(piece_of(id), id); }
  /// Empty where no piece has the id.
  std::string_view piece_of(std::int32_t id) const { return pieces_[static_cast<std::size_t>(id)]; }
  std::int64_t size() const { return static_cast<std::int64_t>(pieces_.size()); }

 private:
  std::vector<std::string_view> pieces_;
  std::unordered_map<std::string_view, std::int32_t> ids_;
};

}  // namespace xlate
