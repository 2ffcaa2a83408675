// Puts the tags of a line into its translation.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "tokenization/atom_alignment.h"
#include "tokenization/markup.h"

namespace xlate {

/// Returns a translation with the tags of its source around the words that are aligned with those
/// they stood around there. `markup` is what read_markup() has made of `line`, `links` say what of
/// the translation is aligned with what of the markup's text, and of that text the bytes before
/// `read` were translated. docs/markup.md has the rules. The result has each tag once, and its tags
/// are nested as those of the line are.
std::string with_markup(const Markup& markup, std::string_view line, std::string_view translation,
                        std::span<const TextLink> links, std::size_t read);

}  // namespace xlate
