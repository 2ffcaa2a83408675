// Defines a part of a text by its bytes.
#pragma once

#include <cstddef>

namespace xlate {

struct TextRange {
  std::size_t begin = 0, end = 0;
};

}  // namespace xlate
