// Writes the files by which shells complete the command line of xlate.
#pragma once

#include <string>
#include <vector>

#include "app/option_table.h"

namespace xlate {

std::string bash_completion(const std::vector<OptionEntry>& options);
std::string zsh_completion(const std::vector<OptionEntry>& options);
std::string fish_completion(const std::vector<OptionEntry>& options);

}  // namespace xlate
