#pragma once

#include <cstdint>

namespace xlate {

/// Of one entry of an array on the device.
struct TableUpdate {
  std::int32_t index, value;
};

}  // namespace xlate
