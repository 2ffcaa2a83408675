// Manages the file into which an output is written until it is complete. Only one run at a time can
// write it, and nobody can read it who may not read the file that it replaces.
#pragma once

#include <sys/stat.h>

#include <string>

namespace xlate {

class PartialFile {
 public:
  /// Says what becomes of a file that an earlier run has left: it is removed, or kept to be
  /// continued.
  enum class Old : bool { kRemove, kKeep };

  /// Creates and locks the file `partial`, which is to become `path`, unless an earlier run has
  /// left one there that is to be kept. Messages name the output `shown`. If `path` exists, the new
  /// file gets its mode, access list, owner and group, as far as the system permits. Throws Error
  /// if the file cannot be created, or if another run is writing it or `path`. If files cannot be
  /// locked, it gets a name of its own, "PARTIAL.N", or if an old one is to be kept, Error is
  /// thrown.
  PartialFile(const std::string& path, const std::string& partial, const std::string& shown, Old);
  ~PartialFile();
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  /// Returns the descriptor for writing, which the caller must close. The object holds the lock
  /// with another descriptor as long as it lives.
  int take_file();
  /// Returns whether an earlier run has left the file. It can be read then, too.
  bool is_old() const { return is_old_; }
  /// Returns whether no other run can write a file of this name.
  bool is_locked() const { return is_locked_; }
  /// Returns where the file is until it gets its name.
  const std::string& name() const { return name_; }
  /// Renames the file to `path`. Throws Error if that fails, or if another file has taken the place
  /// of this one.
  void rename_to_path();
  /// Removes the file, unless another file has taken its place.
  void remove() noexcept;

 private:
  bool make(int mode);
  void refuse_unfinished() const;
  bool open_old();
  void make_without_lock(int mode);
  void copy_access(const struct stat& replaced) const;
  void close_file();

  [[noreturn]] void fail_to_write() const;
  [[noreturn]] void fail_to_replace(const char* cause) const;
  [[noreturn]] void refuse() const;

  std::string path_, name_, shown_;
  const Old old_;
  bool is_old_ = false, is_locked_ = true;
  int file_ = -1, lock_ = -1;  // lock_ is a duplicate of file_.
};

}  // namespace xlate
