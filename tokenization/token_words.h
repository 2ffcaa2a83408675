// Finds the words that tokens belong to. Words are what stands between spaces (U+0020), and are
// numbered from 0.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "tokenization/text_codec.h"
#include "tokenization/text_range.h"
#include "tokenization/vocabulary.h"

namespace xlate {

/// Returns the number of words in a text.
std::int32_t count_words(std::string_view text);

/// Returns the word of each of the ids that the codec gives a line. Each word is tokenized by
/// itself. Where its ids are not those of the line, the pieces that begin with the mark of a space
/// begin the words.
std::vector<std::int32_t> words_of_source(std::string_view line, std::span<const std::int32_t> ids,
                                          const TextCodec&, const Vocabulary&);

/// Returns the bytes of the line that each of these ids stands for, as Tokenizer::source_ranges()
/// does.
std::vector<TextRange> ranges_of_source(std::string_view line, std::span<const std::int32_t> ids,
                                        const TextCodec&, const Vocabulary&);

}  // namespace xlate
