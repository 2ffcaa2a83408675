// This is the main program of xlate, which writes one output line for each input line. This file
// alone turns errors into what the user sees: a line on stderr and an exit code.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

#include "app/console.h"
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

// Opens a descriptor for each standard stream that is closed, one that fails when it is used.
// Otherwise a file opened later would get the number of the stream and be taken for it.
void hold_standard_streams() {
  for (const int file : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(file, F_GETFD) < 0) open("/dev/null", file == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

int fail_with(RunRecord& record, const char* message, int code) {
  std::fprintf(stderr, "xlate: %s\n", one_line(message).c_str());
  record.status = "error";
  record.error = message;
  return code;
}

// Ends the process when an exception was not caught anywhere, for example because memory ran out
// while another error was handled. The user gets one line on stderr then, too.
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

// Prints the text of --help or --version. Returns the exit code.
int print(RunRecord& record, const std::string& text) {
  if (std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0) return kOk;
  return fail_with(record, ("stdout: cannot be written: " + write_error(errno)).c_str(), kFailed);
}

int run(RunRecord& record) {
  try {
    try {
      check_file_conflicts(*record.options);
      clear_report(record.options->report);
    } catch (const Error&) {
      record.options->report.clear();  // No report may be written at the end.
      throw;
    }
    Console console(*record.options);
    translate(record, console);
  } catch (const UsageError& error) {
    return fail_with(record, error.what(), kUsage);
  } catch (const ClosedPipe& error) {
    record.status = "error";
    record.error = error.what();
    return kPipeClosed;
  } catch (const Error& error) {
    if (!signal_received()) return fail_with(record, error.what(), kFailed);
    // The signal made a call fail, so the signal is reported, and not the error.
  } catch (const std::bad_alloc&) {
    return fail_with(record, ("out of memory" + memory_limits()).c_str(), kFailed);
  } catch (const std::exception& error) {
    // It comes from a library, mostly because memory has run out.
    return fail_with(record, (error.what() + memory_limits()).c_str(), kFailed);
  }
  if (const int signal = signal_received(); signal && !record.complete) {
    record.status = "interrupted";
    record.error = fmt::format("signal {}", signal);
    // The user has not sent this signal, and could not guess where it comes from.
    if (signal == SIGXCPU) {
      record.error += ": the CPU time that ulimit -t allows is used up";
      std::fprintf(stderr, "xlate: %s\n", record.error.c_str());
    }
    return kSignalled + signal;
  }
  return kOk;
}

}  // namespace

int main(int argc, char** argv) {
  signal(SIGXFSZ, SIG_IGN);  // The write fails instead when a file reaches its size limit.
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
  } catch (const ClosedPipe&) {
    return code == kOk ? kPipeClosed : code;
  } catch (const Error& error) {
    if (code != kOk) return fail_with(record, error.what(), code);
    // A signal may have ended the wait for a reader of the report.
    const int signal = signal_received();
    return fail_with(record, error.what(), signal ? kSignalled + signal : kFailed);
  }
  return code;
}
