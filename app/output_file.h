// Writes the output to stdout, or to a file that gets its name when it is complete. Packs it as
// gzip data if the name ends in .gz.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "app/journal.h"
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
  /// be written, or if another run is writing it. If an earlier run has left FILE.partial, `old`
  /// says what becomes of it.
  explicit OutputFile(const std::string& path, PartialFile::Old old = PartialFile::Old::kRemove);
  ~OutputFile();

  /// Returns the file of the journal that can be kept of this output, or nothing if none can: it is
  /// written in place or as gzip data, or files cannot be locked.
  std::optional<Journal::Files> journal_files() const;
  /// Keeps the journal from now on. No text may have been written.
  void keep(std::unique_ptr<Journal> journal) { journal_ = std::move(journal); }
  Journal* journal() const { return journal_.get(); }
  /// Returns FILE.partial if an earlier run has left some text there. Otherwise it returns null.
  const PartialFile* old_text() const { return has_old_text_ ? partial_.get() : nullptr; }
  /// Cuts off the old text behind these bytes, so that writing goes on there. Throws Error if that
  /// fails.
  void continue_at(std::int64_t bytes);

  /// Writes all of `text`, which is the output of so many lines. Throws ClosedPipe, or Error naming
  /// the output and the cause.
  void write(std::string_view text, std::int64_t lines);
  /// Writes what a packed output holds back, so that everything written so far can be unpacked.
  void flush();
  /// Closes the output, and gives the file its name when its text is on the disk. Throws as write()
  /// does, also if syncing, closing or renaming fails. Nothing may be written afterwards.
  void finish();
  /// Closes the output without giving the file its name, so that FILE.partial stays. Removes it if
  /// it is empty. Does nothing after finish().
  void abandon() noexcept;

  /// Returns whether an output of this name goes to stdout, as with "-" or /dev/stdout.
  static bool is_stdout(const std::string& path);
  /// Returns whether an output of this name is gzip data.
  static bool is_packed(const std::string& path);
  /// Returns where the output is written until it is complete, or an empty path if it is written in
  /// place.
  static std::string partial_path(const std::string& path);
  /// Returns where the journal of such an output is, or an empty path as well.
  static std::string journal_path(const std::string& path);

 private:
  class Deflater;
  void check_untouched() const;
  void write_bytes(const char* data, std::size_t bytes);
  void close_file();
  [[noreturn]] void fail_to_write() const;

  std::string name_;                      // Messages show this name.
  std::unique_ptr<PartialFile> partial_;  // It is null if the output is written in place.
  std::string journal_path_;
  std::unique_ptr<Journal> journal_;  // It is null if there is none.
  bool has_old_text_ = false;
  int file_ = -1;
  std::unique_ptr<Deflater> deflater_;
};

}  // namespace xlate
