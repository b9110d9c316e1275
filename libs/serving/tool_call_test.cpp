#include "serving/internal/tool_call.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <memory>
#include <utility>

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

std::shared_ptr<const ByteDfa> beginning_of(const std::vector<std::string>& names) {
  std::vector<ToolFunction> functions;
  for (const std::string& name : names) functions.push_back({name, {}, ""});
  return std::make_shared<const ByteDfa>(call_beginning(functions));
}

// What the parts of a text give together, for pieces of a size: the text, and "name(arguments);" of each call.
std::pair<std::string, std::string> read(const std::shared_ptr<const ByteDfa>& beginning, std::string_view text,
                                         std::size_t size) {
  ToolCallReader reader(beginning);
  std::string plain;
  std::vector<std::pair<std::string, std::string>> calls;
  for (std::size_t begin = 0; begin < text.size(); begin += size) {
    const ToolCallReader::Content content = reader.push(text.substr(begin, size));
    plain += content.text;
    for (const ToolCallPart& part : content.calls) {
      calls.resize(std::max(calls.size(), static_cast<std::size_t>(part.index) + 1));
      auto& [name, arguments] = calls.at(static_cast<std::size_t>(part.index));
      EXPECT_TRUE(name.empty() || part.name.empty());
      EXPECT_FALSE(name.empty() && part.name.empty());  // the name comes first
      name += part.name;
      arguments += part.arguments;
    }
  }
  plain += reader.finish();
  EXPECT_EQ(reader.has_called(), !calls.empty());
  std::string all;
  for (const auto& [name, arguments] : calls) all += name + "(" + arguments + ");";
  return {plain, all};
}

TEST(ToolCallReader, TakesCallsApartWhereverTheirPiecesEnd) {
  const std::string arguments = R"({"a": "}\" ,{ é", "b": {"name": [1, {"arguments": ":"}]}})";
  const std::string call = R"({ "name" : "say \"hi\":", "arguments": )" + arguments + " }";
  const auto beginning = beginning_of({"other", "say \"hi\":", "f.(x)*"});
  const std::string text = "Let me see.\n{\"name\n\n" + call + "\n" + R"({"name":"f.(x)*","arguments":{}})" + "\n";
  for (std::size_t size = 1; size <= text.size(); ++size) {
    const auto [plain, calls] = read(beginning, text, size);
    EXPECT_EQ(plain, "Let me see.\n{\"name") << size;
    EXPECT_EQ(calls, "say \"hi\":(" + arguments + ");f.(x)*({});") << size;
  }
}

TEST(ToolCallReader, LeavesOtherTextAlone) {
  const auto beginning = beginning_of({"f"});
  for (const std::string text : {"", "Hi", "\n\n Hi \n", "{\"name\": \"g\", \"arguments\": {}}", "{\"name\"", "{}\n{\"a\":1}\n",
                                 "Say {\"name\": \"f\", \"arguments\": {}}", "\xc3\xa9\n{\xff"}) {
    for (const std::size_t size : {1, 3, 100}) {
      const auto [plain, calls] = read(beginning, text, size);
      EXPECT_EQ(plain, text);
      EXPECT_EQ(calls, "");
    }
  }
}

TEST(ToolCallReader, TakesWhatACallHasThatIsNotComplete) {
  const auto beginning = beginning_of({"f"});
  EXPECT_EQ(read(beginning, R"({"name": "f", "arguments": {"a": [1)", 2).second, R"(f({"a": [1);)");
  EXPECT_EQ(read(beginning, R"({"name": "f", "arguments": null} more)", 2),
            (std::pair<std::string, std::string>(" more", "f();")));
}

}  // namespace
}  // namespace nanochat
