// Reads what the objects of --input-format jsonl ask for, and writes the objects of --output-format
// jsonl.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "app/json_object.h"
#include "app/line_result.h"
#include "app/options.h"
#include "tokenization/chat.h"

namespace xlate {

/// Holds what the object of a line asks for.
struct JsonRequest {
  std::string text;
  // With --chat a conversation can take the place of the text. It is empty otherwise.
  std::vector<ChatMessage> messages;
  // They take the place of --source-lang, --target-lang and --max-new-tokens.
  std::optional<std::string> source_lang, target_lang;
  std::optional<std::int32_t> max_new_tokens;
  std::string target;  // With --score-pairs, it is scored.
};

/// Says which members of an object are read.
struct JsonKeys {
  std::string text;       // the key of the text
  bool messages = false;  // There may be `messages`, which take the place of the text.
  bool target = false;    // There is a `target`.
};

/// Returns what the members of an object ask for. The last of several members with one key counts.
/// Throws Error if one that is needed is missing, or a value has the wrong type.
JsonRequest read_request(const std::vector<JsonMember>&, const JsonKeys&);

/// Says which members the output objects have besides those that they always have.
struct JsonShape {
  bool list = false;  // `output` is a list of all results.
  bool alignments = false, token_scores = false;
};
JsonShape json_shape_of(const Options&);

/// Returns the beginning of the output object, "{" and the members as they were written, but
/// without those whose keys xlate writes itself: `output`, `score`, `tokens` and `error`, and where
/// the shape has them `alignments` and `token_scores`.
std::string own_fields(const std::vector<JsonMember>&, const JsonShape& = {});

/// Returns the output object of a line, with its newline. `fields` is its beginning. The first
/// result is written as members of the object, or, as the shape says, all results as a list.
std::string json_line(std::string fields, std::span<const LineResult>, const JsonShape&);
/// Returns the output object of a line that is scored, with its newline.
std::string json_score_line(std::string fields, double score, std::int64_t tokens);
/// Returns the output object of a line that is skipped, with its newline.
std::string json_error_line(std::string fields, std::string_view error);

/// Keeps the beginnings of the output objects while their lines are decoded. Any thread may call
/// its functions.
class LineFields {
 public:
  void put(std::int64_t line, std::string fields) {
    std::lock_guard lock(mutex_);
    fields_[line] = std::move(fields);
  }
  /// Removes and returns the fields of a line. A line without any begins an object of its own.
  std::string take(std::int64_t line) {
    std::lock_guard lock(mutex_);
    auto node = fields_.extract(line);
    return node ? std::move(node.mapped()) : std::string("{");
  }

 private:
  std::mutex mutex_;
  std::unordered_map<std::int64_t, std::string> fields_;
};

}  // namespace xlate
