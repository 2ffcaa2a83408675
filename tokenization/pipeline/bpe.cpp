// Makes symbols of words, and merges them.
#include "tokenization/pipeline/bpe.h"

#include <algorithm>
#include <cstring>

#include "engine/error.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

std::int32_t number_at(std::string_view bytes, std::size_t place) {
  std::int32_t number = 0;
  std::memcpy(&number, bytes.data() + place * sizeof(number), sizeof(number));
  return number;
}

}  // namespace

Bpe::Bpe(const SegmentModel& settings, const Pieces& pieces, std::string_view merges,
         bool byte_level, const std::string& name)
    : settings_(settings), pieces_(pieces), byte_level_(byte_level) {
  constexpr std::size_t kMergeBytes = 3 * sizeof(std::int32_t);
  if (merges.size() % kMergeBytes != 0)
    fail("{}: merges has {} bytes, expected a multiple of {}", name, merges.size(), kMergeBytes);
  const std::size_t count = merges.size() / kMergeBytes;
  merges_ = PairMerges(count);
  for (std::size_t rank = 0; rank < count; ++rank) {
    std::array<std::int32_t, 3> ids{};
    for (std::size_t i = 0; i < ids.size(); ++i) {
      ids[i] = number_at(merges, 3 * rank + i);
      if (ids[i] < 0 || ids[i] >= pieces.size())
        fail("{}: merge {} names the id {}, expected one below {}", name, rank, ids[i],
             pieces.size());
    }
    // A merge that would make a special token does not count.
    if (pieces.is_text(ids[2]))
      merges_.add(ids[0], ids[1], static_cast<std::uint32_t>(rank), ids[2]);
  }
  for (unsigned byte = 0; byte < 256; ++byte) {
    const auto character = static_cast<char>(byte);
    bytes_[byte] = byte_level ? pieces.id_of(byte_level_letters({&character, 1}))
                              : pieces.id_of_byte(static_cast<unsigned char>(byte));
  }
  if (!settings.whole_words) return;
  for (std::int32_t id = 0; id < pieces.size(); ++id) {
    if (!pieces.is_text(id) || pieces.piece_of(id).empty()) continue;
    std::string text;
    if (byte_level)
      append_bytes_of(pieces.piece_of(id), text);
    else
      text = pieces.piece_of(id);
    whole_words_.emplace(std::move(text), id);
  }
}

// Appends the pieces that a word begins as. An unknown id comes only before the next character that
// has a piece, or at the end, also where bytes of other characters are in between: so does the
// library.
void Bpe::append_symbols(std::string_view word, std::vector<std::int32_t>& symbols) const {
  bool unknown_waits = false;
  const auto end_unknown = [&] {
    if (unknown_waits) symbols.push_back(settings_.unknown);
    unknown_waits = false;
  };
  const auto id_of_byte = [&](char byte) { return bytes_[static_cast<unsigned char>(byte)]; };
  for (std::size_t at = 0; at < word.size();) {
    const std::size_t bytes = byte_level_ ? 1 : character_bytes(word.substr(at));
    const std::string_view character = word.substr(at, bytes);
    at += bytes;
    const std::int32_t id = byte_level_ ? id_of_byte(character[0]) : pieces_.id_of(character);
    if (id >= 0) {
      end_unknown();
      symbols.push_back(id);
    } else if (settings_.byte_fallback &&
               std::all_of(character.begin(), character.end(),
                           [&](char byte) { return id_of_byte(byte) >= 0; })) {
      for (const char byte : character) symbols.push_back(id_of_byte(byte));
    } else if (settings_.unknown >= 0) {
      if (!settings_.fuse_unknown) end_unknown();
      unknown_waits = true;
    }
  }
  end_unknown();
}

void Bpe::segment(std::string_view word, std::vector<std::int32_t>& ids) const {
  if (settings_.whole_words) {
    if (const auto found = whole_words_.find(std::string(word)); found != whole_words_.end()) {
      ids.push_back(found->second);
      return;
    }
  }
  const std::size_t first = ids.size();
  append_symbols(word, ids);
  merges_.merge(ids, first);
}

}  // namespace xlate
