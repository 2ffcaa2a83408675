// Defines the options of the command line, parses and checks it, and writes the help.
#include "app/options.h"

#include <sched.h>

#include <algorithm>

#include "app/control_groups.h"
#include "app/option_errors.h"
#include "app/option_group.h"
#include "app/version.h"

namespace xlate {
namespace {

const Names<Format> kFormats{{"text", Format::kText},
                             {"pieces", Format::kPieces},
                             {"ids", Format::kIds},
                             {"jsonl", Format::kJsonl}};
const Names<LongLines> kLongLines{{"truncate", LongLines::kTruncate},
                                  {"split", LongLines::kSplit},
                                  {"skip", LongLines::kSkip},
                                  {"error", LongLines::kError}};
const Names<MarkupKind> kMarkup{{"html", MarkupKind::kHtml}, {"none", MarkupKind::kNone}};
const Names<EarlyStopping> kEarlyStopping{{"true", EarlyStopping::kTrue},
                                          {"false", EarlyStopping::kFalse},
                                          {"never", EarlyStopping::kNever}};
const Names<Precision> kPrecisions{{"fp32", Precision::kFloat32},
                                   {"fp16", Precision::kFloat16},
                                   {"bf16", Precision::kBFloat16},
                                   {"int8", Precision::kInt8},
                                   {"auto", Precision::kAuto}};
const Names<Progress> kProgress{
    {"auto", Progress::kAuto}, {"always", Progress::kAlways}, {"never", Progress::kNever}};

int available_threads() {
  cpu_set_t set;
  const int processors =
      sched_getaffinity(0, sizeof(set), &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
  return std::min(processors, cpu_quota(system_root()).value_or(processors));
}

std::string check_not_empty(const std::string& text) {
  return text.empty() ? "'', expected some text" : "";
}

// Reads the value of --gpu-memory: a share of what is free, such as "0.9", or a size, such as
// "8GiB".
void read_memory(const std::string& text, Options& options) {
  options.gpu_memory_given = true;
  const std::size_t digits = text.find_first_not_of("0123456789.");
  const auto number = read_number<double>(text.substr(0, digits));
  const std::string unit = digits == std::string::npos ? "" : text.substr(digits);
  const Names<double> units{{"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
  const auto found = std::find_if(units.begin(), units.end(),
                                  [&](const auto& candidate) { return candidate.first == unit; });
  if (number && *number > 0 && unit.empty() && *number <= 1) {
    options.gpu_memory_share = *number;
    options.gpu_memory_bytes = 0;
  } else if (number && *number > 0 && found != units.end() && *number * found->second >= 1 &&
             *number * found->second < 0x1p62) {
    options.gpu_memory_bytes = static_cast<std::int64_t>(*number * found->second);
  } else {
    throw CLI::ValidationError(
        "--gpu-memory",
        "'" + text + "', expected a share above 0 and up to 1, or a size in KiB, MiB, GiB or TiB");
  }
}

// Reads the numbers of heads, separated by commas.
std::vector<int> read_heads(const std::string& text) {
  std::vector<int> heads;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const int head = read_number<int>(text.substr(begin, end - begin)).value_or(-1);
    if (head < 0) {
      throw CLI::ValidationError(
          "--alignment-heads",
          "'" + text + "', expected whole numbers from 0, separated by commas");
    }
    heads.push_back(head);
    begin = end + 1;
  }
  return heads;
}

void add_file_options(CLI::App& app, Options& options) {
  Group files(app, "Files");
  files
      .file("-m,--model", options.model, "FILE",
            "The model, a file that scripts/convert.py has made")
      ->required();
  files
      .file("-i,--input", options.input, "FILE",
            "Input files, read one after another; - is stdin; gzip data is unpacked [stdin]")
      ->allow_extra_args(true);
  files.file("-o,--output", options.output, "FILE",
             "Output file, written to FILE.partial and renamed at the end; - is stdout; a name in "
             ".gz makes gzip data [stdout]");
  files.flag("--resume", options.resume,
             "With --output: go on after the last complete line of FILE.partial, which a run with "
             "the same model, inputs and options has left; begin where there is none [off]");
  files.choice("--input-format", options.input_format, kFormats,
               "What input lines hold; ids include the end token, jsonl is an object of JSON each "
               "[text]");
  files.choice(
      "--output-format", options.output_format, kFormats,
      "What output lines hold; ids leave the end token out, jsonl is an object of JSON each "
      "with output, score and tokens [text]");
  files
      .add(app.add_option("--text-key", options.text_key,
                          "The key of the text in objects of --input-format jsonl [text]"),
           "KEY")
      ->check([](const std::string& text) {
        return text.empty() ? "'', expected the name of a key" : std::string();
      });
  files.choice("--markup", options.markup, kMarkup,
               "What stands in the text of lines: with html, tags are put around the translations "
               "of the words that they stand around, and references such as &amp; are read and "
               "written [none]");
  files.choice("--long-lines", options.long_lines, kLongLines,
               "What becomes of lines longer than --max-source-length; split translates parts of "
               "them, which end where sentences do as far as possible [truncate]");
  files.number(
      "--max-source-length", options.max_source_length, "N", 1, kLargestCount,
      "Most source tokens of a line, end token included, or of a prompt [the model's, else "
      "512; without an encoder one less than the context]");
  files.flag(
      "--split-sentences", options.split_sentences,
      "Translate the sentences of each line one by one, for models that drop some of several "
      "[off]");
}

void add_search_options(CLI::App& app, Options& options) {
  Group search(app, "Search");
  search.number("-b,--beam-size", options.beam_size, "N", 1, kMaxBeams,
                "Hypotheses kept of each sentence; 1 is greedy search [the model's, else 4]");
  search.number("--beam-groups", options.beam_groups, "G", 1, kMaxBeams,
                "Diverse beam search: the beams are G groups, each of which avoids what those "
                "before it have chosen; G divides the beam size [1]");
  search.number("--diversity", options.diversity, "D", 0, 1000,
                "What a token loses for each hypothesis of an earlier group that chooses it in the "
                "same step [0]");
  search.number("--length-penalty", options.length_penalty, "A", -100, 100,
                "Final score = sum of log-probabilities / length^A [the model's, else 1]");
  search.choice("--early-stopping", options.early_stopping, kEarlyStopping,
                "When a sentence is done, as in Hugging Face [the model's, else false]");
  search.file("--target-prefix", options.target_prefix, "FILE",
              "The beginning of each line's output, at most 128 tokens: a file with a line for "
              "each line of "
              "the input, in its format, or text where that is jsonl [none]");
  search.number("--min-length", options.min_length, "N", 0, kLargestCount,
                "Least generated tokens of a line before its end token [the model's, else 0]");
  search.number("--no-repeat-ngram", options.no_repeat_ngram, "N", 0, kLargestCount,
                "No N consecutive tokens twice in a line; 0 is off [the model's, else 0]");
  search.number("--repetition-penalty", options.repetition_penalty, "F", 0.01, 100,
                "Makes tokens that a line has less likely if F is above 1, which is off [the "
                "model's, else 1]");
  search
      .add(app.add_option("--suppress", options.suppress,
                          "Never chooses the token of this text, or of this piece or id where the "
                          "output has those; may be given several times [none]"),
           "TEXT")
      ->allow_extra_args(false)
      ->check(check_not_empty);
  search.flag("--suppress-unk", options.suppress_unk, "Never choose the unknown token [off]");
  search.number("--max-length", options.max_length, "N", 1, kLargestCount,
                "Most generated tokens of a line, end token included [the model's, else 512]");
  search.number("--max-length-factor", options.max_length_factor, "F", 0, 1e6,
                "A line also gets at most F x its source tokens + 10 tokens, a limit that "
                "CTranslate2 and Hugging Face do not have; a large F lifts it [3]");
  search.number("--max-new-tokens", options.max_new_tokens, "N", 1, kLargestCount,
                "Most tokens that a model without an encoder generates behind a line, end token "
                "included, in place of these two limits [the model's, else 256]");
}

void add_sampling_options(CLI::App& app, Options& options) {
  Group sampling(app, "Sampling");
  sampling.flag(
      "--sample", options.sample,
      "Draw each token at random instead of searching; a line's draws depend on the seed, "
      "its number and the model alone [off]");
  sampling.number("--temperature", options.temperature, "T", 0.01, 100,
                  "Logits are divided by this [the model's, else 1]");
  sampling.number("--top-k", options.top_k, "K", 0, kLargestCount,
                  "Only the K most probable tokens are drawn, 0 for all [the model's, else 0]");
  sampling.number("--top-p", options.top_p, "P", 0.000001, 1,
                  "Only the most probable tokens are drawn whose probabilities together reach P "
                  "[the model's, else 1]");
  sampling.number("--seed", options.seed, "S", 0, kLargestCount, "Other draws for other seeds [0]");
  sampling.number("--num-samples", options.num_samples, "N", 1, 1000,
                  "Draws of each line, printed as rows: line ||| text ||| F0= sum ||| score [1]");
}

void add_language_options(CLI::App& app, Options& options) {
  Group languages(app, "Languages");
  languages.add(
      app.add_option("--source-lang", options.source_lang,
                     "Language of the input, by its code in the model; a source of ids has its own "
                     "token [the model's]"),
      "CODE");
  languages.add(app.add_option("--target-lang", options.target_lang,
                               "Language of the output, by its code in the model: required by most "
                               "multilingual models [the model's]"),
                "CODE");
  languages.flag("--lang-column", options.lang_column,
                 "Each line begins with the codes of its languages: SOURCE<TAB>TARGET<TAB>TEXT "
                 "[off]");
}

void add_prompt_options(CLI::App& app, Options& options) {
  Group prompts(app, "Prompts of models without an encoder");
  prompts.add(app.add_option("--template", options.template_text,
                             "The text around each line: {line} stands for the line, and \\n, "
                             "\\t, \\{, \\\\ for a newline, a tab, a brace, a backslash [{line}]"),
              "TEXT");
  prompts.file("--template-file", options.template_file, "FILE",
               "A file with such a text; a newline at its end does not count [none]");
  prompts.flag(
      "--chat", options.chat,
      "Each line is a message of the user: put the model's chat template around it; an object "
      "of JSON may have messages instead [off]");
  prompts.flag("--echo", options.echo, "Print the prompt before its continuation [off]");
}

void add_scoring_options(CLI::App& app, Options& options) {
  Group scoring(app, "Scoring in place of translating");
  scoring.flag("--score-pairs", options.score_pairs,
               "Each line is SOURCE<TAB>TARGET, or PROMPT<TAB>CONTINUATION for a model without an "
               "encoder: print the score that --scores would give the target [off]");
  scoring.flag("--score-text", options.score_text,
               "For models without an encoder: print the log-probability of each line and its "
               "number of tokens: sum ||| tokens [off]");
}

void add_output_options(CLI::App& app, Options& options) {
  Group output(app, "Output");
  output
      .add(app.add_option("--stop", options.stop,
                          "Ends the text of a line before this text, in which \\n, \\t, \\{ and "
                          "\\\\ are escapes; may be given several times [none]"),
           "TEXT")
      ->allow_extra_args(false)
      ->check(check_not_empty);
  const auto check_newline = [](const std::string& text) {
    if (text == " " || text == "\\n") return std::string();
    return "'" + text + "', expected a space or the two characters \\n";
  };
  output
      .add(app.add_option("--newline", options.newline,
                          "What a newline in the output becomes: a space, or the two characters "
                          "\\n [' ']"),
           "' '|'\\n'")
      ->check(check_newline);
  output.flag("--scores", options.scores, "Print each line as: score ||| text [off]");
  output.number("--n-best", options.n_best, "N", 1, kMaxBeams,
                "Print the N best of each line as rows: line ||| text ||| F0= sum ||| score [off]");
  output.flag("--alignments", options.alignments,
              "Append ||| and, for each token of the output, its source token with the largest "
              "weight of cross-attention: 0-0 1-2 (source-target, from 0) [off]");
  output.number("--alignment-layer", options.alignment_layer, "N", 0, kLargestCount,
                "Layer of the decoder whose attention aligns, from 0 [the last]");
  const auto parse_heads = [&options](const std::string& text) {
    options.alignment_heads = read_heads(text);
  };
  output.add(app.add_option_function<std::string>(
                 "--alignment-heads", parse_heads,
                 "Heads over whose weights the mean is taken, from 0 [all]"),
             "A,B,...");
  output.flag("--alignment-words", options.alignment_words,
              "Align words, which stand between spaces, in place of tokens [off]");
  output.flag("--token-scores", options.token_scores,
              "Append ||| and the log-probability of each token, end token included [off]");
  output.file("--report", options.report, "FILE",
              "Write a JSON report of the run; - is stderr [no report]");
  output.choice("--progress", options.progress, kProgress,
                "Show progress on stderr [auto: if it is a terminal]");
  output.flag("-q,--quiet", options.quiet, "Write nothing but errors on stderr [off]");
}

void add_machine_options(CLI::App& app, Options& options) {
  Group machine(app, "Machine");
  const auto check_device = [](const std::string& text) {
    const bool numbered =
        text.starts_with("cuda:") && read_number<int>(text.substr(5)).value_or(-1) >= 0;
    if (text == "auto" || text == "cpu" || text == "cuda" || numbered) return std::string();
    return "'" + text + "', expected cpu, cuda, cuda:N or auto";
  };
  machine
      .add(app.add_option("--device", options.device,
                          "Where to run; auto takes the first GPU, else the CPU [auto]"),
           "cpu|cuda|cuda:N|auto")
      ->check(check_device);
  machine.choice("--precision", options.precision, kPrecisions,
                 "Type of the computation; auto is fp16 on a GPU (bf16 where the model overflows "
                 "fp16), fp32 on the CPU; fp16 is for a GPU, int8 for the CPU [auto]");
  const auto parse_batch = [&options](const std::string& text) {
    const auto number = text == "auto" ? 0 : read_number<std::int64_t>(text).value_or(-1);
    if (number < (text == "auto" ? 0 : 1) || number > kLargestCount) {
      throw CLI::ValidationError(
          "--batch-tokens",
          fmt::format("'{}', expected auto or a whole number from 1 to {}", text, kLargestCount));
    }
    options.batch_tokens = number;
  };
  machine.add(app.add_option_function<std::string>("--batch-tokens", parse_batch,
                                                   "Most source tokens in flight [auto]"),
              "N|auto");
  const auto parse_memory = [&options](const std::string& text) { read_memory(text, options); };
  machine.add(app.add_option_function<std::string>(
                  "--gpu-memory", parse_memory,
                  "Most GPU memory taken: a share of what is free, or a size [0.9]"),
              "0.9|8GiB");
  machine.number("--window", options.window, "LINES", 1, kLargestCount,
                 "Lines read ahead and sorted by length together [100000 on a GPU, 2000 on the "
                 "CPU; 1 with --line-buffered]");
  // The manual, which is for all machines, names no number.
  const std::string processors = options.threads > 0 ? fmt::format(": {}", options.threads) : "";
  machine.number("--threads", options.threads, "N", 1, 4096,
                 "CPU threads for all work [the processors of the process, within its quota" +
                     processors + "]");
  machine.flag("--line-buffered", options.line_buffered,
               "Answer and flush each line before the next one is awaited [off]");
}

}  // namespace

const char* name_of(Precision value) { return find_name(kPrecisions, value); }
const char* name_of(Progress value) { return find_name(kProgress, value); }
const char* name_of(Format value) { return find_name(kFormats, value); }
const char* name_of(LongLines value) { return find_name(kLongLines, value); }
const char* name_of(MarkupKind value) { return find_name(kMarkup, value); }
const char* name_of(EarlyStopping value) { return find_name(kEarlyStopping, value); }

void add_options(CLI::App& app, Options& options, bool& help, bool& version) {
  app.add_flag("-h,--help", help, "Print this text")->group("Help");
  app.add_flag("--version", version, "Print the version of xlate")->group("Help");
  add_file_options(app, options);
  add_search_options(app, options);
  add_sampling_options(app, options);
  add_language_options(app, options);
  add_prompt_options(app, options);
  add_scoring_options(app, options);
  add_output_options(app, options);
  add_machine_options(app, options);
}

CommandLine parse_command_line(int argc, char** argv) {
  Options options;
  options.processors = options.threads = available_threads();
  CLI::App app(
      "Translates text in bulk with Transformer models: one line in, one line out, in order.\n\n"
      "  xlate -m model.bin < input.txt > output.txt\n"
      "  xlate -m model.bin -i a.txt b.txt -o out.txt --report run.json",
      "xlate");
  app.set_help_flag();
  bool help = false, version = false;
  add_options(app, options, help, version);
  app.get_formatter()->column_width(38);
  app.get_formatter()->label("REQUIRED", "(required)");
  const std::string version_text = fmt::format("xlate {}\n", kVersion);
  // When help or the version is asked for, the rest of the command line may be wrong.
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "-h" || argument == "--help") return {{}, app.help()};
    if (argument == "--version") return {{}, version_text};
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    throw UsageError(message_of(app, error) + " (xlate --help lists the options)");
  }
  // The loop above has not seen a help flag among other short options, such as -qh.
  if (help || version) return {{}, help ? app.help() : version_text};
  return {options, {}};
}

}  // namespace xlate
