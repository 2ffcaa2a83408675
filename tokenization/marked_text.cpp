// Puts a line between the texts of a template.
#include "tokenization/marked_text.h"

#include "tokenization/utf8.h"

namespace xlate {

MarkedText TextFrame::around(std::string_view line) const {
  if (trims_start) line = without_leading_space(line);
  if (trims_end) line = without_trailing_space(line);
  MarkedText result{.text = {}, .special = {}, .complete = complete};
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (i > 0) result.text += contents[i - 1] ? std::string_view(*contents[i - 1]) : line;
    if (texts[i].empty()) continue;
    result.special.push_back({result.text.size(), result.text.size() + texts[i].size()});
    result.text += texts[i];
  }
  return result;
}

}  // namespace xlate
