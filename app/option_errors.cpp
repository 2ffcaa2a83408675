// Implements the messages for wrong command lines.
#include "app/option_errors.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "engine/error.h"

namespace xlate {
namespace {

// Says which argument belongs to no option.
std::string message_of_extras(const std::vector<std::string>& extras) {
  const auto first = std::find_if(extras.begin(), extras.end(),
                                  [](const std::string& argument) { return argument != "--"; });
  const std::string argument = first == extras.end() ? "" : *first;
  if (argument.size() > 1 && argument.starts_with("-"))
    return fmt::format("{}: there is no such option", argument.substr(0, argument.find('=')));
  return fmt::format("'{0}' belongs to no option; an input file is given as: --input {0}",
                     argument);
}

// Does the same as message_of(), but may return several lines.
std::string find_message(const CLI::App& app, const CLI::ParseError& error) {
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr)
    return message_of_extras(app.remaining());
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = option->get_name(), type = option->get_type_name();
    const auto missing =
        CLI::ArgumentMismatch::TypedAtLeast(name, option->get_items_expected_min(), type);
    if (std::string_view(missing.what()) == error.what())
      return fmt::format("{}: its value is missing, expected {}", name, type);
    const std::size_t given = option->results().size();
    const auto repeated =
        CLI::ArgumentMismatch::AtMost(name, option->get_items_expected_max(), given);
    if (std::string_view(repeated.what()) == error.what())
      return fmt::format("{}: the option is given {}, expected once", name,
                         given == 2 ? "twice" : fmt::format("{} times", given));
  }
  return error.what();
}

}  // namespace

std::string message_of(const CLI::App& app, const CLI::ParseError& error) {
  std::string message = find_message(app, error);
  std::replace(message.begin(), message.end(), '\n', ' ');
  return message;
}

}  // namespace xlate
