// Tests the reading of JSON objects by their text, against the parser of nlohmann, and the writing
// of output objects.
#include "app/json_object.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "app/json_lines.h"
#include "engine/error.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

using json = nlohmann::json;

// Returns the message with which a text is refused, or nothing if it is an object.
std::string refusal_of(std::string_view text) {
  try {
    read_json_object(text);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

std::string fields_of(std::string_view text) { return own_fields(read_json_object(text)); }

JsonRequest request_of(std::string_view text, const std::string& key = "text") {
  return read_request(read_json_object(text), {.text = key});
}

TEST(JsonObject, MembersStayAsTheyAreWritten) {
  const std::string text =
      R"( { "a\u0062" : 1.10 ,"b":[1e400, {"c":-0}],"":"x\"}" , "n":null,"a":true } )";
  const auto members = read_json_object(text);
  std::vector<std::string> keys, values;
  for (const JsonMember& member : members) {
    keys.push_back(member.key);
    values.emplace_back(member.value);
  }
  EXPECT_EQ(keys, (std::vector<std::string>{"ab", "b", "", "n", "a"}));
  EXPECT_EQ(values, (std::vector<std::string>{"1.10", R"([1e400, {"c":-0}])", R"("x\"}")", "null",
                                              "true"}));
  EXPECT_EQ(members[0].text, R"("a\u0062" : 1.10)");
  EXPECT_TRUE(read_json_object("{}").empty());
  EXPECT_TRUE(read_json_object(" {\t} ").empty());
}

TEST(JsonObject, NumbersOfAllKinds) {
  for (const char* number : {"0", "-0", "12345678901234567890123", "1.10", "-0.5", "1e400", "1E+9",
                             "2.5e-300000", "0.0", "-0e0"}) {
    const std::string text = "{\"a\":" + std::string(number) + "}";
    EXPECT_EQ(read_json_object(text).at(0).value, number);
  }
  for (const char* number : {"01", "+1", ".5", "1.", "1e", "1e+", "-", "--1", "0x1", "1_0", "NaN",
                             "Infinity", "-Infinity", "1 2", "1,"})
    EXPECT_NE(refusal_of("{\"a\":" + std::string(number) + "}"), "") << number;
}

TEST(JsonObject, StringsAreDecoded) {
  EXPECT_EQ(json_string(R"("a\"\\\/\b\f\n\r\tz")"), "a\"\\/\b\f\n\r\tz");
  EXPECT_EQ(json_string(R"("\u0041\u00e4\u20AC\ud83d\ude00")"), "A\u00e4\u20ac\U0001F600");
  EXPECT_EQ(json_string(R"("\u0000")"), std::string(1, '\0'));
  EXPECT_EQ(json_string("1"), std::nullopt);
  EXPECT_EQ(json_string("null"), std::nullopt);
}

TEST(JsonObject, WhatIsRefusedIsNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "it ends at byte 0, expected '{'"},
      {"[1]", "byte 1: '[', expected '{'"},
      {"{\"a\":1", "it ends at byte 6, expected ',' or '}'"},
      {"{\"a\":[1}", "byte 8: '}', expected ',' or ']'"},
      {"{\"a\" 1}", "byte 6: '1', expected ':'"},
      {"{\"a\":1,}", "byte 8: '}', expected a string"},
      {"{\"a\":}", "byte 6: '}', expected a value"},
      {"{\"a\":\u00e4}", "byte 6: '\u00e4', expected a value"},
      {"{\"a\":\"b", "it ends at byte 7, expected the end of a string"},
      {"{\"a\":\"\t\"}", "byte 7: the character U+0009, expected an escape of this character"},
      {"{\"a\":\"\\x\"}", "byte 8: 'x', expected one of \", \\, /, b, f, n, r, t, u"},
      {"{\"a\":\"\\u12g4\"}", "byte 11: 'g', expected four hexadecimal digits behind \\u"},
      {"{\"a\":\"\\ud800\"}", "byte 7: '\\ud800', expected both halves of a surrogate pair"},
      {"{\"a\":\"\\udc00\\ud800\"}", "byte 7: '\\udc00', expected both halves of a surrogate pair"},
      {"{\"a\":\"\\ud800\\u0041\"}", "byte 7: '\\ud800', expected both halves of a surrogate pair"},
      {"{\"\\ud800\":1}", "byte 3: '\\ud800', expected both halves of a surrogate pair"},
      {"{} {}", "byte 4: '{', expected nothing behind the object"},
      {"{'a':1}", "byte 2: ''', expected a string"}};
  for (const auto& [text, message] : cases) EXPECT_EQ(refusal_of(text), message) << text;
  using namespace std::string_literals;
  EXPECT_EQ(refusal_of("{\0}"s), "byte 2: the character U+0000, expected a string");
}

