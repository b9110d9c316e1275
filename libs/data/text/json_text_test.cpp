#include "data/text/json_text.h"

#include <optional>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <rapidcheck.h>

namespace nanochat {
namespace {

// What the JSON library finds there; nullopt when it finds no string.
std::optional<std::string> expected(const std::string& line, const std::string& key) {
  const auto row = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!row.is_object() || !row.contains(key) || !row.at(key).is_string()) return std::nullopt;
  return row.at(key).get<std::string>();
}

std::optional<std::string> found(const std::string& line, const std::string& key) {
  std::string text = "left from before";
  if (!find_json_text(line, key, text)) return std::nullopt;
  return text;
}

TEST(JsonText, FindsTheStringInOrdinaryRows) {
  for (const std::string line :
       {R"({"text":"plain"})",
        R"( { "id" : -12.5 , "text" : "a\n\"b\" \u00e9\ud83d\ude00\/" , "x" : [1, {"text": []}, null] } )",
        R"({"meta":{"text":"inner","deep":[[[true,false]]]},"text":"outer"})", R"({"text":"first","text":"last"})",
        R"({"text":""})", "{\"text\":\"\xe4\xbd\xa0\xe5\xa5\xbd and more than eight bytes\"}",
        R"({"te\u0078t":"escaped key"})"}) {
    EXPECT_EQ(found(line, "text"), expected(line, "text")) << line;
    EXPECT_TRUE(found(line, "text")) << line;
  }
}

TEST(JsonText, LeavesTheRestToTheLibrary) {
  for (const std::string line : {"",
                                 "{}",
                                 "[]",
                                 R"({"text":5})",
                                 R"({"body":"x"})",
                                 R"({"text":"x"} more)",
                                 R"({"text":"x",})",
                                 R"({"text":"x")",
                                 R"({"text":"\ud800"})",
                                 R"({"text":"\udc00\ud800"})",
                                 R"({"text":"\x"})",
                                 R"({"text":"x","n":01})",
                                 R"({"text":"x","n":+1})",
                                 R"({"text":"x","n":1.})",
                                 R"({"text":"x","n":1e999})",
                                 R"({"text":"x","n":nul})",
                                 R"({"text":"a","text":1})",
                                 "{\"text\":\"a\tb\"}",
                                 "{\"text\":\"\xff\"}",
                                 "{\"text\":\"\xed\xa0\x80\"}",
                                 "{\"text\":\"x\",\"y\":\"\xc3\"}",
                                 R"({"text" "x"})",
                                 R"({text:"x"})"}) {
    EXPECT_FALSE(found(line, "text")) << line;
  }
}

// On damaged rows it may give up where the library reads on, and never the other way round or another text.
TEST(JsonText, NeverDiffersFromTheLibrary) {
  EXPECT_TRUE(rc::check("any bytes in strings", [] {
    const auto codes = *rc::gen::container<std::vector<char32_t>>(rc::gen::elementOf(std::vector<char32_t>{
        U'a', U'"', U'\\', U'\n', U'\x1f', U'\x7f', U'\u00e9', U'\u20ac', U'\U0001f600', U'/'}));
    std::string text;
    for (const char32_t c : codes) {
      text += c == U'\u00e9'       ? "\xc3\xa9"
              : c == U'\u20ac'     ? "\xe2\x82\xac"
              : c == U'\U0001f600' ? "\xf0\x9f\x98\x80"
                                   : std::string(1, static_cast<char>(c));
    }
    const std::string line = nlohmann::json{{"id", 7}, {"text", text}, {"z", {1.5, nullptr, text}}}.dump(
        -1, ' ', *rc::gen::arbitrary<bool>());
    RC_ASSERT(found(line, "text") == std::optional<std::string>(text));
  }));
  EXPECT_TRUE(rc::check("damaged rows", [] {
    std::string line = R"({"id":-1.5,"text":"a\u00e9\n\ud83d\ude00 caf)"
                       "\xc3\xa9 \xf0\x9f\x98\x80"
                       R"( b\"","l":[true,{"k":null}],"n":10})";
    const auto edits = *rc::gen::inRange(0, 4);
    for (int i = 0; i < edits; ++i) {
      const auto at = *rc::gen::inRange<std::size_t>(0, line.size());
      line[at] = *rc::gen::oneOf(rc::gen::arbitrary<char>(), rc::gen::elementOf(std::string("\"\\{}[]:,0e.-utn \xc3\xa9\xf0")));
    }
    const auto text = found(line, "text");
    if (text) RC_ASSERT(text == expected(line, "text"));
  }));
}

}  // namespace
}  // namespace nanochat
