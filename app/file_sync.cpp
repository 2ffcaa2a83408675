// Implements the syncing of files and folders with fsync.
#include "app/file_sync.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

namespace xlate {

bool sync_file(int file) {
  while (fsync(file) != 0) {
    if (errno == EINTR) continue;
    return errno == EINVAL || errno == ENOTSUP || errno == ENOSYS || errno == EROFS;
  }
  return true;
}

bool sync_folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path();
  const int file = open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) return true;
  const bool synced = sync_file(file);
  const int error = errno;
  close(file);
  errno = error;
  return synced;
}

}  // namespace xlate
