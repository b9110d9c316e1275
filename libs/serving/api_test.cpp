#include "serving/api.h"

#include <algorithm>
#include <ctime>

#include <gmock/gmock.h>
#include <spdlog/fmt/fmt.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/log.h"
#include "core/random.h"
#include "core/testing.h"
#include "inference/answer_constraint.h"
#include "serving/testing_api.h"

namespace nanochat {
namespace {

using nlohmann::json;
using testing::ApiTest;
using ::testing::HasSubstr;

// ---------------------------------------------------------------------------------------------------- schemas gone wrong

const std::shared_ptr<const TokenTrie>& byte_trie() {
  static const auto trie = [] {
    static std::string bytes;
    for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
    return std::make_shared<const TokenTrie>(256, [](std::int32_t id) {
      return std::string_view(bytes).substr(static_cast<std::size_t>(id), 1);
    });
  }();
  return trie;
}

class SchemaTest : public ApiTest {
 protected:
  SchemaTest() {
    make_constraint_ = [](AnswerForm form, const nlohmann::ordered_json& value) {
      return answer_constraint(form, value, byte_trie());
    };
    backend_->answer = "{}";
  }
  // The schema in every place of a request that takes one; `text` is JSON.
  std::vector<std::string> bodies(const std::string& text) const {
    const std::string front = R"({"messages": [{"role": "user", "content": "a"}], )";
    return {front + R"("response_format": {"type": "json_schema", "json_schema": {"schema": )" + text + "}}}",
            front + R"("response_format": {"type": "json_object", "schema": )" + text + "}}",
            front + R"("guided_json": )" + text + "}",
            front + R"("tool_choice": "required", "tools": [{"type": "function", "function": {"name": "g"}},
                       {"type": "function", "function": {"name": "f", "parameters": )" +
                text + "}}]}"};
  }
  // A request of these takes at most a second. Without limits on schemas, some would take minutes.
#if defined(__SANITIZE_ADDRESS__)
  static constexpr int kMostSeconds = 60;  // 24 were measured: it makes each of millions of allocations slow
#else
  static constexpr int kMostSeconds = 20;
#endif
  // Each place must answer 200 or 400, and quickly. Returns the messages of the 400s.
  std::vector<std::string> outcomes(const std::string& text) {
    std::vector<std::string> messages;
    for (const std::string& body : bodies(text)) {
      const std::clock_t begin = std::clock();
      const auto exchange = call("POST", "/v1/chat/completions", body);
      const auto seconds = (std::clock() - begin) / CLOCKS_PER_SEC;  // of processor time: other programs do not count
      EXPECT_TRUE(status(exchange) == 200 || status(exchange) == 400) << status(exchange) << " " << text.substr(0, 1000);
      EXPECT_LT(seconds, kMostSeconds) << text.substr(0, 1000);
      messages.push_back(status(exchange) == 400 ? error(exchange)["message"].get<std::string>() : "");
      exchange->let_go();
      exchanges_.pop_back();
    }
    backend_->let_go();
    return messages;
  }
};

TEST_F(SchemaTest, AReferenceThatNamesNoPlaceIsNamed) {
  for (const char* reference :
       {"#/$defs/~", "#/$defs/~2", "#/anyOf/99999999999999999999", "#/anyOf/-", "#/anyOf/01", "#/$defs/a%2", "#/$defs/%zz",
        "#/$defs/b", "#x", "other.json", "", "#/", "#/$defs//", "https://example.com/schema#/$defs/a"}) {
    const std::string text = fmt::format(
        R"({{"type": "object", "properties": {{"p": {{"$ref": "{}"}}}}, "$defs": {{"a": {{"type": "string"}}}}, "examples": [1]}})",
        reference);
    for (const std::string& message : outcomes(text)) {
      EXPECT_THAT(message, HasSubstr(fmt::format("$ref is \"{}\"", reference)));
    }
    EXPECT_THAT(outcomes(text)[3], HasSubstr("tools[1].function.parameters/properties/p: $ref is"));
  }
  for (const char* wrong : {"1", "null", "{}", "[\"#/$defs/a\"]"}) {
    EXPECT_THAT(outcomes(fmt::format(R"({{"type": "object", "properties": {{"p": {{"$ref": {}}}}}}})", wrong))[3],
                HasSubstr("$ref is"));
  }
}

TEST_F(SchemaTest, ReferencesMeanPlacesOfTheParametersInToolsToo) {
  for (const char* good :
       {R"({"type": "object", "properties": {"p": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}})",
        R"({"type": "object", "properties": {"p": {"$ref": "#/$defs/a%20~1b~0"}}, "$defs": {"a /b~": {"type": "string"}}})",
        R"({"type": "object", "properties": {"p": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}})",
        R"({"type": "object", "properties": {"p": {"$ref": "#/properties/q"}, "q": {"enum": ["x"]}}})",
        R"({"type": "object", "properties": {"p": {"const": {"$ref": "#/no/place"}}}})"}) {
    EXPECT_THAT(outcomes(good), ::testing::Each("")) << good;
  }
}

TEST_F(SchemaTest, WhatIsTooMuchIsRefusedAndQuickly) {
  const auto repeated = [](int times, const std::string& front, const std::string& middle, const std::string& back) {
    std::string text;
    for (int i = 0; i < times; ++i) text += front;
    text += middle;
    for (int i = 0; i < times; ++i) text += back;
    return text;
  };
  std::string chain = R"({"$ref": "#/$defs/a0", "$defs": {)";
  for (int i = 0; i < 1000; ++i)
    chain += fmt::format(R"("a{}": {{"type": "array", "items": {{"$ref": "#/$defs/a{}"}}}}, )", i, i + 1);
  chain += R"("a1000": {"type": "null"}}})";
  std::string values = R"({"enum": [0)";
  for (int i = 1; i < 400'000; ++i) values += "," + std::to_string(i);
  values += "]}";
  std::string prefixes = R"({"enum": [")";
  for (int i = 1; i < 1500; ++i) prefixes += std::string(static_cast<std::size_t>(i), 'a') + "\",\"";
  prefixes += "\"]}";
  std::string optional = R"({"type": "object", "properties": {)";
  for (int i = 0; i < 2000; ++i) optional += fmt::format(R"({}"p{}": {{"type": "null"}})", i > 0 ? "," : "", i);
  optional += "}}";
  const std::vector<std::string> schemas = {
      repeated(20, R"({"type": "array", "minItems": 4096, "items": )", R"({"type": "string", "minLength": 4096})", "}"),
      repeated(60, R"({"type": "array", "items": )", "true", "}"),
      repeated(50, R"({"type": ["array", "array", "array", "object"], "items": )", R"({"type": "null"})",
               R"(, "properties": {}})"),
      repeated(50, R"({"type": ["array", "array"], "items": )", R"({"type": "null"})", "}"),
      repeated(30, R"({"anyOf": [{"type": "null"}, )", R"({"type": "null"})", "]}"),
      repeated(100, R"({"type": "object", "properties": {"a": )", "{}", "}}"),
      repeated(200, "[", "", "]"),
      chain,
      values,
      prefixes,
      optional,
      R"({"type": "array", "minItems": 99999999999999999999})",
      R"({"type": "array", "minItems": 1e300})",
      R"({"type": "integer", "minimum": 1e400})",
      R"({"type": "integer", "minimum": 1e300, "maximum": -1e300})",
      R"({"type": "integer", "minimum": -999999999999999, "maximum": 999999999999999})",
      R"({"const": )" + std::string(1'200'000, '9') + "}",
      R"({"const": ")" + std::string(1'200'000, 'a') + "\"}",
      R"({"$ref": "#"})",
      R"({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]})",
      R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}})",
      R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})"};
  for (const std::string& text : schemas) outcomes(text);
  EXPECT_THAT(outcomes(schemas[0])[0], HasSubstr("none that is short enough to be written"));
  EXPECT_THAT(outcomes(chain)[0], HasSubstr("nested more than 256 deep, references included"));
  EXPECT_EQ(outcomes(optional)[0], "");
  EXPECT_THAT(outcomes(R"({"$ref": "#"})")[0], HasSubstr("no finite value"));
}

// Random changes to schemas: to values and keys, by what is odd, and by parts of other schemas.
class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : rng_(seed) {}

  nlohmann::ordered_json mutated(nlohmann::ordered_json schema) {
    for (std::uint64_t i = 0, n = 1 + rng_.below(4); i < n; ++i) change(schema, 0);
    return schema;
  }

 private:
  using Json = nlohmann::ordered_json;

  void change(Json& node, int depth) {
    const bool inner = node.is_structured() && !node.empty() && depth < 12 && rng_.below(5) != 0;
    if (inner) {
      auto member = node.begin();
      std::advance(member, static_cast<std::ptrdiff_t>(rng_.below(node.size())));
      if (rng_.below(12) == 0) {
        node.erase(member);
      } else {
        change(*member, depth + 1);
      }
      return;
    }
    if (node.is_object() && rng_.below(2) == 0) {
      node[keyword()] = odd();
    } else if (node.is_array() && rng_.below(2) == 0) {
      node.push_back(node.empty() || rng_.below(2) == 0 ? odd() : Json(node[0]));
    } else {
      node = odd();
    }
  }

  std::string keyword() {
    static const std::vector<std::string> all = {"type",
                                                 "properties",
                                                 "required",
                                                 "additionalProperties",
                                                 "items",
                                                 "minItems",
                                                 "maxItems",
                                                 "enum",
                                                 "const",
                                                 "anyOf",
                                                 "allOf",
                                                 "oneOf",
                                                 "not",
                                                 "$ref",
                                                 "$defs",
                                                 "definitions",
                                                 "$id",
                                                 "$schema",
                                                 "minLength",
                                                 "maxLength",
                                                 "minimum",
                                                 "maximum",
                                                 "exclusiveMinimum",
                                                 "exclusiveMaximum",
                                                 "multipleOf",
                                                 "pattern",
                                                 "format",
                                                 "title",
                                                 "default",
                                                 "description",
                                                 "examples",
                                                 "nullable",
                                                 "if",
                                                 "",
                                                 "a",
                                                 "~",
                                                 "/"};
    return rng_.choose(all);
  }

  Json odd() {
    static const std::vector<const char*> all = {"null",
                                                 "true",
                                                 "false",
                                                 "0",
                                                 "-1",
                                                 "1",
                                                 "4096",
                                                 "4097",
                                                 "1.5",
                                                 "-0.0",
                                                 "1e308",
                                                 "-1e308",
                                                 "1e-320",
                                                 "9223372036854775807",
                                                 "-9223372036854775808",
                                                 "18446744073709551615",
                                                 "99999999999999999999999",
                                                 "\"\"",
                                                 "\"a\"",
                                                 "\"\\u0000\"",
                                                 "\"\\ud83d\\ude00\"",
                                                 "[]",
                                                 "{}",
                                                 "[[]]",
                                                 "[null]",
                                                 "[\"a\",\"a\"]",
                                                 "\"object\"",
                                                 "\"array\"",
                                                 "\"string\"",
                                                 "\"integer\"",
                                                 "\"number\"",
                                                 "\"boolean\"",
                                                 "\"null\"",
                                                 "[\"object\",\"null\"]",
                                                 "\"#\"",
                                                 "\"#/\"",
                                                 "\"#/$defs\"",
                                                 "\"#/$defs/~\"",
                                                 "\"#/$defs/~2\"",
                                                 "\"#/$defs/n\"",
                                                 "\"#/anyOf/0\"",
                                                 "\"#/anyOf/99999999999999999999\"",
                                                 "\"#/properties/a\"",
                                                 "\"#/type\"",
                                                 "\"#/items\"",
                                                 "{\"$ref\":\"#\"}",
                                                 "{\"type\":\"string\"}",
                                                 "{\"type\":\"object\"}",
                                                 "{\"a\":1}",
                                                 "{\"type\":\"array\",\"items\":{\"$ref\":\"#\"},\"minItems\":3}",
                                                 "{\"const\":null}",
                                                 "{\"a\":{\"$ref\":\"#/$defs/a\"}}"};
    return Json::parse(rng_.choose(all));
  }

  Rng rng_;
};

TEST_F(SchemaTest, AMutatedSchemaIsTakenOrRefused) {
  const std::vector<const char*> seeds = {
      R"({"type":"object","properties":{"a":{"type":"string","minLength":1,"maxLength":9},"b":{"type":"integer","minimum":-4,"maximum":70},"c":{"type":["number","null"]}},"required":["a","b"],"additionalProperties":false})",
      R"({"type":"object","properties":{"kind":{"const":"x","type":"string","title":"Kind"},"a":{"enum":["p","q",1,null],"type":["string","null"],"default":"p"}},"required":["kind"]})",
      R"({"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]},"a":{"type":"boolean"}},"required":["next"]}}})",
      R"({"type":"object","properties":{"a":{"type":"array","items":{"anyOf":[{"type":"integer"},{"$ref":"#/$defs/s"}]},"minItems":1,"maxItems":4}},"$defs":{"s":{"allOf":[{"type":"string"}]}}})",
      R"({"type":"object","additionalProperties":{"type":"array","items":{"type":"object"}}})",
      R"({"anyOf":[{"type":"object","properties":{"k":{"const":"v"}},"required":["k"]},{"type":"object"}],"$id":"x"})"};
  Mutator mutator(11);
  int taken = 0, refused = 0;
  for (int i = 0; i < 3000; ++i) {
    const std::string text = mutator.mutated(nlohmann::ordered_json::parse(seeds[static_cast<std::size_t>(i) % seeds.size()]))
                                 .dump();
    for (const std::string& message : outcomes(text)) ++(message.empty() ? taken : refused);
  }
  EXPECT_GT(taken, 1000);
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace nanochat
