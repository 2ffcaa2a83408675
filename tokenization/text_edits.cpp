// Replaces characters in place.
#include "tokenization/text_edits.h"

#include <algorithm>

#include "tokenization/utf8.h"

namespace xlate {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  std::size_t next = text.find(from);
  if (next == std::string::npos) return;
  std::string out;
  std::size_t at = 0;
  for (; next != std::string::npos; next = text.find(from, at)) {
    out.append(text, at, next - at).append(to);
    at = next + from.size();
  }
  text = std::move(out.append(text, at, std::string::npos));
}

std::size_t bytes_replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::size_t bytes = text.size();
  for (std::size_t at = text.find(from); at != std::string_view::npos;
       at = text.find(from, at + from.size()))
    bytes += to.size() - from.size();
  return bytes;
}

std::string brief_text(std::string_view text) {
  constexpr std::size_t kMost = 40;
  if (text.size() <= kMost) return std::string(text);
  return std::string(without_cut_character(text.substr(0, kMost)));
}

void keep_on_one_line(std::string& text, std::string_view newline) {
  std::replace(text.begin(), text.end(), '\r', ' ');
  if (newline == " ")
    std::replace(text.begin(), text.end(), '\n', ' ');
  else if (newline != "\n")
    replace_all(text, "\n", newline);
}

void end_before(std::string& text, std::size_t begin, std::span<const std::string> stops) {
  for (const std::string& stop : stops) text.resize(std::min(text.size(), text.find(stop, begin)));
}

void clean_up(std::string& text) {
  for (const std::string_view mark : {".", "?", "!", ","})
    replace_all(text, " " + std::string(mark), mark);
  replace_all(text, " ' ", "'");
  for (const std::string_view ending : {"n't", "'m", "'s", "'ve", "'re"})
    replace_all(text, " " + std::string(ending), ending);
}

}  // namespace xlate
