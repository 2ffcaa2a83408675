// Describes the options of xlate for its manual and for the completion of shells.
#pragma once

#include <string>
#include <vector>

namespace xlate {

struct OptionEntry {
  std::string group;
  // Names have their dashes, such as "-m" and "--model". Not every option has a short one.
  std::string short_name, long_name;
  // It is how the help text names the value, and empty if the option has none.
  std::string type;
  // The default stands at its end, in square brackets.
  std::string help;
  // A shell can offer these values, which may not be all.
  std::vector<std::string> values;
  bool is_file = false;
  // More values may follow the first, as words of their own.
  bool has_more = false;
  // The option may be given several times.
  bool repeats = false;
  bool required = false;
};

/// Returns all options in the order of the help text.
std::vector<OptionEntry> option_table();

/// Returns the help of the option up to its first semicolon or its default, for lists that have
/// little room.
std::string short_help(const OptionEntry& option);

}  // namespace xlate
