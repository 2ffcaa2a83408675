// Defines the command line as one struct, whose fields have the names of the options. The struct
// gives the defaults, but resolve() gives those that depend on the model, resolve_device() those
// that depend on the device, and parse_command_line() that of --threads.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/error.h"
#include "engine/search_state.h"

namespace xlate {

enum class Format : std::uint8_t { kText, kPieces, kIds, kJsonl };
enum class LongLines : std::uint8_t { kTruncate, kSplit, kSkip, kError };
enum class MarkupKind : std::uint8_t { kNone, kHtml };
enum class Progress : std::uint8_t { kAuto, kAlways, kNever };

/// Returns whether lines of this format hold text, by themselves or in an object.
constexpr bool is_text(Format format) {
  return format == Format::kText || format == Format::kJsonl;
}

/// This is the largest number that an option, or a field of a line, takes as a count.
inline constexpr std::int32_t kLargestCount = std::int32_t{1} << 30;

/// Reports a mistake on the command line; the exit code is 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

struct Options {
  std::string model;
  std::vector<std::string> input{"-"};
  std::string output;  // An empty name stands for stdout.
  std::string device = "auto";
  Format input_format = Format::kText, output_format = Format::kText;
  // resolve() sets it if there is none and lines are objects.
  std::optional<std::string> text_key;
  Precision precision = Precision::kAuto;
  std::optional<int> beam_size;
  std::optional<int> beam_groups;
  std::optional<float> diversity;
  std::optional<float> length_penalty;
  std::optional<EarlyStopping> early_stopping;
  std::optional<std::int64_t> min_length, no_repeat_ngram;
  std::optional<float> repetition_penalty;
  // The tokens of these texts are never chosen. resolve_suppressed() sets `suppressed` to all ids
  // that may not be chosen because of options.
  std::vector<std::string> suppress;
  bool suppress_unk = false;
  std::vector<std::int32_t> suppressed;
  // The first two are the limits of a model with an encoder, and the third that of one without.
  // resolve() leaves those empty that the model does not have.
  std::optional<std::int64_t> max_length;
  std::optional<double> max_length_factor;
  std::optional<std::int64_t> max_new_tokens;
  // resolve() sets the largest limit that a line may have of its own, in place of max_new_tokens.
  std::int64_t most_new_tokens = 0;
  // resolve() sets how many tokens a prompt and what is generated may have together. It is 0 for a
  // model with an encoder.
  std::int64_t context = 0;
  // resolve() takes the model's number where none was given.
  std::optional<std::int64_t> max_source_length;
  bool max_source_length_given = true;
  LongLines long_lines = LongLines::kTruncate;
  // The sentences of a line are translated one by one.
  bool split_sentences = false;
  // Lines are HTML, whose text is translated.
  MarkupKind markup = MarkupKind::kNone;
  bool scores = false;
  // These are language codes of the model. A source of ids or pieces contains its language token
  // already, so that `source_lang` changes nothing there. resolve() sets those that the model has
  // by default.
  std::optional<std::string> source_lang, target_lang;
  // Each line names its languages instead.
  bool lang_column = false;
  // resolve() sets these if every object of a line must name its languages.
  bool lines_name_source = false, lines_name_target = false;
  // It is the text of a prompt around each line, with its escapes. resolve() sets it from the file.
  std::optional<std::string> template_text;
  std::string template_file;
  // Each line is a message of the user, around which the model's chat template stands.
  bool chat = false;
  // Lines are scored by themselves, or each is a source and a target, which is scored. Nothing is
  // generated.
  bool score_text = false, score_pairs = false;
  // resolve() sets the token that given targets end with, and the token that targets begin with. It
  // is −1 if there is none.
  std::int32_t target_end = -1, target_first = -1;
  // resolve() sets how many tokens a given target may have, these two included. It is used with an
  // encoder alone.
  std::int64_t longest_target = 0;
  // The prompt stands before its continuation.
  bool echo = false;
  // The text of a line ends before any of these, which resolve() makes of those with escapes.
  std::vector<std::string> stop;
  // A newline in the output becomes a space, unless this is another text.
  std::optional<std::string> newline;
  int n_best = 0;  // 0 means that --n-best is off.
  // Each line of this file is the beginning of a line's output. resolve() sets how many tokens one
  // may have.
  std::string target_prefix;
  std::int64_t longest_prefix = 0;
  // Tokens are drawn at random. resolve() sets those of the next values that the model has.
  bool sample = false;
  std::optional<float> temperature, top_p;
  std::optional<std::int32_t> top_k;
  std::optional<std::int64_t> seed;
  std::optional<int> num_samples;
  // Each token of a hypothesis has its log-probability, or its source token, printed.
  bool token_scores = false, alignments = false;
  // Layers and heads are numbered from 0. resolve() sets both with --alignments.
  std::optional<std::int64_t> alignment_layer;
  std::vector<int> alignment_heads;
  bool alignment_words = false;
  std::int64_t batch_tokens = 0;  // 0 means auto, until resolve_device().
  // resolve_device() clears this if batch_tokens was auto. The memory of the device bounds
  // batch_tokens then, too.
  bool batch_tokens_given = true;
  std::int64_t window = 0;  // 0 means the figure of the device's policy, until resolve_device().
  // This share of the free GPU memory may be taken, unless gpu_memory_bytes gives a size.
  double gpu_memory_share = 0.9;
  std::int64_t gpu_memory_bytes = 0;
  bool gpu_memory_given = false;
  // The processors that the process may use, within its quota. There are as many threads unless
  // --threads names another number.
  int processors = 1, threads = 1;
  bool line_buffered = false;
  std::string report;  // There is no report if it is empty; "-" is stderr.
  Progress progress = Progress::kAuto;
  bool quiet = false;
  // The run goes on with the output that an earlier run has left unfinished.
  bool resume = false;

  /// Returns whether a line has several rows of output, or one of their form.
  bool has_rows() const { return n_best > 0 || num_samples.value_or(1) > 1; }
};

/// What the command line asks for. If that is help or the version, `options` is empty and `text`
/// holds what to print.
struct CommandLine {
  std::optional<Options> options;
  std::string text;
};

/// Throws UsageError if the command line is wrong.
CommandLine parse_command_line(int argc, char** argv);

/// Returns whether a sentence whose numbers overflow is done once more in float32: on a GPU that
/// computes in another type. On the CPU every sum is in float32, or is of whole numbers.
inline bool overflow_is_redone(const Options& options) {
  return options.precision != Precision::kFloat32 && options.device != "cpu";
}

/// Returns the name that the value has on the command line.
const char* name_of(Format);
const char* name_of(Progress);
const char* name_of(Precision);
const char* name_of(LongLines);
const char* name_of(MarkupKind);
const char* name_of(EarlyStopping);

}  // namespace xlate
