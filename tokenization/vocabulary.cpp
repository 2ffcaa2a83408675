// Reads the table of a vocabulary.
#include "tokenization/vocabulary.h"

#include <cstring>

#include "engine/error.h"

namespace xlate {

Vocabulary::Vocabulary(std::string_view table, std::int64_t size, Lookup lookup,
                       const std::string& name) {
  constexpr std::uint32_t kNoPiece = 0xFFFFFFFF;
  pieces_.reserve(static_cast<std::size_t>(
      std::min<std::int64_t>(size, static_cast<std::int64_t>(table.size() / 4))));
  if (lookup == Lookup::kBothWays) ids_.reserve(pieces_.capacity());
  while (!table.empty()) {
    std::uint32_t length = 0;
    if (table.size() < sizeof(length)) fail("{}: entry {} is cut short", name, pieces_.size());
    std::memcpy(&length, table.data(), sizeof(length));
    table.remove_prefix(sizeof(length));
    if (length == kNoPiece) {
      pieces_.emplace_back();
    } else {
      if (length > table.size())
        fail("{}: entry {} has {} bytes, expected at most {}", name, pieces_.size(), length,
             table.size());
      const std::string_view piece = table.substr(0, length);
      table.remove_prefix(length);
      if (lookup == Lookup::kBothWays)
        ids_.emplace(piece, static_cast<std::int32_t>(pieces_.size()));
      pieces_.push_back(piece);
    }
    if (static_cast<std::int64_t>(pieces_.size()) > size) break;
  }
  if (this->size() > size)
    fail("{}: more than {} entries, expected {} as the embedding has rows", name, size, size);
  if (this->size() < size)
    fail("{}: {} entries, expected {} as the embedding has rows", name, this->size(), size);
}

std::optional<std::int32_t> Vocabulary::id_of(std::string_view piece) const {
  const auto found = ids_.find(piece);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace xlate
