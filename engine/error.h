// Error: the one exception type for what a user can cause or a device can refuse. Files on every
// floor may include this header, and it includes none of the project's headers.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace xlate {

/// The program shows the message to the user unchanged, after "xlate: ". So the message names the
/// thing that is wrong and, where there are two values, both of them: what was expected and what
/// was found.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Is thrown where a backend has too little memory. A smaller batch may fit.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

/// Throws Error. The arguments are those of fmt::format, which makes the message.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace xlate
