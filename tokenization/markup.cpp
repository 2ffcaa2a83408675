// Implements the reading of lines of HTML.
#include "tokenization/markup.h"

#include <algorithm>
#include <unordered_map>

#include "tokenization/tag_syntax.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

// Finds the partners of tags. A start tag whose element has ended without an end tag of its own
// has no partner.
class Partners {
 public:
  void start(const std::string& name, std::int32_t tag) {
    std::vector<std::int32_t>& names = open_by_name_[name];
    open_.push_back({tag, &names});
    names.push_back(static_cast<std::int32_t>(open_.size()) - 1);
  }
  // Returns the start tag that an end tag belongs to, or −1.
  std::int32_t end(const std::string& name) {
    const auto found = open_by_name_.find(name);
    if (found == open_by_name_.end() || found->second.empty()) return -1;
    const auto place = static_cast<std::size_t>(found->second.back());
    const std::int32_t tag = open_[place].tag;
    while (open_.size() > place) {
      open_.back().same_name->pop_back();
      open_.pop_back();
    }
    return tag;
  }

 private:
  struct Open {
    std::int32_t tag;
    std::vector<std::int32_t>* same_name;  // the places in open_ of the tags with this name
  };
  std::vector<Open> open_;
  std::unordered_map<std::string, std::vector<std::int32_t>> open_by_name_;
};

class Reader {
 public:
  explicit Reader(std::string_view line) : line_(line), tags_(line) {}

  Markup read() {
    for (std::size_t place = 0; place < line_.size();) {
      const std::size_t next = std::min(line_.find_first_of("<&>\xC2", place), line_.size());
      add_text(line_.substr(place, next - place));
      place = next < line_.size() ? next + add_special(next) : next;
    }
    return std::move(markup_);
  }

 private:
  // Reads what begins with `<`, `&`, `>`, or with the first byte of a no-break space. Returns its
  // bytes.
  std::size_t add_special(std::size_t place) {
    const std::string_view rest = line_.substr(place);
    if (const auto reference = read_reference(rest)) {
      markup_.style.see_reference(reference->character);
      add_text(reference->character);
      return reference->bytes;
    }
    const TagSyntax syntax =
        rest.front() == '<' ? tags_.read(place) : TagSyntax{.bytes = character_bytes(rest)};
    if (syntax.kind != TagSyntax::Kind::kText) {
      add_tag(place, syntax);
      return syntax.bytes;
    }
    add_malformed(rest.substr(0, syntax.bytes));
    return syntax.bytes;
  }

  // Adds a character, or malformed markup, which may have references, and characters that are
  // markup elsewhere.
  void add_malformed(std::string_view text) {
    for (std::size_t place = 0, next = 0; place < text.size(); place = next) {
      if (const auto reference = read_reference(text.substr(place))) {
        markup_.style.see_reference(reference->character);
        add_text(reference->character);
        next = place + reference->bytes;
        continue;
      }
      next = std::min(text.find('&', place + 1), text.size());
      for (std::size_t i = place; i < next; ++i) markup_.style.see_written(text.substr(i));
      add_text(text.substr(place, next - place));
    }
  }

  void add_text(std::string_view text) {
    if (text.empty()) return;
    const bool space = white_space_at_start(text) > 0;
    if (behind_tag_) {
      markup_.tags.back().space_after = space;
      if (separated_ && !space && !markup_.text.empty() && white_space_at_end(markup_.text) == 0)
        separate();
    }
    markup_.text += text;
    behind_tag_ = separated_ = false;
    cluster_ = markup_.tags.size();
  }

  // Puts a space between the text before the present run of tags and the text behind it.
  void separate() {
    for (std::size_t i = cluster_; i < markup_.tags.size(); ++i)
      markup_.tags[i].space_added = markup_.tags[i].separates;
    markup_.text += ' ';
  }

  void add_tag(std::size_t place, const TagSyntax& syntax) {
    MarkupTag tag{.bytes = {place, place + syntax.bytes}, .at = markup_.text.size()};
    tag.separates = separates_words(syntax.name);
    tag.space_before = !behind_tag_ && white_space_at_end(markup_.text) > 0;
    const auto number = static_cast<std::int32_t>(markup_.tags.size());
    if (syntax.kind == TagSyntax::Kind::kStart) {
      tag.kind = MarkupTag::Kind::kStart;
      partners_.start(syntax.name, number);
    } else if (syntax.kind == TagSyntax::Kind::kEnd) {
      tag.kind = MarkupTag::Kind::kEnd;
      tag.partner = partners_.end(syntax.name);
      if (tag.partner >= 0) markup_.tags[static_cast<std::size_t>(tag.partner)].partner = number;
    }
    separated_ = separated_ || tag.separates;
    behind_tag_ = true;
    markup_.tags.push_back(tag);
  }

  const std::string_view line_;
  TagReader tags_;
  Partners partners_;
  Markup markup_;
  std::size_t cluster_ = 0;  // the first tag behind the last text
  bool behind_tag_ = false, separated_ = false;
};

}  // namespace

Markup read_markup(std::string_view line) { return Reader(line).read(); }

}  // namespace xlate
