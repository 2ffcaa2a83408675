// Makes prompts of the messages of a conversation, by the chat template of a model.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tokenization/marked_text.h"

namespace xlate {

/// Names what stands on one side of a transition: the start of the conversation, a message of a
/// role, or the answer that the model is to give.
enum class ChatPlace : std::uint8_t { kStart, kSystem, kUser, kAssistant, kAnswer };

/// Holds the text that a chat template has between two neighbours.
struct ChatTransition {
  ChatPlace from = ChatPlace::kStart, to = ChatPlace::kUser;
  std::string text;
  // White space is taken off the end of the message before the text, and off the beginning of the
  // one behind it.
  bool trims_from = false, trims_to = false;
};

struct ChatMessage {
  // It is "system", "user" or "assistant".
  std::string role;
  // It is valid UTF-8.
  std::string content;
};

/// Holds the transitions of which the prompt of every conversation is put together.
class ChatTemplate {
 public:
  explicit ChatTemplate(std::vector<ChatTransition> transitions)
      : transitions_(std::move(transitions)) {}

  /// Returns the prompt of a conversation, with the user's last message as the line. Throws Error
  /// if there are no messages, if the last one is not the user's, or if the model has no message of
  /// a role or none at its place.
  TextFrame frame_of(std::span<const ChatMessage> messages) const;

 private:
  const ChatTransition* find(ChatPlace from, ChatPlace to) const;

  std::vector<ChatTransition> transitions_;
};

}  // namespace xlate
