// Implements the options of the manual page.
#include "app/man_page.h"

namespace xlate {
namespace {

// Returns the text with the characters that roff would replace or take for a command escaped.
std::string roff(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '\\':
        escaped += "\\e";
        break;
      case '-':
        escaped += "\\-";
        break;
      case '\'':
        escaped += "\\(aq";
        break;
      case '^':
        escaped += "\\(ha";
        break;
      case '~':
        escaped += "\\(ti";
        break;
      case '`':
        escaped += "\\(ga";
        break;
      default:
        escaped += c;
    }
  }
  // A line that begins with a dot would be a command.
  return escaped.starts_with('.') ? "\\&" + escaped : escaped;
}

std::string bold(const std::string& text) { return "\\fB" + roff(text) + "\\fR"; }

std::string heading(const OptionEntry& option) {
  std::string text = option.short_name.empty() ? "" : bold(option.short_name) + ", ";
  text += bold(option.long_name);
  if (!option.type.empty()) text += " \\fI" + roff(option.type) + "\\fR";
  if (option.has_more) text += " ...";
  return text + (option.required ? " (required)" : "");
}

}  // namespace

std::string man_options(const std::vector<OptionEntry>& options) {
  std::string text, group;
  for (const OptionEntry& option : options) {
    if (option.group != group) text += ".SS \"" + roff(option.group) + "\"\n";
    group = option.group;
    text += ".TP\n" + heading(option) + "\n" + roff(option.help) + ".\n";
  }
  return text;
}

}  // namespace xlate
