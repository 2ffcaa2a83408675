// Compares the files of a run by device and inode, or by path if they do not exist yet.
#include "app/file_conflicts.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <vector>

#include "app/output_file.h"

namespace xlate {
namespace {

// Holds what is known of a file, and its role in the run for messages, such as "the model".
struct Use {
  std::string name, role;
  struct stat status {};
  bool exists = false;
};

Use use_of_path(const std::string& path, const std::string& role) {
  Use use{.name = path, .role = role};
  use.exists = !path.empty() && stat(path.c_str(), &use.status) == 0;
  return use;
}

Use use_of_descriptor(int file, const std::string& name, const std::string& role) {
  Use use{.name = name, .role = role};
  use.exists = fstat(file, &use.status) == 0;
  return use;
}

// Returns the absolute path, without links, of a file that does not exist yet.
std::filesystem::path whole_path(const std::string& name) {
  std::error_code error;  // It is not reported here, since opening the file fails later as well.
  const auto path =
      std::filesystem::weakly_canonical(std::filesystem::absolute(name, error), error);
  return error ? std::filesystem::path(name) : path;
}

bool same_file(const Use& a, const Use& b) {
  if (a.exists && b.exists)
    return S_ISREG(a.status.st_mode) && a.status.st_dev == b.status.st_dev &&
           a.status.st_ino == b.status.st_ino;
  if (a.exists || b.exists || a.name.empty() || b.name.empty()) return false;
  return whole_path(a.name) == whole_path(b.name);
}

void refuse_conflict(const char* option, const Use& written, const Use& other) {
  if (same_file(written, other))
    throw UsageError(fmt::format("{}: {} is also {}", option, written.name, other.role));
}

}  // namespace

void check_file_conflicts(const Options& options) {
  const bool to_stdout = OutputFile::is_stdout(options.output);
  const Use model = use_of_path(options.model, "the model"),
            report = use_of_path(options.report == "-" ? "" : options.report, "the report");
  const Use output = to_stdout ? use_of_descriptor(STDOUT_FILENO, "stdout", "the output")
                               : use_of_path(options.output, "the output");
  const Use partial = use_of_path(to_stdout ? "" : OutputFile::partial_path(options.output),
                                  "the output until it is complete"),
            journal = use_of_path(to_stdout ? "" : OutputFile::journal_path(options.output),
                                  "the journal of the output"),
            new_journal = use_of_path(journal.name.empty() ? "" : journal.name + ".new",
                                      "the journal of the output until it is on the disk");
  for (const Use& other : {model, output, partial, journal, new_journal})
    refuse_conflict("--report", report, other);
  for (const Use& written : {output, partial, journal, new_journal})
    refuse_conflict("--output", written, model);
  std::vector<Use> inputs;
  for (const std::string& path : options.input)
    inputs.push_back(path == "-" ? use_of_descriptor(STDIN_FILENO, "stdin", "the input stdin")
                                 : use_of_path(path, "an input"));
  inputs.push_back(use_of_path(options.target_prefix, "the file of --target-prefix"));
  inputs.push_back(use_of_path(options.template_file, "the file of --template-file"));
  for (const Use& input : inputs) {
    refuse_conflict("--report", report, input);
    refuse_conflict("--output", partial, input);
    refuse_conflict("--output", journal, input);
    refuse_conflict("--output", new_journal, input);
    // A named output may be an input, since it replaces that file at the end. The file behind
    // stdout is written in place, and the run would read what it has written.
    if (to_stdout) refuse_conflict("--output", output, input);
  }
}

}  // namespace xlate
