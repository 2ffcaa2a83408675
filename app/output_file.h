// Where the output goes: stdout, or a file that gets its name once it is complete; packed where the
// name ends in .gz.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "app/partial_file.h"
#include "engine/error.h"

namespace xlate {

/// The reader of the output has gone: a quiet end, exit code 141.
class ClosedPipe : public Error {
 public:
  ClosedPipe() : Error("the output's reader has closed the pipe") {}
};

class OutputFile {
 public:
  /// Empty path or "-": stdout. Throws Error where it cannot be written to, or another run writes
  /// it: noticed before any work.
  explicit OutputFile(const std::string& path);
  ~OutputFile();

  /// Writes all of it. Throws ClosedPipe, or Error naming the output and the cause.
  void write(std::string_view text);
  /// Pushes out what a packed output holds back.
  void flush();
  /// Closes, checks that, and gives the file its name. Nothing may be written afterwards.
  void finish();
  /// Closes what was written without giving it its name: FILE.partial stays. Does nothing after
  /// finish().
  void abandon() noexcept;

  static bool is_stdout(const std::string& path) { return path.empty() || path == "-"; }
  /// Where the output is written until it is complete; empty where that is its own place.
  static std::string partial_path(const std::string& path);

 private:
  class Deflater;
  void write_bytes(const char* data, std::size_t bytes);
  void close_file();

  std::string name_;                      // for messages
  std::unique_ptr<PartialFile> partial_;  // none where it is written in place
  int file_ = -1;
  std::unique_ptr<Deflater> deflater_;
};

}  // namespace xlate
