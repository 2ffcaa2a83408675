// Puts the messages of a conversation between the texts of a chat template.
#include "tokenization/chat.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "engine/error.h"
#include "tokenization/text_edits.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

constexpr std::array<std::pair<std::string_view, ChatPlace>, 3> kRoles{
    {{"system", ChatPlace::kSystem},
     {"user", ChatPlace::kUser},
     {"assistant", ChatPlace::kAssistant}}};

ChatPlace place_of(const std::string& role) {
  for (const auto& [name, place] : kRoles) {
    if (role == name) return place;
  }
  fail("the role '{}', expected system, user or assistant", brief_text(role));
}

}  // namespace

const ChatTransition* ChatTemplate::find(ChatPlace from, ChatPlace to) const {
  const auto found =
      std::find_if(transitions_.begin(), transitions_.end(),
                   [&](const ChatTransition& step) { return step.from == from && step.to == to; });
  return found == transitions_.end() ? nullptr : &*found;
}

TextFrame ChatTemplate::frame_of(std::span<const ChatMessage> messages) const {
  if (messages.empty()) fail("no messages, expected one of the user at least");
  TextFrame frame;
  frame.complete = true;
  ChatPlace before = ChatPlace::kStart;
  for (std::size_t i = 0; i <= messages.size(); ++i) {
    const bool last = i == messages.size();
    const ChatPlace place = last ? ChatPlace::kAnswer : place_of(messages[i].role);
    if (last && before != ChatPlace::kUser)
      fail("the last message has the role {}, expected user", messages.back().role);
    const ChatTransition* step = find(before, place);
    if (!step) {
      fail("the chat template of the model has no message with the role {} {}", messages[i].role,
           i == 0 ? "at the beginning" : "behind one with the role " + messages[i - 1].role);
    }
    if (i > 0 && step->trims_from) {
      std::string& content = *frame.contents.back();
      content.resize(without_trailing_space(content).size());
    }
    frame.texts.push_back(step->text);
    if (!last) {
      const std::string& content = messages[i].content;
      frame.contents.emplace_back(step->trims_to ? without_leading_space(content)
                                                 : std::string_view(content));
      frame.trims_start = step->trims_to;
    }
    frame.trims_end = step->trims_from;
    before = place;
  }
  // The last message is the line.
  frame.contents.back() = std::nullopt;
  return frame;
}

}  // namespace xlate
