// Changes text in ways that do not depend on the tokenizer.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace xlate {

/// Replaces every `from`, which is not empty, by `to`, from left to right.
void replace_all(std::string& text, std::string_view from, std::string_view to);

/// Returns how many bytes a text has after replace_all().
std::size_t bytes_replaced(std::string_view text, std::string_view from, std::string_view to);

/// Returns at most the first 40 bytes of a text in valid UTF-8, for a message. No character is cut.
std::string brief_text(std::string_view text);

/// Turns line breaks into spaces, or each newline into another text, so that each line of input
/// gives one line of output. Newlines stay if that text is a newline.
void keep_on_one_line(std::string& text, std::string_view newline = " ");

/// Ends a text before the first place from `begin` on where one of the stops begins.
void end_before(std::string& text, std::size_t begin, std::span<const std::string> stops);

/// Takes spaces out of English text as Hugging Face's clean_up_tokenization does, in the same
/// order.
void clean_up(std::string& text);

}  // namespace xlate
