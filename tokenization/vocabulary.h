// Looks up the pieces of a vocabulary by id, and ids by piece, in a model file's .pieces table
// (docs/model-format.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace xlate {

/// Holds one vocabulary. Const functions may be called from several threads at once.
class Vocabulary {
 public:
  /// Says whether ids can be looked up by piece, which takes more memory.
  enum class Lookup { kByIdOnly, kBothWays };
  /// Reads a table of `size` entries. `name` names it in messages. The pieces point into `table`,
  /// which must outlive the object. Throws Error if the table has another number of entries or is
  /// cut short.
  Vocabulary(std::string_view table, std::int64_t size, Lookup, const std::string& name);

  /// Returns the id of a piece, or nothing if it has none. Needs kBothWays. Of equal pieces the
  /// first one counts, unless prefer() named another.
  std::optional<std::int32_t> id_of(std::string_view piece) const;
  /// Makes id_of() return this id, which has a piece, for all equal pieces.
  void prefer(std::int32_t id) { ids_.insert_or_assign(piece_of(id), id); }
  /// Returns the piece of an id from 0 to size() − 1, or an empty text if the id has none.
  std::string_view piece_of(std::int32_t id) const { return pieces_[static_cast<std::size_t>(id)]; }
  /// Returns the number of ids, with and without pieces.
  std::int64_t size() const { return static_cast<std::int64_t>(pieces_.size()); }

 private:
  std::vector<std::string_view> pieces_;
  std::unordered_map<std::string_view, std::int32_t> ids_;
};

}  // namespace xlate
