// The program's version.
#pragma once

namespace xlate {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace xlate
