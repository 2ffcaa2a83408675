#pragma once

#include <cstdint>

namespace xlate {

/// Of one entry of an array on the device.
struct Change {
  std::int32_t place, value;
};

}  // namespace xlate
