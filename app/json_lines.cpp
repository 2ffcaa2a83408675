// Implements the reading and writing of lines of JSON.
#include "app/json_lines.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>

#include "tokenization/text_edits.h"

namespace xlate {
namespace {

// Returns the last member with this key, or null.
const JsonMember* find_member(const std::vector<JsonMember>& members, std::string_view key) {
  const auto found = std::find_if(members.rbegin(), members.rend(),
                                  [&](const JsonMember& member) { return member.key == key; });
  return found == members.rend() ? nullptr : &*found;
}

[[noreturn]] void refuse(const JsonMember& member, std::string_view expected) {
  const std::string shown = brief_text(member.value);
  fail("'{}': {}{}, expected {}", brief_text(member.key), shown,
       shown.size() < member.value.size() ? "…" : "", expected);
}

std::optional<std::string> read_text(const std::vector<JsonMember>& members, std::string_view key) {
  const JsonMember* member = find_member(members, key);
  if (!member) return std::nullopt;
  auto text = json_string(member->value);
  if (!text) refuse(*member, "a string");
  return text;
}

std::optional<std::int32_t> read_count(const std::vector<JsonMember>& members,
                                       std::string_view key) {
  const JsonMember* member = find_member(members, key);
  if (!member) return std::nullopt;
  const char *begin = member->value.data(), *end = begin + member->value.size();
  std::int32_t number = 0;
  const auto [rest, error] = std::from_chars(begin, end, number);
  if (error != std::errc() || rest != end || number < 1 || number > kLargestCount)
    refuse(*member, fmt::format("a whole number from 1 to {}", kLargestCount));
  return number;
}

// Returns a message of a conversation, whose number counts from 1. Other keys than these two would
// change what it means.
ChatMessage read_message(const nlohmann::json& value, std::size_t number) {
  const auto wrong = [&](std::string_view what) {
    fail(
        "'messages': message {} {}, expected an object with the strings 'role' and 'content' alone",
        number, what);
  };
  if (!value.is_object()) wrong("is no object");
  for (const char* key : {"role", "content"}) {
    const auto found = value.find(key);
    if (found == value.end()) wrong(fmt::format("has no '{}'", key));
    if (!found->is_string()) wrong(fmt::format("has a '{}' that is no string", key));
  }
  for (const auto& [key, _] : value.items()) {
    if (key != "role" && key != "content") wrong(fmt::format("has '{}'", brief_text(key)));
  }
  return {.role = value["role"], .content = value["content"]};
}

std::vector<ChatMessage> read_messages(const JsonMember& member) {
  // The text of an object has been checked, so that a number beyond all bounds is the only error.
  const auto list = nlohmann::json::parse(member.value, nullptr, false);
  if (list.is_discarded()) refuse(member, "numbers that a computer can hold");
  if (!list.is_array() || list.empty()) refuse(member, "a list of messages");
  std::vector<ChatMessage> messages;
  for (const nlohmann::json& value : list)
    messages.push_back(read_message(value, messages.size() + 1));
  return messages;
}

bool is_written_by_xlate(std::string_view key, const JsonShape& shape) {
  return key == "output" || key == "score" || key == "tokens" || key == "error" ||
         (shape.alignments && key == "alignments") || (shape.token_scores && key == "token_scores");
}

// Appends a key, behind a comma unless it is the first one of its object.
void append_key(std::string& out, std::string_view key) {
  if (!out.ends_with('{')) out += ", ";
  fmt::format_to(std::back_inserter(out), "\"{}\": ", key);
}

void append_score(std::string& out, double score, std::int64_t tokens) {
  append_key(out, "score");
  // A length penalty can make a score infinite, which JSON has no number for.
  if (std::isfinite(score))
    fmt::format_to(std::back_inserter(out), "{:.6g}", score);
  else
    out += "null";
  append_key(out, "tokens");
  fmt::format_to(std::back_inserter(out), "{}", tokens);
}

// Appends a list, whose entries `write` appends.
template <class T, class Write>
void append_list(std::string& out, const char* key, const std::vector<T>& values,
                 const Write& write) {
  append_key(out, key);
  out += '[';
  for (const T& value : values) {
    if (&value != values.data()) out += ", ";
    write(value);
  }
  out += ']';
}

void append_result(std::string& out, const LineResult& result, const JsonShape& shape) {
  const auto end = std::back_inserter(out);
  append_key(out, "output");
  append_json_string(out, result.text);
  append_score(out, result.score, result.tokens);
  if (shape.alignments) {
    append_list(out, "alignments", result.alignments, [&](const TokenPair& pair) {
      fmt::format_to(end, "[{}, {}]", pair.source, pair.target);
    });
  }
  if (shape.token_scores) {
    append_list(out, "token_scores", result.token_scores,
                [&](float score) { fmt::format_to(end, "{:.6g}", score); });
  }
}

}  // namespace

JsonRequest read_request(const std::vector<JsonMember>& members, const JsonKeys& keys) {
  const JsonMember* messages = keys.messages ? find_member(members, "messages") : nullptr;
  auto text = messages ? std::string() : read_text(members, keys.text);
  if (!text) {
    const bool ignored = !keys.messages && find_member(members, "messages");
    fail("an object without the key '{}' (--text-key names another){}", brief_text(keys.text),
         ignored         ? "; 'messages' needs --chat"
         : keys.messages ? ", and without 'messages'"
                         : "");
  }
  auto target = keys.target ? read_text(members, "target") : std::string();
  if (!target) fail("an object without the key 'target' (--score-pairs)");
  return {.text = std::move(*text),
          .messages = messages ? read_messages(*messages) : std::vector<ChatMessage>(),
          .source_lang = read_text(members, "source_lang"),
          .target_lang = read_text(members, "target_lang"),
          .max_new_tokens = read_count(members, "max_new_tokens"),
          .target = std::move(*target)};
}

JsonShape json_shape_of(const Options& options) {
  return {.list = options.has_rows(),
          .alignments = options.alignments,
          .token_scores = options.token_scores};
}

std::string own_fields(const std::vector<JsonMember>& members, const JsonShape& shape) {
  std::string fields = "{";
  const char* end = nullptr;  // the end of the member before
  for (const JsonMember& member : members) {
    const char* member_end = member.text.data() + member.text.size();
    if (!is_written_by_xlate(member.key, shape)) {
      // The text between two members is kept, too.
      const char* begin = fields.size() > 1 ? end : member.text.data();
      fields.append(begin, member_end);
    }
    end = member_end;
  }
  return fields;
}

std::string json_line(std::string fields, std::span<const LineResult> results,
                      const JsonShape& shape) {
  if (!shape.list) {
    append_result(fields, results.front(), shape);
  } else {
    append_key(fields, "output");
    fields += '[';
    for (const LineResult& result : results) {
      if (&result != results.data()) fields += ", ";
      fields += '{';
      append_result(fields, result, shape);
      fields += '}';
    }
    fields += ']';
  }
  return fields += "}\n";
}

std::string json_score_line(std::string fields, double score, std::int64_t tokens) {
  append_score(fields, score, tokens);
  return fields += "}\n";
}

std::string json_error_line(std::string fields, std::string_view error) {
  append_key(fields, "error");
  append_json_string(fields, error);
  return fields += "}\n";
}

}  // namespace xlate
