// Implements the partial file: creating it, locking it against other runs, and giving it the access
// rights of the file that it replaces.
#include "app/partial_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "engine/error.h"

namespace xlate {
namespace {

constexpr const char* kAccessList = "system.posix_acl_access";
constexpr std::size_t kLongestList = 65536;  // No extended attribute has more bytes.
// Creating a file can fail so many times because of other runs that begin at the same time.
constexpr int kAttempts = 1000;

// Says who holds the lock of a file; kNone means that the file system has no locks.
enum class Lock { kOurs, kOthers, kNone };

// Tries to lock the file. The lock is held until the last descriptor of the opened file is closed,
// so a run that has ended, in whatever way, holds none.
Lock lock(int file) {
  // This hook for tests stands in for a file system without locks, which is rare.
  const bool pretend = std::getenv("XLATE_TEST_NO_LOCKS") != nullptr;
  if (!pretend && flock(file, LOCK_EX | LOCK_NB) == 0) return Lock::kOurs;
  return !pretend && errno == EWOULDBLOCK ? Lock::kOthers : Lock::kNone;
}

// Returns whether the opened file has this name, and not a link to it.
bool is_at(int file, const std::string& name) {
  struct stat opened {
  }, named{};
  return fstat(file, &opened) == 0 && lstat(name.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

}  // namespace

void PartialFile::fail_to_write() const {
  fail("{}: cannot be written: {}", shown_, std::strerror(errno));
}

// Throws Error because of a file that has the name of this one.
void PartialFile::fail_to_replace(const char* cause) const {
  fail("{}: cannot be written: {} cannot be replaced: {}", shown_, name_, cause);
}

void PartialFile::refuse() const {
  fail("{}: another run is writing it: wait for its end, or name another output", shown_);
}

PartialFile::PartialFile(const std::string& path, const std::string& partial,
                         const std::string& shown, Old old)
    : path_(path), name_(partial), shown_(shown), old_(old) {
  // A new file gets the rights that the umask leaves, at once. A file that replaces another one is
  // open to nobody but its owner until it has the rights of that one.
  struct stat replaced {};
  const bool replaces = stat(path.c_str(), &replaced) == 0;
  if (replaces) refuse_unfinished();
  const int mode = replaces ? 0600 : 0666;
  for (int attempt = 1; !make(mode); ++attempt) {
    if (attempt == kAttempts) refuse();
  }
  if (replaces) copy_access(replaced);
  lock_ = fcntl(file_, F_DUPFD_CLOEXEC, 0);
  if (lock_ >= 0) return;
  const int error = errno;
  if (!is_old_) unlink(name_.c_str());
  errno = error;
  fail_to_write();
}

PartialFile::~PartialFile() {
  close_file();
  if (lock_ >= 0) close(lock_);
}

void PartialFile::close_file() {
  if (file_ >= 0) close(std::exchange(file_, -1));
}

int PartialFile::take_file() { return std::exchange(file_, -1); }

// Creates or opens the file, and locks it. Returns false if that must be tried again, because an
// old file was in the way or another run interfered.
bool PartialFile::make(int mode) {
  file_ = open(name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  const bool is_new = file_ >= 0;
  if (!is_new && !open_old()) return false;
  const Lock locked = lock(file_);
  if (locked == Lock::kOthers) {
    close_file();
    refuse();
  }
  if (locked == Lock::kNone) {
    if (is_new) unlink(name_.c_str());
    close_file();
    if (old_ == Old::kKeep)
      fail("--resume: {}: cannot be used: files in its folder cannot be locked", shown_);
    make_without_lock(mode);
    return true;
  }
  // Between opening and locking, another run may have renamed or removed the file.
  const bool there = is_at(file_, name_);
  is_old_ = !is_new;
  if (there && (is_new || old_ == Old::kKeep)) return true;
  // An old file is removed only by the run that holds its lock. It is not emptied and used again,
  // since somebody who may not read the new output could have it open.
  if (there && unlink(name_.c_str()) != 0) fail_to_replace(std::strerror(errno));
  close_file();
  return false;
}

// Throws Error if another run is writing the file that is to be replaced. With the outputs
// a.partial and a of two runs, the partial file of the second is the output of the first.
void PartialFile::refuse_unfinished() const {
  const int file = open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (file < 0) return;
  const bool written = lock(file) == Lock::kOthers;
  close(file);
  if (written) refuse();
}

// Opens the file that an earlier run has left, after creating it has failed with errno. Returns
// false if it is gone by now.
bool PartialFile::open_old() {
  if (errno != EEXIST) fail_to_write();
  // O_NOFOLLOW refuses a link, which would be renamed in place of the file. O_NONBLOCK prevents
  // waiting for the reader of a named pipe.
  const int access = old_ == Old::kKeep ? O_RDWR : O_WRONLY;
  file_ = open(name_.c_str(), access | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (file_ < 0 && errno == ENOENT) return false;
  if (file_ < 0) fail_to_replace(errno == ELOOP ? "it is a symbolic link" : std::strerror(errno));
  struct stat status {};
  if (fstat(file_, &status) != 0 || !S_ISREG(status.st_mode))
    fail_to_replace("it is not a regular file");
  return true;
}

// Creates the file under a name of its own, so that no other run can write it.
void PartialFile::make_without_lock(int mode) {
  is_locked_ = false;
  const std::string shared = name_;
  for (int number = getpid(), attempt = 0; file_ < 0; ++number, ++attempt) {
    name_ = fmt::format("{}.{}", shared, number);
    file_ = open(name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (file_ < 0 && (errno != EEXIST || attempt == kAttempts)) fail_to_write();
  }
}

void PartialFile::copy_access(const struct stat& replaced) const {
  // If the owner cannot be copied, the group perhaps can. A failure of both is no error.
  if (fchown(file_, replaced.st_uid, replaced.st_gid) != 0 &&
      fchown(file_, static_cast<uid_t>(-1), replaced.st_gid) != 0) {
  }
  struct stat own {};
  const bool same_group = fstat(file_, &own) == 0 && own.st_gid == replaced.st_gid;
  std::string list(kLongestList, '\0');
  const ssize_t bytes = getxattr(path_.c_str(), kAccessList, list.data(), list.size());
  const bool listed =
      bytes > 0 && same_group &&
      fsetxattr(file_, kAccessList, list.data(), static_cast<std::size_t>(bytes), 0) == 0;
  // Without a copied list, the one that the default list of the folder gave the file must go.
  if (!listed) fremovexattr(file_, kAccessList);
  mode_t mode = replaced.st_mode & 0777;
  // With a list, the group's part of the mode is the mask: the most that anybody in the list may
  // do. If the group or the list could not be copied, the group gets no rights that others do not
  // have.
  if (!same_group || (bytes > 0 && !listed)) mode = (mode & 0707) | (mode & 0070 & (mode << 3));
  fchmod(file_, mode);  // If this fails, the file stays open to nobody but its owner.
}

void PartialFile::rename_to_path() {
  if (!is_at(lock_, name_))
    fail("{}: is not written: {} is gone, or another file has taken its place", shown_, name_);
  if (std::rename(name_.c_str(), path_.c_str()) != 0)
    fail("{}: cannot be written: {} cannot be renamed: {}", shown_, name_, std::strerror(errno));
}

void PartialFile::remove() noexcept {
  if (is_at(lock_, name_)) unlink(name_.c_str());
}

}  // namespace xlate
