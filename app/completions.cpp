// Implements the completions for bash, zsh and fish. None needs more than the shell itself.
#include "app/completions.h"

#include <fmt/format.h>

#include <string_view>

namespace xlate {
namespace {

std::string join(const std::vector<std::string>& words, const char* separator) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : separator) + word;
  return text;
}

// Returns the names of an option with the separator between them.
std::string names(const OptionEntry& option, const char* separator) {
  return option.short_name.empty() ? option.long_name
                                   : option.short_name + separator + option.long_name;
}

// Returns the text with each of the characters escaped by a backslash.
std::string escape(const std::string& text, std::string_view characters) {
  std::string escaped;
  for (const char c : text) {
    if (characters.find(c) != std::string_view::npos) escaped += '\\';
    escaped += c;
  }
  return escaped;
}

// Returns the text in single quotes as bash and zsh read them.
std::string quote(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

constexpr const char* kBashHead = R"(# bash completion of xlate
_xlate() {
  local word=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} i
  # Bash makes the equals sign of --option=value a word of its own.
  if [[ $word == '=' ]]; then
    word=
  elif [[ $option == '=' ]]; then
    option=${COMP_WORDS[COMP_CWORD - 2]}
  fi
  COMPREPLY=()
  case $option in
)";

constexpr const char* kBashTail = R"(  esac
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$word"))
    return
  fi
  for ((i = COMP_CWORD - 1; i > 0; i--)); do
    case ${COMP_WORDS[i]} in
      %MORE%) compopt -o default; return ;;
      -*) break ;;
    esac
  done
  COMPREPLY=($(compgen -W "$options" -- "$word"))
}
complete -F _xlate xlate
)";

constexpr const char* kFishHead = R"(# fish completion of xlate
# Says whether the word at the cursor may be one more value of the last option before it.
function __xlate_takes_more
    for token in (commandline -opc)[-1..2]
        switch $token
            case %MORE%
                return 0
            case '-*'
                return 1
        end
    end
    return 1
end
complete -c xlate -f
)";

// Puts the options that take several values, with the separator between their names, where the
// text says %MORE%.
std::string with_more(std::string text, const std::vector<OptionEntry>& options,
                      const char* separator) {
  std::vector<std::string> several;
  for (const OptionEntry& option : options) {
    if (option.has_more) several.push_back(names(option, separator));
  }
  return text.replace(text.find("%MORE%"), 6, join(several, separator));
}

}  // namespace

std::string bash_completion(const std::vector<OptionEntry>& options) {
  std::string cases;
  std::vector<std::string> all, files, others;
  for (const OptionEntry& option : options) {
    all.push_back(names(option, " "));
    if (option.type.empty()) continue;
    if (option.values.empty()) {
      (option.is_file ? files : others).push_back(names(option, "|"));
    } else {
      cases += fmt::format("    {}) COMPREPLY=($(compgen -W '{}' -- \"$word\")); return ;;\n",
                           names(option, "|"), join(option.values, " "));
    }
  }
  // Bash itself completes names of files. A value that is neither a file nor in a list has nothing
  // to offer.
  cases += fmt::format("    {}) compopt -o default; return ;;\n", join(files, "|"));
  cases += fmt::format("    {}) return ;;\n", join(others, "|"));
  std::string head = kBashHead;
  head.insert(head.find("  COMPREPLY"), fmt::format("  local options='{}'\n", join(all, " ")));
  return head + cases + with_more(kBashTail, options, "|");
}

std::string zsh_completion(const std::vector<OptionEntry>& options) {
  std::string text = "#compdef xlate\n_arguments -s -S";
  for (const OptionEntry& option : options) {
    std::string action;
    if (!option.type.empty()) {
      action = option.is_file ? "_files" : "( )";
      if (!option.values.empty()) action = "(" + join(option.values, " ") + ")";
      action = (option.has_more ? ":*-*:" : ":") + escape(option.type, ":\\") + ":" + action;
    }
    const std::string rest = quote("[" + escape(short_help(option), "[]\\") + "]" + action);
    const char* value = option.type.empty() ? "" : "=";
    const std::string exclude = "(" + names(option, " ") + ")";
    text += " \\\n  " + quote(option.repeats ? "*" : exclude);
    text += option.short_name.empty()
                ? option.long_name + value + rest
                : fmt::format("{{{}{},{}{}}}{}", option.short_name, *value ? "+" : "",
                              option.long_name, value, rest);
  }
  return text + "\n";
}

std::string fish_completion(const std::vector<OptionEntry>& options) {
  std::string text = with_more(kFishHead, options, " ");
  text += "complete -c xlate -n __xlate_takes_more -F\n";
  for (const OptionEntry& option : options) {
    text += "complete -c xlate -l " + option.long_name.substr(2);
    if (!option.short_name.empty()) text += " -s " + option.short_name.substr(1);
    if (option.is_file) {
      text += " -r -F";
    } else if (!option.type.empty()) {
      text += " -x";
    }
    if (!option.values.empty()) text += " -a '" + join(option.values, " ") + "'";
    text += " -d '" + escape(short_help(option), "'\\") + "'\n";
  }
  return text;
}

}  // namespace xlate
