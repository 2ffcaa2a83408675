// xlate: one line in, one line out. The only catcher of errors, and what they become: a line on stderr and an exit code.
#include <cstdio>
#include <new>

#include "app/interrupt.h"
#include "app/options.h"
#include "app/output_file.h"
#include "app/report.h"
#include "app/translate.h"

namespace {

using namespace xlate;

enum ExitCode { kOk = 0, kFailed = 1, kUsage = 2, kSignalled = 128, kPipeClosed = 141 };

int fail_with(RunRecord& record, const char* message, int code) {
  std::fprintf(stderr, "xlate: %s\n", message);
  record.status = "error";
  record.error = message;
  return code;
}

int run(RunRecord& record) {
  try {
    try {
      check_report_path(record.options->report);
    } catch (const Error&) {
      record.options->report.clear();  // not again at the end
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
    return fail_with(record, "out of memory", kFailed);
  } catch (const std::exception& error) {
    return fail_with(record, error.what(), kFailed);
  }
  if (const int signal = signal_received(); signal && !record.complete) {
    record.status = "interrupted";
    record.error = fmt::format("signal {}", signal);
    return kSignalled + signal;
  }
  return kOk;
}

}  // namespace

int main(int argc, char** argv) {
  RunRecord record;
  record.process_start = process_start();
  try {
    CommandLine line = parse_command_line(argc, argv);
    if (!line.options) return std::fputs(line.text.c_str(), stdout) < 0 || std::fflush(stdout) != 0 ? kFailed : kOk;
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
