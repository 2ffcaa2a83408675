// Reads and checks the transitions of a chat template.
#include "models/chat_description.h"

#include <algorithm>
#include <vector>

namespace xlate {
namespace {

using nlohmann::json;

constexpr std::size_t kLongestText = std::size_t{1} << 16;

constexpr Choices<ChatPlace, 3> kRoles{{{"system", ChatPlace::kSystem},
                                        {"user", ChatPlace::kUser},
                                        {"assistant", ChatPlace::kAssistant}}};

ChatTransition read_transition(const Section& section) {
  constexpr Choices<ChatPlace, 4> kFrom{
      {{"start", ChatPlace::kStart}, kRoles[0], kRoles[1], kRoles[2]}};
  constexpr Choices<ChatPlace, 4> kTo{
      {kRoles[0], kRoles[1], kRoles[2], {"answer", ChatPlace::kAnswer}}};
  return {.from = section.choice("from", kFrom),
          .to = section.choice("to", kTo),
          .text = section.text("text", kLongestText),
          .trims_from = section.flag("trim_from"),
          .trims_to = section.flag("trim_to")};
}

}  // namespace

ChatTemplate read_chat(const Section& section) {
  const json& list = section.at("transitions");
  if (!list.is_array()) section.wrong("transitions", "an array of objects", list);
  std::vector<ChatTransition> transitions;
  const auto has = [&](ChatPlace from, ChatPlace to) {
    return std::any_of(transitions.begin(), transitions.end(), [&](const ChatTransition& step) {
      return step.from == from && step.to == to;
    });
  };
  for (const json& entry : list) {
    ChatTransition step = read_transition(section.element(entry, "transitions"));
    // The number of different ones bounds the list.
    if (has(step.from, step.to))
      section.wrong("transitions", "transitions that all differ", entry.at("to"));
    transitions.push_back(std::move(step));
  }
  if (!has(ChatPlace::kStart, ChatPlace::kUser) || !has(ChatPlace::kUser, ChatPlace::kAnswer)) {
    section.wrong("transitions", "those from the start to the user and from there to the answer",
                  list);
  }
  return ChatTemplate(std::move(transitions));
}

}  // namespace xlate
