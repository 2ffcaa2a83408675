// Implements --resume: the comparison of two runs, and the search for the place where to go on.
#include "app/resume.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>
#include <set>

#include "app/interrupt.h"
#include "app/version.h"

namespace xlate {
namespace {

using json = nlohmann::json;

// These options do not change the output, or say where something is whose content is compared. All
// others are compared, those that come in the future included.
const std::set<std::string> kOptionsNotCompared{
    "model",  "input",   "output", "resume",   "device", "gpu_memory",    "batch_tokens",
    "window", "threads", "report", "progress", "quiet",  "target_prefix", "template_file"};
constexpr const char* kWayOut = "without --resume the run begins from the first line";

json facts_of(const LineReader* reader) {
  json all = json::array();
  if (!reader) return all;
  for (const InputFacts& facts : reader->facts())
    all.push_back(
        {{"bytes", facts.bytes}, {"seconds", facts.seconds}, {"nanoseconds", facts.nanoseconds}});
  return all;
}

// The order of sums on a processor depends on its instructions.
std::string device_of(const DeviceInfo& device) {
  return device.kind == "cuda" ? device.name
                               : fmt::format("{} with {} and {}", device.kind,
                                             device.instruction_set, device.library);
}

// Describes everything that the output depends on, but for the lines themselves.
json describe(const RunRecord& record, const LineReader& reader, const LineReader* prefixes) {
  json options = json::parse(options_text(record));
  for (const std::string& name : kOptionsNotCompared) options.erase(name);
  return {{"version", kVersion},
          {"model", fmt::format("{:016x}", record.model->hash)},
          {"device", device_of(*record.device)},
          {"options", options},
          {"inputs", facts_of(&reader)},
          {"prefixes", facts_of(prefixes)}};
}

std::string shown(const json& value) {
  return value.is_string() ? value.get<std::string>()
                           : value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string shown_time(const json& facts) {
  const auto seconds = static_cast<std::time_t>(facts.at("seconds").get<std::int64_t>());
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32] = "";
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  return fmt::format("{}.{:09} UTC", text, facts.at("nanoseconds").get<std::int64_t>());
}

// Compares the run that has left an output with this one.
class Comparison {
 public:
  // `partial` is the name of the file with the output.
  explicit Comparison(const std::string& partial) : partial_(partial) {}

  // Throws Error at the first difference. Throws an exception of the JSON library if `then` is no
  // description of a run.
  void check(const json& then, const json& now, const Options& options) const {
    same("the version of xlate", then.at("version"), now.at("version"));
    same("the hash of the model", then.at("model"), now.at("model"));
    same("the device", then.at("device"), now.at("device"));
    check_options(then.at("options"), now.at("options"));
    check_files("inputs", then.at("inputs"), now.at("inputs"), options.input);
    check_files("files of --target-prefix", then.at("prefixes"), now.at("prefixes"),
                {options.target_prefix});
  }

 private:
  void same(const std::string& what, const json& then, const json& now) const {
    if (then != now) refuse(what, shown(then), shown(now));
  }

  [[noreturn]] void refuse(const std::string& what, const std::string& then,
                           const std::string& now) const {
    fail("--resume: {} is {}, but it was {} when {} was begun; {}", what, now, then, partial_,
         kWayOut);
  }

  void check_options(const json& then, const json& now) const {
    for (const auto& [name, value] : now.items()) {
      std::string option = "--" + name;
      std::replace(option.begin(), option.end(), '_', '-');
      same(option, then.value(name, json()), value);
    }
  }

  void check_files(const std::string& kind, const json& then, const json& now,
                   const std::vector<std::string>& names) const {
    same("the number of " + kind, then.size(), now.size());
    for (std::size_t i = 0; i < now.size(); ++i) {
      const std::string name = names.at(i) == "-" ? "stdin" : names.at(i);
      const auto size = [](const json& facts) { return facts.at("bytes").get<std::int64_t>(); };
      // Nothing is known of a pipe before it is read.
      if (size(then[i]) < 0 || size(now[i]) < 0) continue;
      if (size(then[i]) != size(now[i]))
        refuse("the size of " + name, fmt::format("{} bytes", size(then[i])),
               fmt::format("{} bytes", size(now[i])));
      if (then[i] != now[i])
        refuse("the last change of " + name, shown_time(then[i]), shown_time(now[i]));
    }
  }

