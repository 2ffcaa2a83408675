// TableUpdate: a change to one entry of a table on the device, as Backend::update_table takes it.
// Host code and kernels include this file.
#pragma once

#include <cstdint>

namespace xlate {

/// The entry at `index` of an array of std::int32_t becomes `value`.
struct TableUpdate {
  std::int32_t index, value;
};

}  // namespace xlate
