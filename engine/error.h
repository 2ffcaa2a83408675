// The one exception type for what a user can cause or a device can refuse. Stands below every other
// header.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace xlate {

/// Its message is shown to the user as it is, after "xlate: ": it names the thing and both values,
/// expected and found.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws Error with a message formatted as fmt::format does.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace xlate