  const std::string partial_;
};

// Says where an output goes on, and what its hash is up to there.
struct Continuation {
  Journal::Mark mark;
  StreamHash hash;
};

// Returns the last mark that the file agrees with, or nothing if it agrees with none.
std::optional<Continuation> find_mark(int file, std::vector<Journal::Mark> marks,
                                      const std::string& name) {
  std::sort(marks.begin(), marks.end(), [](const Journal::Mark& a, const Journal::Mark& b) {
    return a.bytes != b.bytes ? a.bytes < b.bytes : a.lines < b.lines;
  });
  std::optional<Continuation> found;
  StreamHash hash;
  std::string block(std::size_t{1} << 20, '\0');
  std::int64_t read = 0;
  for (const Journal::Mark& mark : marks) {
    while (read < mark.bytes && !stop_flag()) {
      const auto most = std::min<std::int64_t>(mark.bytes - read, std::ssize(block));
      const ssize_t bytes = pread(file, block.data(), static_cast<std::size_t>(most), read);
      if (bytes < 0 && errno == EINTR) continue;
      if (bytes < 0) fail("{}: cannot be read: {}", name, std::strerror(errno));
      if (bytes == 0) return found;
      hash.add(std::string_view(block).substr(0, static_cast<std::size_t>(bytes)));
      read += bytes;
    }
    if (hash.value() == mark.output) found = Continuation{mark, hash};
  }
  return found;
}

// Returns where the output of an earlier run goes on.
Continuation find_continuation(const PartialFile& partial, const Journal::Files& files,
                               const json& now, const Options& options) {
  const auto content = Journal::read(files.path);
  if (!content)
    fail("--resume: {} has no journal: {} is missing or damaged; {}", partial.name(), files.path,
         kWayOut);
  try {
    Comparison(partial.name()).check(json::parse(content->run), now, options);
  } catch (const json::exception&) {
    fail("--resume: {}: is not a journal of xlate {}; {}", files.path, kVersion, kWayOut);
  }
  auto found = find_mark(files.output, content->marks, partial.name());
  if (!found && !stop_flag())
    fail("--resume: {} has changed since it was written: {} knows another text; {}", partial.name(),
         files.path, kWayOut);
  return found.value_or(Continuation());
}

// Reads over the lines whose output is there. Returns false if a signal came.
bool skip_lines(const Journal::Mark& mark, const std::string& partial, LineReader& reader,
                LineReader* prefixes) {
  constexpr std::chrono::milliseconds kNoLimit{-1};
  std::uint64_t hash = 0;
  for (std::int64_t number = 0; number < mark.lines; ++number) {
    Line line, prefix;
    const bool is_there = reader.next(line, kNoLimit) == LineReader::Got::kLine &&
                          (!prefixes || prefixes->next(prefix, kNoLimit) == LineReader::Got::kLine);
    if (stop_flag()) return false;
    if (!is_there)
      fail("--resume: the input has {} lines, but {} is the output of {}; {}", number, partial,
           mark.lines, kWayOut);
    line.prefix = std::move(prefix.text);
    hash = Journal::hash_of_lines(hash, line);
  }
  if (hash != mark.input)
    fail(
        "--resume: the input has changed: the hash of its first {} lines is {:016x}, but it was "
        "{:016x} when {} was written; {}",
        mark.lines, hash, mark.input, partial, kWayOut);
  return !stop_flag();
}

// Tells the user where the run begins.
void note_begin(const OutputFile& output, const RunRecord& record, Console& console) {
  if (const PartialFile* old = output.old_text())
    console.note(fmt::format("{}: goes on after line {}", old->name(), record.resumed_lines));
  else
    console.note(
        fmt::format("{}: there is no unfinished output, so that the run begins from the "
                    "first line",
                    record.options->output));
}

}  // namespace

void check_resume(const Options& options) {
  if (!options.resume) return;
  const std::string& path = options.output;
  if (OutputFile::is_stdout(path)) throw UsageError("--resume: expected --output FILE with it");
  if (OutputFile::is_packed(path)) {
    throw UsageError(
        fmt::format("--resume: cannot be used with gzip data, whose bytes depend on where a run "
                    "was ended: {}, expected a name that does not end in .gz",
                    path));
  }
  if (OutputFile::partial_path(path).empty())
    throw UsageError(fmt::format("--resume: {}, expected a regular file as the output", path));
}

bool begin_output(RunRecord& record, OutputFile& output, LineReader& reader, LineReader* prefixes,
                  Console& console) {
  const Options& options = *record.options;
  const auto files = output.journal_files();
  if (!files) return true;
  const json run = describe(record, reader, prefixes);
  Continuation begin;
  if (const PartialFile* old = output.old_text()) {
    begin = find_continuation(*old, *files, run, options);
    if (!skip_lines(begin.mark, old->name(), reader, prefixes)) return false;
    record.resumed_lines = begin.mark.lines;
  }
  try {
    output.keep(std::make_unique<Journal>(
        *files, run.dump(-1, ' ', false, json::error_handler_t::replace), begin.mark, begin.hash,
        [&console](const std::string& text) { console.note(text); }));
  } catch (const Error& error) {
    if (options.resume) throw;
    console.note(fmt::format("{}: if the run is killed, --resume cannot go on", error.what()));
  }
  if (output.old_text()) output.continue_at(begin.mark.bytes);
  if (options.resume) note_begin(output, record, console);
  return true;
}

}  // namespace xlate
