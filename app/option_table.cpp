// Implements the table of options. It reads what add_options() has told CLI11, from which CLI11
// makes the help text as well, so that the two cannot differ.
#include "app/option_table.h"

#include <algorithm>
#include <sstream>

#include "app/option_group.h"
#include "app/options.h"

namespace xlate {
namespace {

// Returns those of the alternatives in a type such as "cpu|cuda|cuda:N|auto" that can be typed as
// they are. Those with capitals or other characters stand for many values.
std::vector<std::string> literal_values(const std::string& type) {
  std::vector<std::string> values;
  if (type.find('|') == std::string::npos) return values;
  std::istringstream alternatives(type);
  for (std::string value; std::getline(alternatives, value, '|');) {
    if (value.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789.") == std::string::npos)
      values.push_back(value);
  }
  return values;
}

}  // namespace

std::vector<OptionEntry> option_table() {
  Options options;
  options.threads = 0;  // The table is not for one machine.
  bool help = false, version = false;
  CLI::App app;
  app.set_help_flag();
  add_options(app, options, help, version);
  std::vector<OptionEntry> table;
  for (const CLI::Option* option : app.get_options()) {
    const auto& short_names = option->get_snames();
    const std::string type = option->get_items_expected_max() > 0 ? option->get_type_name() : "";
    table.push_back({.group = option->get_group(),
                     .short_name = short_names.empty() ? "" : "-" + short_names[0],
                     .long_name = "--" + option->get_lnames().at(0),
                     .type = type,
                     .help = option->get_description(),
                     .values = literal_values(type),
                     .is_file = type == "FILE",
                     .has_more = option->get_allow_extra_args(),
                     .repeats = option->get_items_expected_max() > 1,
                     .required = option->get_required()});
  }
  return table;
}

std::string short_help(const OptionEntry& option) {
  return option.help.substr(0, std::min(option.help.find(';'), option.help.rfind(" [")));
}

}  // namespace xlate
