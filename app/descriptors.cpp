// Finds the descriptors that paths name, and writes to descriptors.
#include "app/descriptors.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <filesystem>

namespace xlate {

std::optional<int> named_descriptor(const std::string& path) {
  constexpr int kMostLinks = 40;  // The system follows no more links than that.
  std::error_code error;
  const std::filesystem::path own = std::filesystem::canonical("/proc/self/fd", error);
  std::filesystem::path name = path;
  for (int i = 0; !error && i < kMostLinks; ++i) {
    const std::filesystem::path folder =
        std::filesystem::canonical(name.has_parent_path() ? name.parent_path() : ".", error);
    if (error) break;
    if (folder == own) {
      const std::string number = name.filename();
      const char* const end = number.data() + number.size();
      int descriptor = -1;
      const auto [rest, wrong] = std::from_chars(number.data(), end, descriptor);
      return wrong == std::errc() && rest == end ? std::optional(descriptor) : std::nullopt;
    }
    name = folder / std::filesystem::read_symlink(name, error);
  }
  return std::nullopt;
}

bool write_all(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(file, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno == EAGAIN) {
      // The pipe is full, and whoever passed it to this process has made it non-blocking.
      pollfd room{file, POLLOUT, 0};
      poll(&room, 1, -1);
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

}  // namespace xlate
