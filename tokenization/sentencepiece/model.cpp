// Decodes the protocol buffer of a SentencePiece model. The field numbers are those of
// sentencepiece_model.proto.
#include "tokenization/sentencepiece/model.h"

#include <cstring>
#include <optional>
#include <unordered_set>

#include "engine/error.h"
#include "tokenization/byte_piece.h"

namespace xlate {
namespace {

// Reads one message of a protocol buffer, field by field
// (protobuf.dev/programming-guides/encoding). Throws Error if the message is cut short or has a
// malformed field.
class Fields {
 public:
  Fields(std::string_view message, const std::string& name) : rest_(message), name_(name) {}

  // Moves to the next field. Returns false at the end.
  bool next() {
    if (rest_.empty()) return false;
    const std::string_view from = rest_;
    const std::uint64_t key = varint();
    field_ = key >> 3;
    number_ = 0, bytes_ = {};
    switch (key & 7) {
      case 0:
        number_ = varint();
        break;
      case 1:
        bytes_ = take(8);
        break;
      case 2:
        bytes_ = take(varint());
        break;
      case 5:
        bytes_ = take(4);
        break;
      default:
        fail("{}: not a SentencePiece model: field {} has wire type {}", name_, field_, key & 7);
    }
    whole_ = from.substr(0, from.size() - rest_.size());
    return true;
  }
  // These are the number of the present field and its value, which is a number or bytes.
  std::uint64_t field() const { return field_; }
  std::uint64_t number() const { return number_; }
  std::string_view bytes() const { return bytes_; }
  // These are the bytes of the field with its key.
  std::string_view whole() const { return whole_; }
  float real() const {
    float value = 0;
    if (bytes_.size() != sizeof(value))
      fail("{}: not a SentencePiece model: a score has {} bytes, expected 4", name_, bytes_.size());
    std::memcpy(&value, bytes_.data(), sizeof(value));
    return value;
  }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1).front());
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail("{}: not a SentencePiece model: a number has more than ten bytes", name_);
  }
  std::string_view take(std::uint64_t count) {
    if (count > rest_.size()) fail("{}: not a SentencePiece model: it is cut short", name_);
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  std::string_view rest_;
  const std::string& name_;
  std::uint64_t field_ = 0, number_ = 0;
  std::string_view bytes_, whole_;
};

// Returns a number as a value of an enumeration that counts from 1 to `last`. Throws Error for any
// other number.
template <class Choice>
Choice choice(std::uint64_t number, Choice last, const char* what, const std::string& name) {
  if (number < 1 || number > static_cast<std::uint64_t>(last)) {
    fail("{}: {} is {}, expected a number from 1 to {}", name, what, number,
         static_cast<int>(last));
  }
  return static_cast<Choice>(number);
}

SentencePieceModel::Piece read_piece(std::string_view message, const std::string& name) {
  SentencePieceModel::Piece piece;
  for (Fields fields(message, name); fields.next();) {
    if (fields.field() == 1) piece.text = fields.bytes();
    if (fields.field() == 2) piece.score = fields.real();
    if (fields.field() == 3)
      piece.type = choice(fields.number(), SentencePieceModel::Type::kByte, "a piece's type", name);
  }
  if (piece.type == SentencePieceModel::Type::kByte && byte_of_piece(piece.text) < 0)
    fail("{}: the byte piece '{}', expected <0x00> to <0xFF>", name, piece.text);
  return piece;
}

void read_training(std::string_view message, const std::string& name, SentencePieceModel& model) {
  for (Fields fields(message, name); fields.next();) {
    if (fields.field() == 3)
      model.algorithm =
          choice(fields.number(), SentencePieceModel::Algorithm::kChar, "the model's type", name);
    if (fields.field() == 24) model.normalization.whitespace_as_suffix = fields.number() != 0;
    if (fields.field() == 35) model.byte_fallback = fields.number() != 0;
    if (fields.field() == 44) model.unknown_surface = fields.bytes();
  }
}

void read_normalization(std::string_view message, const std::string& name,
                        SentencePieceModel::Normalization& normalization) {
  for (Fields fields(message, name); fields.next();) {
    if (fields.field() == 2) normalization.charsmap = fields.bytes();
    if (fields.field() == 3) normalization.add_dummy_prefix = fields.number() != 0;
    if (fields.field() == 4) normalization.remove_extra_whitespaces = fields.number() != 0;
    if (fields.field() == 5) normalization.escape_whitespaces = fields.number() != 0;
  }
}

}  // namespace

SentencePieceModel SentencePieceModel::read(std::string_view bytes, const std::string& name) {
  SentencePieceModel model;
  std::unordered_set<std::string_view> seen;
  for (Fields fields(bytes, name); fields.next();) {
    if (fields.field() == 1) {
      const Piece piece = read_piece(fields.bytes(), name);
      if (piece.text.empty()) fail("{}: piece {} is empty", name, model.pieces.size());
      if (!seen.insert(piece.text).second)
        fail("{}: piece {}, '{}', is there twice", name, model.pieces.size(), piece.text);
      if (piece.type == Type::kUnknown) {
        if (model.unknown >= 0)
          fail("{}: the pieces {} and {} both stand for what is unknown", name, model.unknown,
               model.pieces.size());
        model.unknown = static_cast<std::int32_t>(model.pieces.size());
      }
      model.pieces.push_back(piece);
    }
    if (fields.field() == 2) read_training(fields.bytes(), name, model);
    if (fields.field() == 3) read_normalization(fields.bytes(), name, model.normalization);
    if (fields.field() == 5) read_normalization(fields.bytes(), name, model.denormalization);
  }
  if (model.unknown < 0)
    fail("{}: not a SentencePiece model: {} pieces, none for what is unknown", name,
         model.pieces.size());
  return model;
}

std::string SentencePieceModel::without_normalization(std::string_view bytes,
                                                      const std::string& name) {
  std::string result;
  for (Fields fields(bytes, name); fields.next();) {
    // These are the pieces and the settings of the training. The other fields are normalization,
    // denormalization and sentences with which the library tests both.
    if (fields.field() <= 2) result += fields.whole();
  }
  // No dummy prefix is added, no spaces are removed, and none becomes a mark.
  constexpr std::string_view kNothing("\x1A\x06\x18\0\x20\0\x28\0", 8);
  return result.append(kNothing);
}

}  // namespace xlate
