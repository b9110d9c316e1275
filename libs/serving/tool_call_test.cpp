#include "serving/internal/tool_call.h"

#include <gmock/gmock.h>
#include <spdlog/fmt/fmt.h>

#include "serving/api_error.h"

namespace nanochat {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using ::testing::HasSubstr;

std::vector<ToolFunction> functions_of(const char* text) { return parse_tools(json::parse(text), ordered_json::parse(text)); }

constexpr const char* kTwo = R"([
  {"type": "function", "function": {"name": "search", "parameters": {"type": "object",
    "properties": {"words": {"type": "array", "items": {"$ref": "#/$defs/word"}}, "limit": {"type": "integer"}},
    "required": ["words"], "$defs": {"word": {"type": "string"}}}}},
  {"type": "function", "function": {"description": "The time.", "name": "now"}}])";

template <class Call>
std::string refusal(const Call& call) {
  try {
    call();
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status(), 400);
    return error.what();
  }
  return "";
}

TEST(ParseTools, KeepsTheOrderOfKeys) {
  const auto functions = functions_of(kTwo);
  ASSERT_EQ(functions.size(), 2u);
  EXPECT_EQ(functions[0].name, "search");
  EXPECT_THAT(describe_tools(functions), HasSubstr("\n{\"description\":\"The time.\",\"name\":\"now\"}"));
  EXPECT_EQ(describe_tools({}), "");
}

TEST(ParseTools, NamesWhatIsWrong) {
  EXPECT_THAT(refusal([] { functions_of(R"([{"type": "web"}])"); }),
              HasSubstr("tools[0].type: found \"web\", expected \"function\""));
  EXPECT_THAT(refusal([] { functions_of(R"([{"type": "function"}])"); }), HasSubstr("tools[0].function: missing"));
  EXPECT_THAT(refusal([] { functions_of(R"([{"function": {"name": ""}}])"); }), HasSubstr("tools[0].function.name: missing"));
  EXPECT_THAT(refusal([] { functions_of(R"([{"function": {"name": "f", "parameters": [1]}}])"); }),
              HasSubstr("tools[0].function.parameters: found an array, expected an object"));
  EXPECT_THAT(refusal([] { functions_of(R"([{"function": {"name": "f", "description": 1}}])"); }), HasSubstr("description"));
}

TEST(ParseToolChoice, SaysWhatMayBeCalled) {
  const auto choose = [](const json& value) { return parse_tool_choice(&value, functions_of(kTwo)); };
  EXPECT_EQ(parse_tool_choice(nullptr, functions_of(kTwo)).functions.size(), 2u);
  EXPECT_EQ(choose("auto").choice, ToolChoice::kAuto);
  EXPECT_TRUE(choose("none").functions.empty());
  EXPECT_EQ(choose("required").functions.size(), 2u);
  const ToolRequest named = choose({{"type", "function"}, {"function", {{"name", "now"}}}});
  EXPECT_EQ(named.choice, ToolChoice::kRequired);
  ASSERT_EQ(named.functions.size(), 1u);
  EXPECT_EQ(named.functions[0].name, "now");

  EXPECT_THAT(refusal([&] { choose("maybe"); }), HasSubstr("found \"maybe\", expected none, auto, required or an object"));
  EXPECT_THAT(refusal([&] { choose(5); }), HasSubstr("found an integer"));
  EXPECT_THAT(refusal([&] { choose({{"type", "allowed_tools"}}); }), HasSubstr("tool_choice.type"));
  EXPECT_THAT(refusal([&] { choose({{"type", "function"}}); }), HasSubstr("tool_choice.function.name: missing"));
  EXPECT_THAT(refusal([&] {
                choose({{"type", "function"}, {"function", {{"name", "other"}}}});
              }),
              HasSubstr("found \"other\", expected a function of"));
  const json required = "required";
  EXPECT_THAT(refusal([&] { parse_tool_choice(&required, {}); }), HasSubstr("expected at least one function in \"tools\""));
}

TEST(CallSchema, IsOneOfTheFunctionsWithItsArguments) {
  const ordered_json schema = call_schema(functions_of(kTwo));
  EXPECT_EQ(schema["anyOf"][0]["properties"]["name"]["const"], "search");
  const ordered_json& arguments = schema["anyOf"][0]["properties"]["arguments"];
  EXPECT_EQ(arguments["$id"], "tools[0].function.parameters");  // what "#/$defs/word" is a place of
  EXPECT_EQ(arguments["properties"].begin().key(), "words");  // in the order of the request
  EXPECT_EQ(
      schema["anyOf"][1]["properties"]["arguments"],
      ordered_json::parse(
          R"({"type": "object", "properties": {}, "additionalProperties": false, "$id": "tools[1].function.parameters"})"));
  EXPECT_THAT(refusal([] { call_schema(functions_of(R"([{"function": {"name": "f", "parameters": {"type": "string"}}}])")); }),
              HasSubstr("found type \"string\" for the parameters of \"f\", expected an object"));
}

TEST(CallSchema, ArgumentsAreObjectsHoweverTheSchemaSaysIt) {
  const auto parameters = [](const std::string& schema) {
    return [schema] { call_schema(functions_of((R"([{"function": {"name": "f", "parameters": )" + schema + "}}]").c_str())); };
  };
  for (const char* objects :
       {R"({})", R"({"properties": {}})", R"({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}})",
        R"({"anyOf": [{"type": "object"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {"properties": {"b": {}}}}})",
        R"({"anyOf": [{"$ref": "#"}, {"type": "object"}]})", R"({"const": {}})", R"({"allOf": [{"type": "object"}]})"}) {
    EXPECT_EQ(refusal(parameters(objects)), "") << objects;
  }
  for (const char* others : {R"({"type": "string"})", R"({"type": ["object", "null"]})",
                             R"({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array"}}})",
                             R"({"anyOf": [{"type": "object"}, {}]})", R"({"const": 1})", R"({"enum": ["a"]})"}) {
    EXPECT_THAT(refusal(parameters(others)), HasSubstr("for the parameters of \"f\", expected an object")) << others;
  }
  std::string doubling = R"({"$ref": "#/$defs/a0", "$defs": {)";  // each way through it on its own would take for ever
  for (int i = 0; i < 60; ++i)
    doubling += fmt::format(R"("a{0}": {{"anyOf": [{{"$ref": "#/$defs/a{1}"}}, {{"$ref": "#/$defs/a{1}"}}]}}, )", i, i + 1);
  EXPECT_EQ(refusal(parameters(doubling + R"("a60": {"type": "object"}}})")), "");
}

TEST(ToolCallText, TakesACallApartWhereverItsPiecesEnd) {
  const std::string arguments = R"({"a": "}\" ,{ é", "b": {"name": [1, {"arguments": ":"}]}})";
  const std::string text = R"({ "name" : "say \"hi\":", "arguments": )" + arguments + " }";
  for (std::size_t size = 1; size <= text.size(); ++size) {
    ToolCallText call;
    std::string name, joined;
    int names = 0;
    for (std::size_t begin = 0; begin < text.size(); begin += size) {
      const ToolCallPart part = call.push(std::string_view(text).substr(begin, size));
      name += part.name;
      names += part.name.empty() ? 0 : 1;
      EXPECT_TRUE(names == 1 || part.arguments.empty());
      joined += part.arguments;
      EXPECT_EQ(part.empty(), part.name.empty() && part.arguments.empty());
    }
    EXPECT_EQ(name, "say \"hi\":");
    EXPECT_EQ(joined, arguments) << size;
  }
}

}  // namespace
}  // namespace nanochat
