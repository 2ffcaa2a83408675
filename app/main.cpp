// xlate: one line in, one line out. The only catcher of errors, and what they become: a line on
// stderr and an exit code.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

#include "app/file_conflicts.h"
#include "app/interrupt.h"
#include "app/options.h"
#include "app/output_file.h"
#include "app/report.h"
#include "app/translate.h"
#include "engine/limits.h"

namespace {

using namespace xlate;

enum ExitCode { kOk = 0, kFailed = 1, kUsage = 2, kSignalled = 128, kPipeClosed = 141 };

// A standard stream that is closed would lend its number to a file opened later, which would then
// be taken for the stream: it gets one that refuses to be used.
void hold_standard_streams() {
  for (const int file : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(file, F_GETFD) < 0) open("/dev/null", file == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

int fail_with(RunRecord& record, const char* message, int code) {
  std::fprintf(stderr, "xlate: %s\n", message);
  record.status = "error";
  record.error = message;
  return code;
}

// What no stage could catch, as memory that runs out in the midst of another error, is one line as
// well.
[[noreturn]] void end_at_once() {
  const char* message = "ended by an error that it could not handle";
  try {
    if (const auto error = std::current_exception()) std::rethrow_exception(error);
  } catch (const std::bad_alloc&) {
    message = "out of memory";
  } catch (const std::exception& error) {
    message = error.what();
  } catch (...) {
  }
  std::fprintf(stderr, "xlate: %s\n", message);
  _exit(kFailed);
}

// Help or version.
int print(RunRecord& record, const std::string& text) {
  if (std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0) return kOk;
  return fail_with(record, ("stdout: cannot be written: " + write_error(errno)).c_str(), kFailed);
}

int run(RunRecord& record) {
  try {
    try {
      check_file_conflicts(*record.options);
      check_report_path(record.options->report);
    } catch (const Error&) {
      record.options->report.clear();  // not to be written at the end
      throw;
    }
    Console console(record.options->quiet, record.options->progress);
    translate(record, console);
  } catch (const UsageError& error) {
    return fail_with(record, error.what(), kUsage);
  } catch (const ClosedPipe& error) {
    record.status = "error";
    record.error = error.what();
    return kPipeClosed;
  } catch (const Error& error) {
    if (!signal_received()) return fail_with(record, error.what(), kFailed);
    // An interrupted call failed: the signal is what happened.
  } catch (const std::bad_alloc&) {
    return fail_with(record, ("out of memory" + memory_limits()).c_str(), kFailed);
  } catch (const std::exception& error) {  // a library's, mostly of memory that ran out
    return fail_with(record, (error.what() + memory_limits()).c_str(), kFailed);
  }
  if (const int signal = signal_received(); signal && !record.complete) {
    record.status = "interrupted";
    record.error = fmt::format("signal {}", signal);
    if (signal == SIGXCPU) {  // nobody has sent it, and nobody would guess
      record.error += ": the CPU time that ulimit -t allows is used up";
      std::fprintf(stderr, "xlate: %s\n", record.error.c_str());
    }
    return kSignalled + signal;
  }
  return kOk;
}

}  // namespace

int main(int argc, char** argv) {
  signal(SIGXFSZ, SIG_IGN);  // a file at its limit is told by the write
  std::set_terminate(end_at_once);
  hold_standard_streams();
  RunRecord record;
  record.process_start = process_start();
  try {
    CommandLine line = parse_command_line(argc, argv);
    if (!line.options) return print(record, line.text);
    record.options = std::move(line.options);
  } catch (const UsageError& error) {
    return fail_with(record, error.what(), kUsage);
  }
  watch_signals();
  const int code = run(record);
  if (record.options->report.empty()) return code;
  try {
    write_report(record.options->report, record);
  } catch (const Error& error) {
    return fail_with(record, error.what(), code == kOk ? kFailed : code);
  }
  return code;
}
