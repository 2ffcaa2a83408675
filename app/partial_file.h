// The file in which an output is written until it is complete: of one run at a time, and open to
// nobody who may not read what it becomes.
#pragma once

#include <sys/stat.h>

#include <string>

namespace xlate {

class PartialFile {
 public:
  /// Makes `partial`, which is to become `path`, anew: what an earlier run left there goes. Where
  /// `path` exists, with its mode, access list, owner and group, as far as the system lets. Throws
  /// Error where it cannot be made, or where another run writes it. Where files cannot be locked it
  /// gets a name of its own, "PARTIAL.N".
  PartialFile(const std::string& path, const std::string& partial);
  ~PartialFile();
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  /// For writing; whoever writes closes it. The lock is held by another descriptor as long as this
  /// object.
  int take_file();
  /// Gives the file the name that it was made for. Throws Error where another file has taken its
  /// place, or where that fails.
  void rename_to_path();

  const std::string& name() const { return name_; }

 private:
  bool make(int mode);
  void refuse_unfinished() const;
  bool open_old();
  void make_without_lock(int mode);
  void copy_access(const struct stat& replaced) const;
  void close_file();

  std::string path_, name_;
  int file_ = -1, lock_ = -1;  // lock_: the same opened file once more
};

}  // namespace xlate
