// Tests that conversations become prompts by the transitions of a chat template, and that wrong
// transitions in a model file are refused.
#include "tokenization/chat.h"

#include <gtest/gtest.h>

#include "models/chat_description.h"
#include "tests/model_edits.h"

namespace xlate::test {
namespace {

using nlohmann::json;

json step(const char* from, const char* to, const char* text, bool trim_from = false,
          bool trim_to = false) {
  return {
      {"from", from}, {"to", to}, {"text", text}, {"trim_from", trim_from}, {"trim_to", trim_to}};
}

json good_steps() {
  return json::array({step("start", "user", "<u>", false, true),
                      step("user", "answer", "</u><a>", true), step("start", "system", "<s>"),
                      step("system", "user", "</s><u>", true),
                      step("user", "assistant", "</u><a>", true),
                      step("assistant", "user", "</a><u>", false, true)});
}

ChatTemplate template_of(const json& steps) {
  static const std::string kFile = "chat.bin";
  const json header = {{"chat", {{"transitions", steps}}}};
  return read_chat(Section(header, "chat", kFile));
}

// Returns the prompt, in which [brackets] stand around what may have special tokens.
std::string prompt_of(const std::vector<ChatMessage>& messages) {
  const MarkedText text =
      template_of(good_steps()).frame_of(messages).around(messages.back().content);
  EXPECT_TRUE(text.complete);
  std::string marked = text.text;
  for (std::size_t i = text.special.size(); i-- > 0;) {
    marked.insert(text.special[i].end, "]");
    marked.insert(text.special[i].begin, "[");
  }
  return marked;
}

// Expects an error with this text.
void expect_error(const std::function<void()>& call, const std::string& text) {
  try {
    call();
    ADD_FAILURE() << "no error: " << text;
  } catch (const Error& error) {
    EXPECT_NE(std::string_view(error.what()).find(text), std::string_view::npos) << error.what();
  }
}

TEST(Chat, MessagesStandBetweenTheTextsOfTheTemplate) {
  EXPECT_EQ(prompt_of({{"user", "<u> x"}}), "[<u>]<u> x[</u><a>]");
  EXPECT_EQ(prompt_of({{"system", "s"}, {"user", "x"}}), "[<s>]s[</s><u>]x[</u><a>]");
  EXPECT_EQ(prompt_of({{"user", "x"}, {"assistant", "y"}, {"user", "z"}}),
            "[<u>]x[</u><a>]y[</a><u>]z[</u><a>]");
}

TEST(Chat, WhiteSpaceIsTrimmedWhereTheTemplateDoesIt) {
  EXPECT_EQ(prompt_of({{"user", "\u3000x\x1f\n"}}), "[<u>]x[</u><a>]");
  EXPECT_EQ(prompt_of({{"system", " s "}, {"user", " x "}}), "[<s>] s[</s><u>] x[</u><a>]");
  EXPECT_EQ(prompt_of({{"user", " x "}, {"assistant", " y "}, {"user", " "}}),
            "[<u>]x[</u><a>] y [</a><u>][</u><a>]");
}

TEST(Chat, ConversationsThatTheModelDoesNotHave) {
  expect_error([] { prompt_of({}); }, "no messages");
  expect_error([] { prompt_of({{"user", "x"}, {"assistant", "y"}}); }, "last message");
  expect_error([] { prompt_of({{"tool", "x"}}); }, "'tool'");
  expect_error(
      [] {
        prompt_of({{"assistant", "x"}, {"user", "x"}});
      },
      "assistant at the beginning");
  expect_error([] { prompt_of({{"user", "x"}, {"user", "x"}}); }, "behind one with the role user");
}

TEST(Chat, WrongTransitions) {
  const auto with = [](json entry) {
    json steps = good_steps();
    steps.push_back(std::move(entry));
    return steps;
  };
  const std::vector<std::pair<json, std::string>> cases = {
      {"x", "an array of objects"},
      {json::array({1}), "an array of objects"},
      {json::array(), "those from the start to the user"},
      {json::array({step("start", "user", "")}), "from there to the answer"},
      {with(step("start", "user", "")), "all differ"},
      {with(step("answer", "user", "")), "'chat.transitions.from' is \"answer\""},
      {with(step("start", "start", "")), "'chat.transitions.to' is \"start\""},
      {with(step("user", "user", std::string((1 << 16) + 1, 'x').c_str())), "65536 bytes"},
      {with({{"from", "user"}, {"to", "user"}}), "'chat.transitions.text'"},
  };
  for (const auto& [steps, text] : cases)
    expect_error([&steps = steps] { template_of(steps); }, text);
}

TEST(Chat, OnlyADecoderWithAPipelineHasATemplate) {
  ModelBuilder model = tiny_decoder_model();
  model.header["chat"] = {{"transitions", good_steps()}};
  expect_error([&] { ModelFile("tiny.bin", model.bytes().span()); }, "header has 'chat'");
}

}  // namespace
}  // namespace xlate::test
