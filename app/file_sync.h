// Waits until files and names of files are on the disk, so that a power failure does not lose them.
#pragma once

#include <string>

namespace xlate {

/// Waits until everything that was written to the file is on the disk. Returns false, with errno
/// set, if the disk reports an error. A file that the system cannot sync counts as synced.
bool sync_file(int file);

/// Waits until the names in the folder of this file are on the disk: a file that was created or
/// renamed there keeps its name then. Returns as sync_file() does. A folder that may not be read
/// counts as synced.
bool sync_folder_of(const std::string& path);

}  // namespace xlate
