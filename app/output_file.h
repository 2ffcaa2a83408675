// Writes the output to stdout, or to a file that gets its name when it is complete. Packs it as
// gzip data if the name ends in .gz.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "app/partial_file.h"
#include "engine/error.h"

namespace xlate {

/// Reports that the reader of the output has closed the pipe. The run then ends without a message,
/// with the exit code 141.
class ClosedPipe : public Error {
 public:
  ClosedPipe() : Error("the output's reader has closed the pipe") {}
};

class OutputFile {
 public:
  /// Opens the output, before any work; an empty path or "-" is stdout. Throws Error if it cannot
  /// be written, or if another run is writing it.
  explicit OutputFile(const std::string& path);
  ~OutputFile();

  /// Writes all of `text`. Throws ClosedPipe, or Error naming the output and the cause.
  void write(std::string_view text);
  /// Writes what a packed output holds back, so that everything written so far can be unpacked.
  void flush();
  /// Closes the output, and gives the file its name. Throws as write() does, also if closing or
  /// renaming fails. Nothing may be written afterwards.
  void finish();
  /// Closes the output without giving the file its name, so that FILE.partial stays. If nothing was
  /// written, removes it. Does nothing after finish().
  void abandon() noexcept;

  static bool is_stdout(const std::string& path) { return path.empty() || path == "-"; }
  /// Returns where the output is written until it is complete, or an empty path if it is written in
  /// place.
  static std::string partial_path(const std::string& path);

 private:
  class Deflater;
  void write_bytes(const char* data, std::size_t bytes);
  void close_file();

  std::string name_;                      // Messages show this name.
  std::unique_ptr<PartialFile> partial_;  // It is null if the output is written in place.
  int file_ = -1;
  bool written_ = false;  // Text was written.
  std::unique_ptr<Deflater> deflater_;
};

}  // namespace xlate
