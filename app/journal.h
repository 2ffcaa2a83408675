// Keeps a file beside an unfinished output that says which run writes it and how far it has come,
// so that another process can go on after this one was killed (--resume).
//
// The journal holds four marks, each in a block of its own, and then the description of the run. A
// mark says that the output of so many lines has so many bytes, and has the hash of these bytes and
// of the lines. Whoever reads the journal takes the last mark whose hash the output has. So a mark
// may be written before the bytes that it speaks of, and any mark may be lost, or the bytes.
//
// Each write to the output is preceded by a mark in one of the first two blocks, in turn. After a
// kill the last mark but one is right at the latest. These marks do not wait for the disk. Every
// few seconds a thread syncs the output, then writes a mark of it into one of the last two blocks,
// in turn, and syncs the journal. After a power failure one of these two is right at the latest.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "app/line_reader.h"
#include "app/stream_hash.h"

namespace xlate {

class Journal {
 public:
  struct Mark {
    std::int64_t lines = 0, bytes = 0;  // The output of so many lines has so many bytes.
    std::uint64_t output = hash_of({});
    std::uint64_t input = 0;  // hash_of_lines() of the lines
  };
  /// Holds what a journal says.
  struct Content {
    std::string run;          // the description of the run
    std::vector<Mark> marks;  // those that are not damaged, in no order
  };
  /// Names the files. `output` is the open file of the output, and `shown` its name in messages.
  struct Files {
    std::string path, shown;
    int output = -1;
  };

  /// Returns the hash of lines, where `before` is that of all lines before this one.
  static std::uint64_t hash_of_lines(std::uint64_t before, const Line&);
  /// Reads a journal. Returns nothing if there is none, or if it is damaged.
  static std::optional<Content> read(const std::string& path);

  /// Writes a journal for an output that ends with the mark `begin` and has the hash `hash` so far.
  /// It takes the place of an older journal when it is on the disk, for which nobody waits but the
  /// first write. `note` shows a message to the user: if marks cannot be written, the run goes on
  /// without them. Throws Error if the journal cannot be written.
  Journal(const Files&, const std::string& run, const Mark& begin, const StreamHash& hash,
          std::function<void(const std::string&)> note);
  ~Journal();

  /// Says that a line was read. Lines must come in order. Any thread may call it.
  void add_line(const Line&);
  /// Writes a mark for text of so many lines, which is then written to the output. Throws Error if
  /// earlier output could not be synced.
  void before_write(std::string_view text, std::int64_t lines);
  /// Says that this text was written.
  void after_write();
  /// Ends the thread. No function but remove() may be called afterwards. Throws Error if the output
  /// could not be synced.
  void stop();
  /// Removes the journal, unless another one has taken its place.
  void remove() noexcept;

 private:
  void create(const std::string& run);
  void work();
  void publish();
  void sync_marks();
  void save(const Mark&);
  bool write_mark(std::size_t block, const Mark&);
  void give_up(const std::string& why);
  void end_thread() noexcept;

  const Files files_;
  const std::string new_path_;  // the name of the journal until it is on the disk
  const std::function<void(const std::string&)> note_;
  int file_ = -1;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::uint64_t> lines_;  // the hashes of the lines that are read and not yet written
  std::uint64_t last_line_;
  StreamHash hash_;      // It is that of the output up to next_.
  Mark next_, written_;  // The output is written up to written_.
  // Marks are written while the journal has its name and no error has come.
  bool published_ = false, broken_ = false, stopping_ = false;
  std::size_t marks_ = 0, synced_marks_ = 0;
  std::exception_ptr failure_;  // The output could not be synced.
  std::jthread thread_;
};

}  // namespace xlate
