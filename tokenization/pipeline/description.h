// Describes how a tokenizer of Hugging Face's tokenizers library makes ids of text, and text of
// ids, as plain data. Its five steps are to normalize a text, to split it into words, to segment
// each word by a model, to put ids around the result (the template), and to decode
// (docs/model-format.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace xlate {

/// Is a form of Unicode normalization (Unicode Standard Annex 15).
enum class UnicodeForm : std::uint8_t { kNfc, kNfd, kNfkc, kNfkd };

/// Says where a mark (U+2581) is put in front of words: always, only at the start of the line, or
/// never.
enum class Prepend : std::uint8_t { kAlways, kFirst, kNever };

/// Is a step that changes a text.
struct NormalizeStep {
  enum class Kind : std::uint8_t {
    // Replaces characters by a precompiled character map.
    kCharsmap,
    // Replaces every `text` by `with`.
    kReplace,
    // Replaces every match of the pattern `text` by `with`.
    kReplacePattern,
    // Puts `text` in front of a text that is not empty.
    kPrepend,
    // Takes the white space off the left and the right side.
    kStrip,
    kUnicode
  };
  Kind kind = Kind::kReplace;
  std::string text, with;
  bool left = false, right = false;
  UnicodeForm form = UnicodeForm::kNfc;
};

/// Is a step that splits each of the words that the step before it has left.
struct SplitStep {
  enum class Kind : std::uint8_t {
    // Splits at white space, which is dropped.
    kWhitespace,
    // Turns spaces (U+0020) into marks (U+2581), and splits in front of each mark if `splits`.
    kMetaspace,
    // Splits at the matches of `pattern`.
    kPattern,
    // Splits at digits, which stay together unless `individual`.
    kDigits,
    // Says that the model reads bytes. If `prefix_space`, a space (U+0020) is put in front of a
    // word
    // that does not begin with one. Then the word is split at the matches of `pattern`, if there is
    // one.
    kByteLevel
  };
  /// Says what becomes of a match.
  enum class Behavior : std::uint8_t {
    // The match is a word of its own.
    kIsolated,
    // The match is dropped.
    kRemoved,
    // The match is joined to what precedes or follows it.
    kMergedWithPrevious,
    kMergedWithNext,
    // Neighbouring matches are one word.
    kContiguous
  };
  Kind kind = Kind::kWhitespace;
  Prepend prepend = Prepend::kAlways;
  bool splits = true;
  std::string pattern;
  Behavior behavior = Behavior::kIsolated;
  // Takes what is between the matches for the matches.
  bool invert = false;
  bool individual = false;
  bool prefix_space = false;
};

/// Says how a word becomes pieces.
struct SegmentModel {
  enum class Kind : std::uint8_t {
    // A unigram language model (Kudo, 2018).
    kUnigram,
    // Byte pair encoding (Sennrich et al., 2016) by a list of merges.
    kBpe
  };
  Kind kind = Kind::kUnigram;
  // A character without a piece has this id. With −1 it is dropped, which only BPE allows.
  std::int32_t unknown = -1;
  // The score of such a character in a unigram model.
  double unknown_score = 0;
  // A character without a piece becomes a piece for each of its bytes (<0x00> to <0xFF>).
  bool byte_fallback = false;
  // Neighbouring unknown characters become one id. A unigram model always joins them.
  bool fuse_unknown = false;
  // A word that is a piece is not segmented, whatever the merges say.
  bool whole_words = false;
};

/// Is a step that turns the pieces of a text into the text. The steps have the names of the
/// decoders of the tokenizers library.
struct DecodeStep {
  enum class Kind : std::uint8_t {
    // Turns marks into spaces, and drops those of the first piece unless `prepend` is kNever.
    kMetaspace,
    // Turns the letters of byte-level BPE into bytes.
    kByteLevel,
    // Replaces every `text` by `with`.
    kReplace,
    // Turns byte pieces into bytes.
    kByteFallback,
    // Joins all pieces to one.
    kFuse,
    // Takes up to `left` times the character `text` off the left side of each piece, and up to
    // `right` times off the right side.
    kStrip
  };
  Kind kind = Kind::kMetaspace;
  Prepend prepend = Prepend::kAlways;
  std::string text, with;
  std::int64_t left = 0, right = 0;
};

/// Holds the four steps that are different in each tokenizer. The template is part of
/// TokenizerFiles, because every kind of tokenizer has one.
struct PipelineDescription {
  std::vector<NormalizeStep> normalize;
  std::vector<SplitStep> split;
  SegmentModel model;
  std::vector<DecodeStep> decode;
};

}  // namespace xlate
