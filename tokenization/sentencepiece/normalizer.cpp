// Normalizes text as SentencePiece's Normalizer::Normalize does.
#include "tokenization/sentencepiece/normalizer.h"

#include <algorithm>

#include "tokenization/growth_limit.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

Trie user_defined_pieces(const SentencePieceModel& model) {
  std::vector<Trie::Key> keys;
  for (const auto& piece : model.pieces) {
    if (piece.type == SentencePieceModel::Type::kUserDefined) keys.push_back({piece.text, 0});
  }
  return Trie(std::move(keys));
}

}  // namespace

Normalizer::Normalizer(const SentencePieceModel& model, const std::string& name)
    : Normalizer(model.normalization, name) {
  user_defined_ = user_defined_pieces(model);
}

Charsmap::Rule Normalizer::first_replacement(std::string_view text) const {
  if (const std::size_t length = user_defined_.longest_prefix(text); length > 0)
    return {text.substr(0, length), length};
  if (!charsmap_.empty()) {
    if (const Charsmap::Rule rule = charsmap_.longest_rule(text); rule.bytes > 0) return rule;
  }
  const std::size_t length = character_bytes(text);
  return {text.substr(0, length), length};
}

std::string Normalizer::normalize(std::string_view text) const {
  const std::string_view blank = rules_.escape_whitespaces ? kMark : " ";
  std::string out;
  const GrowthLimit limit(text.size(), name_);
  if (rules_.remove_extra_whitespaces) {
    while (!text.empty()) {
      const Charsmap::Rule step = first_replacement(text);
      if (step.text != " ") break;
      text.remove_prefix(step.bytes);
    }
  }
  if (text.empty()) return out;
  out.reserve(text.size() + text.size() / 2 + kMark.size());
  if (rules_.add_dummy_prefix && !rules_.whitespace_as_suffix) out += blank;
  for (bool after_blank = rules_.remove_extra_whitespaces; !text.empty();) {
    Charsmap::Rule step = first_replacement(text);
    text.remove_prefix(step.bytes);
    if (after_blank)
      step.text.remove_prefix(std::min(step.text.find_first_not_of(' '), step.text.size()));
    if (step.text.empty()) continue;
    limit.check(out.size() + step.text.size());
    for (const char c : step.text) {
      if (c == ' ')
        out += blank;
      else
        out += c;
    }
    after_blank = rules_.remove_extra_whitespaces && step.text.ends_with(' ');
  }
  if (rules_.remove_extra_whitespaces) {
    while (out.ends_with(blank)) out.resize(out.size() - blank.size());
  }
  if (rules_.add_dummy_prefix && rules_.whitespace_as_suffix) out += blank;
  return out;
}

}  // namespace xlate
