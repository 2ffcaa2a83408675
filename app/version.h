// Defines the version of xlate, which must agree with the one in CMakeLists.txt.
#pragma once

namespace xlate {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace xlate