TEST(JsonObject, DeepNestingIsRefusedWithoutRecursion) {
  const auto nested = [](std::size_t levels) {
    return "{\"a\":" + std::string(levels, '[') + std::string(levels, ']') + "}";
  };
  EXPECT_EQ(refusal_of(nested(kMostNestedJson - 1)), "");
  EXPECT_NE(refusal_of(nested(kMostNestedJson)), "");
  EXPECT_NE(refusal_of("{\"a\":" + std::string(500'000, '[')), "");
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_NE(refusal_of(objects), "");
}

// The scanner and nlohmann's parser must agree on texts that are nearly JSON, but for numbers that
// the parser cannot hold.
TEST(JsonObject, AgreesWithAParserOnDamagedObjects) {
  std::mt19937 random(7);
  const auto below = [&](std::size_t n) {
    return std::uniform_int_distribution<>(0, int(n) - 1)(random);
  };
  const std::vector<std::string> objects = {
      R"({"text":"a \u00e4\n\"b\"","n":[1,2.50,-3e5,{"x":null}],"t":true,"f":false,"o":{}})",
      R"({ "a" : [ ] , "b" : { "c" : [ [ ] , "\ud83d\ude00" ] } , "a" : "\/\\" })", "{}",
      "{\"\u00e4\u20ac\U0001F600\":0}"};
  const std::string alphabet = "{}[]\",:\\u0123456789abcdefE+-. \t\r\ntrfalsn\xff\xc3\x1f";
  int valid = 0;
  for (int round = 0; round < 60'000; ++round) {
    std::string text = objects[below(objects.size())];
    for (int changes = below(4); changes >= 0; --changes) {
      const std::size_t at = below(text.size() + 1);
      const char c = round % 3 ? alphabet[below(alphabet.size())] : char(below(256));
      switch (below(4)) {
        case 0:
          text.insert(at, 1, c);
          break;
        case 1:
          text.erase(at, 1 + below(3));
          break;
        case 2:
          if (at < text.size()) text[at] = c;
          break;
        default:
          if (below(4) == 0) text.resize(at);
      }
    }
    // nlohmann's parser takes a NUL for the end of the text.
    std::replace(text.begin(), text.end(), '\0', '?');
    make_valid_utf8(text);
    json parsed;
    try {
      parsed = json::parse(text);
    } catch (const json::out_of_range&) {
      continue;
    } catch (const json::parse_error&) {
      parsed = nullptr;
    }
    ASSERT_EQ(refusal_of(text).empty(), parsed.is_object()) << text;
    if (!parsed.is_object()) continue;
    ++valid;
    json members = json::object();
    for (const JsonMember& member : read_json_object(text))
      members[member.key] = json::parse(member.value);
    ASSERT_EQ(members, parsed) << text;
    json again = json::parse(json_line(fields_of(text), std::vector<LineResult>(1), {}));
    EXPECT_EQ(again["tokens"], 0) << text;
  }
  EXPECT_GT(valid, 5000);
}

TEST(JsonObject, StringsAreWrittenAsUtf8) {
  using namespace std::string_literals;
  std::string out;
  append_json_string(out, "\u00e4 \"\\/\n\t\r\b\0\x1f\x7f\u2028"s);
  EXPECT_EQ(out, "\"\u00e4 \\\"\\\\/\\n\\t\\u000d\\u0008\\u0000\\u001f\x7f\u2028\"");
  EXPECT_EQ(json_string(out), "\u00e4 \"\\/\n\t\r\b\0\x1f\x7f\u2028"s);
}

TEST(JsonLines, OwnFieldsStayAndThoseThatAreWrittenGo) {
  EXPECT_EQ(fields_of("{}"), "{");
  EXPECT_EQ(fields_of(R"({"text": "x" , "n":1.10 })"), R"({"text": "x" , "n":1.10)");
  EXPECT_EQ(fields_of(R"({"output":1,"text":"x","score":[],"b":2, "tokens":3,"error":""})"),
            R"({"text":"x","b":2)");
  EXPECT_EQ(fields_of(R"({"\u006futput":1})"), "{");
  EXPECT_EQ(fields_of(R"({"a":1,"output":1,"a":2})"), R"({"a":1,"a":2)");
  const std::string annotated = R"({"alignments":1,"token_scores":2})";
  EXPECT_EQ(fields_of(annotated), annotated.substr(0, annotated.size() - 1));
  EXPECT_EQ(own_fields(read_json_object(annotated), {.alignments = true}), R"({"token_scores":2)");
}

TEST(JsonLines, ResultsAreWrittenBehindTheFields) {
  const std::vector<LineResult> results{{.text = "a\n", .score = -0.125f, .tokens = 2},
                                        {.text = "", .score = -INFINITY, .tokens = 1}};
  EXPECT_EQ(json_line("{\"x\":1", results, {}),
            "{\"x\":1, \"output\": \"a\\n\", \"score\": -0.125, \"tokens\": 2}\n");
  EXPECT_EQ(json_line("{", results, {.list = true}),
            "{\"output\": [{\"output\": \"a\\n\", \"score\": -0.125, \"tokens\": 2}, "
            "{\"output\": \"\", \"score\": null, \"tokens\": 1}]}\n");
  const std::vector<LineResult> annotated{{"a", -2, -1, 2, {{3, 0}, {0, 1}}, {-0.5f, -0.25f}}};
  EXPECT_EQ(json_line("{", annotated, {.alignments = true, .token_scores = true}),
            "{\"output\": \"a\", \"score\": -1, \"tokens\": 2, \"alignments\": [[3, 0], [0, 1]], "
            "\"token_scores\": [-0.5, -0.25]}\n");
  EXPECT_EQ(json_error_line("{", "no \"x\""), "{\"error\": \"no \\\"x\\\"\"}\n");
}

TEST(JsonLines, WhatALineAsksFor) {
  const JsonRequest request = request_of(
      R"({"text":"a","text":"b","source_lang":"en","target_lang":"de","max_new_tokens":7})");
  EXPECT_EQ(request.text, "b");
  EXPECT_EQ(request.source_lang, "en");
  EXPECT_EQ(request.target_lang, "de");
  EXPECT_EQ(request.max_new_tokens, 7);
  EXPECT_EQ(request_of(R"({"text":1,"src":"a"})", "src").text, "a");
  EXPECT_EQ(request_of(R"({"text":""})").max_new_tokens, std::nullopt);
}

TEST(JsonLines, ValuesOfTheWrongTypeAreRefused) {
  for (const char* text : {R"({})", R"({"Text":"a"})", R"({"text":null})", R"({"text":["a"]})",
                           R"({"text":1})", R"({"text":"a","text":1})",
                           R"({"text":"a","source_lang":1})", R"({"text":"a","target_lang":null})"})
    EXPECT_THROW(request_of(text), Error) << text;
  for (const char* number : {"0", "-1", "1.0", "1e1", "\"5\"", "true", "null", "[]", "2147483648",
                             "1073741825", "12345678901234567890123"}) {
    EXPECT_THROW(request_of(R"({"text":"a","max_new_tokens":)" + std::string(number) + "}"), Error)
        << number;
  }
}

TEST(LineFields, AreTakenOnce) {
  LineFields fields;
  fields.put(3, "{\"a\":1");
  EXPECT_EQ(fields.take(3), "{\"a\":1");
  EXPECT_EQ(fields.take(3), "{");
}

}  // namespace
}  // namespace xlate
