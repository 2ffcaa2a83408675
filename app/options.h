// The command line, as one struct: an option is its field's name. Defaults stand here or, where the
// model has a say, in resolve().
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/error.h"
#include "engine/policy.h"
#include "engine/search_state.h"
#include "models/description.h"

namespace xlate {

enum class Format : std::uint8_t { kText, kPieces, kIds };
enum class LongLines : std::uint8_t { kTruncate, kSkip, kError };
enum class Progress : std::uint8_t { kAuto, kAlways, kNever };

/// The command line is at fault: exit code 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

struct Options {
  std::string model;
  std::vector<std::string> input{"-"};
  std::string output;  // empty: stdout
  std::string device = "auto";
  Format input_format = Format::kText, output_format = Format::kText;
  Precision precision = Precision::kAuto;
  std::optional<int> beam_size;
  std::optional<float> length_penalty;
  std::optional<EarlyStopping> early_stopping;
  std::optional<std::int64_t> max_length;
  double max_length_factor = 3.0;
  std::optional<std::int64_t> max_source_length;
  LongLines long_lines = LongLines::kTruncate;
  bool scores = false;
  int n_best = 0;                 // 0: off
  std::int64_t batch_tokens = 0;  // 0: auto
  bool batch_tokens_given =
      true;                 // after resolve_device(): otherwise it is bounded by the memory too
  std::int64_t window = 0;  // 0: 100000 on a GPU, 2000 on the CPU
  double gpu_memory_share = 0.9;      // of what is free, unless
  std::int64_t gpu_memory_bytes = 0;  // a size is given
  bool gpu_memory_given = false;
  int threads = 1;
  bool line_buffered = false;
  std::string report;  // empty: none; "-": stderr
  Progress progress = Progress::kAuto;
  bool quiet = false;
};

/// What the command line asks for. Empty where it asked for help or the version, which then stand
/// in `text`.
struct CommandLine {
  std::optional<Options> options;
  std::string text;
};

/// Throws UsageError.
CommandLine parse_command_line(int argc, char** argv);

/// The rules of search: the command line's, else the model's, else the defaults of docs/search.md.
SearchRules rules_of(const Options&, const ModelDescription&);

/// Fills what the command line left to the model. Throws UsageError where both do not go together.
void resolve(Options&, const ModelDescription&);

/// Fills what it left to the device that the run got.
void resolve_device(Options&, const Policy&, bool gpu);

const char* name_of(Format);
const char* name_of(Progress);
const char* name_of(Precision);
const char* name_of(LongLines);
const char* name_of(EarlyStopping);

}  // namespace xlate
