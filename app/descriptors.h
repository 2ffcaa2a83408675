// Has what is common to files that the process finds open, such as stdout.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace xlate {

/// Returns the descriptor of this process that a path names, such as /dev/stdout, /dev/fd/3, or a
/// link to one of these. Whoever writes to such a path must use the descriptor: opening the path
/// anew would write over what the file behind it already has.
std::optional<int> named_descriptor(const std::string& path);

/// Writes all of `text`, and waits where a pipe is full. Returns false, with errno, if that fails.
bool write_all(int file, std::string_view text);

}  // namespace xlate
