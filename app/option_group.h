// Adds options to the groups of the help text, and checks their values.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "app/options.h"
#include "engine/error.h"

namespace xlate {

/// The names that the values of an option have on the command line.
template <class T>
using Names = std::vector<std::pair<std::string, T>>;

/// Gives the type of the value in a field of Options, which may be an optional.
template <class T>
struct ValueOfField {
  using type = T;
};
template <class T>
struct ValueOfField<std::optional<T>> {
  using type = T;
};
template <class T>
using ValueOf = typename ValueOfField<T>::type;

/// Returns the names with the separator between them.
template <class T>
std::string join(const Names<T>& names, const char* separator) {
  std::string text;
  for (const auto& [name, value] : names) text += (text.empty() ? "" : separator) + name;
  return text;
}

/// Returns the name of a value.
template <class T>
const char* find_name(const Names<T>& names, T value) {
  for (const auto& [name, candidate] : names) {
    if (candidate == value) return name.c_str();
  }
  return "?";
}

/// Reads the whole text as one decimal number. Returns none if it is anything else.
template <class Number>
std::optional<Number> read_number(const std::string& text) {
  Number number{};
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && rest == text.data() + text.size() ? std::optional(number)
                                                                   : std::nullopt;
}

/// Adds options to one group of the help text, with the checks of their values.
class Group {
 public:
  Group(CLI::App& app, std::string name) : app_(app), name_(std::move(name)) {}

  /// Puts an option into the group. The help text gives its value this name.
  CLI::Option* add(CLI::Option* option, const std::string& type) {
    return option->group(name_)->type_name(type);
  }

  /// Adds an option without a value.
  void flag(const std::string& names, bool& value, const std::string& help) {
    app_.add_flag(names, value, help)->group(name_);
  }

  /// Adds an option that takes the name of a file. An empty name is refused, since it mostly comes
  /// from a variable of a script that was not set.
  template <class T>
  CLI::Option* file(const std::string& names, T& value, const std::string& type,
                    const std::string& help) {
    const auto check = [](const std::string& text) {
      return text.empty() ? "'', expected the name of a file" : std::string();
    };
    return add(app_.add_option(names, value, help), type)->check(check);
  }

  /// Adds an option whose value is one of the names.
  template <class T>
  void choice(const std::string& names, T& value, const Names<ValueOf<T>>& choices,
              const std::string& help) {
    const auto parse = [&value, &choices, names](const std::string& text) {
      const auto found = std::find_if(choices.begin(), choices.end(),
                                      [&](const auto& choice) { return choice.first == text; });
      if (found == choices.end())
        throw CLI::ValidationError(names, "'" + text + "', expected " + join(choices, ", "));
      value = found->second;
    };
    add(app_.add_option_function<std::string>(names, parse, help), join(choices, "|"));
  }

  /// Adds an option whose value is a number from `least` to `most`.
  template <class T>
  void number(const std::string& names, T& value, const std::string& type, double least,
              double most, const std::string& help) {
    using Number = ValueOf<T>;
    const auto parse = [&value, names, least, most](const std::string& text) {
      const auto number = read_number<Number>(text);
      // The bounds are rounded as the number is: 0.01 as a float is less than 0.01 as a double.
      if (!number ||
          !(*number >= static_cast<Number>(least) && *number <= static_cast<Number>(most))) {
        const char* kind = std::is_integral_v<Number> ? "whole number" : "number";
        throw CLI::ValidationError(names, fmt::format("'{}', expected a {} from {:.15g} to {:.15g}",
                                                      text, kind, least, most));
      }
      value = *number;
    };
    add(app_.add_option_function<std::string>(names, parse, help), type);
  }

 private:
  CLI::App& app_;
  std::string name_;
};

/// Adds all options in the order in which the help text lists their groups. `help` and `version`
/// are set by the options of these names.
void add_options(CLI::App& app, Options& options, bool& help, bool& version);

}  // namespace xlate
