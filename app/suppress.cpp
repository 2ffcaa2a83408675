// Looks up tokens as the format of the output writes them.
#include "app/suppress.h"

#include <algorithm>
#include <string>
#include <vector>

#include "tokenization/text_edits.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

// Returns the id of a text that the tokenizer makes one token of, or else of a piece of this name.
std::int32_t id_of_text(const std::string& text, const Tokenizer& tokenizer) {
  const std::vector<std::int32_t> ids = tokenizer.encode_target(text);
  const bool is_token = ids.size() == 1 && ids.front() != tokenizer.target_unknown();
  if (is_token) return ids.front();
  if (const auto piece = tokenizer.target_id_of(text)) return *piece;
  if (ids.size() == 1) {
    throw UsageError(fmt::format(
        "--suppress: '{}', expected a token of the model, which knows no such text (--suppress-unk "
        "suppresses its token for all such text)",
        brief_text(text)));
  }
  throw UsageError(fmt::format(
      "--suppress: '{}', expected one token: it is {} tokens, {}", brief_text(text), ids.size(),
      ids.empty() ? "because nothing is left of it" : tokenizer.decode_pieces(ids)));
}

std::int32_t id_of_piece(const std::string& piece, const Tokenizer& tokenizer) {
  const auto id = tokenizer.target_id_of(piece);
  if (!id) {
    throw UsageError(fmt::format(
        "--suppress: '{}', expected a piece of the target vocabulary (--output-format pieces)",
        brief_text(piece)));
  }
  return *id;
}

std::int32_t id_of_number(const std::string& text, const Tokenizer& tokenizer) {
  try {
    const std::vector<std::int32_t> ids = tokenizer.read_target_ids(text);
    if (ids.size() == 1) return ids.front();
  } catch (const Error& error) {
    throw UsageError(fmt::format("--suppress: {} (--output-format ids)", error.what()));
  }
  throw UsageError(fmt::format("--suppress: '{}', expected one id (--output-format ids)", text));
}

}  // namespace

bool suppresses(const Options& options) {
  return !options.suppress.empty() || options.suppress_unk;
}

void resolve_suppressed(Options& options, const ModelDescription& model,
                        const Tokenizer& tokenizer) {
  for (const std::string& text : options.suppress) {
    if (std::string copy(text); make_valid_utf8(copy))
      throw UsageError("--suppress: its text is not valid UTF-8");
    options.suppressed.push_back(is_text(options.output_format) ? id_of_text(text, tokenizer)
                                 : options.output_format == Format::kPieces
                                     ? id_of_piece(text, tokenizer)
                                     : id_of_number(text, tokenizer));
  }
  if (!options.suppress_unk) return;
  const auto unknown = tokenizer.target_unknown();
  const std::vector<std::int32_t>& ends = model.generation.ends;
  // GPT-2 and OPT name their end token as the unknown one, and make tokens of all text.
  if (!unknown || std::find(ends.begin(), ends.end(), *unknown) != ends.end()) {
    throw UsageError(
        fmt::format("--suppress-unk: cannot be used: {} has no unknown token", options.model));
  }
  options.suppressed.push_back(*unknown);
}

}  // namespace xlate
