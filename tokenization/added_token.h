// Describes a token that a tokenizer has beside its model's pieces.
#pragma once

#include <cstdint>

namespace xlate {

/// Describes an added token, with the flags of Hugging Face's AddedToken.
struct AddedToken {
  // The source vocabulary has the token's text under this id.
  std::int32_t id = 0;
  // The white space before the token is dropped (lstrip).
  bool strips_left = false;
  // The white space behind the token is dropped (rstrip).
  bool strips_right = false;
  // The token counts only as a word of its own.
  bool single_word = false;
  // The token is looked for in normalized text. Only pipelines have this flag.
  bool normalized = false;
  // The token is of the kind of </s>: it is plain text in a line, and no text in the output.
  bool special = false;
  // The chat template marks turns with the token. It is plain text in a line like a special token,
  // and text in the output like others. Only pipelines have this flag.
  bool marks_turn = false;
};

}  // namespace xlate
