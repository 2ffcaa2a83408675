// Writes what the manual page says about the options.
#pragma once

#include <string>
#include <vector>

#include "app/option_table.h"

namespace xlate {

/// Returns the options in the language of man(7), with a subsection for each group.
std::string man_options(const std::vector<OptionEntry>& options);

}  // namespace xlate
