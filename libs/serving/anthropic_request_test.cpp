#include "serving/internal/anthropic_request.h"

#include <gmock/gmock.h>

#include "serving/api_error.h"
#include "serving/testing.h"

namespace nanochat {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

json body_with(const json& extra) {
  json body = {{"max_tokens", 9}, {"messages", {{{"role", "user"}, {"content", "Hi"}}}}};
  body.update(extra);
  return body;
}

std::string refusal(const json& extra) {
  try {
    parse_anthropic_request(body_with(extra).dump(), {});
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status(), 400);
    EXPECT_EQ(std::string(error.what()).rfind(error.param(), 0), 0u) << error.what();
    return error.what();
  }
  return "";
}

std::string refused_message(const char* message) { return refusal({{"messages", json::array({json::parse(message)})}}); }

Conversation conversation_of(const char* fields) {
  return parse_anthropic_request(std::string(R"({"max_tokens": 9, )") + fields + "}", {}).conversation;
}

TEST(AnthropicRequest, ReadsEveryField) {
  const ChatRequest request = parse_anthropic_request(body_with({{"model", "m"},
                                                                 {"stream", true},
                                                                 {"temperature", 0.5},
                                                                 {"top_p", 0.9},
                                                                 {"top_k", 7},
                                                                 {"stop_sequences", {"a", "b"}},
                                                                 {"seed", 3},
                                                                 {"metadata", {{"user_id", "u"}}},
                                                                 {"service_tier", "auto"},
                                                                 {"thinking", {{"type", "disabled"}}},
                                                                 {"nanochat_tools", false}})
                                                          .dump(),
                                                      {});
  EXPECT_EQ(request.fields.model, "m");
  EXPECT_TRUE(request.fields.stream);
  EXPECT_EQ(request.fields.max_tokens, 9);
  EXPECT_EQ(request.fields.sampling.temperature, 0.5);
  EXPECT_EQ(request.fields.sampling.top_p, 0.9);
  EXPECT_EQ(request.fields.sampling.top_k, 7);
  EXPECT_EQ(request.fields.sampling.seed, 3u);
  EXPECT_THAT(request.fields.stop, ElementsAre("a", "b"));
  EXPECT_EQ(request.nanochat_tools, false);
  EXPECT_EQ(request.conversation.messages, (std::vector<Message>{{"user", "Hi"}}));
}

TEST(AnthropicRequest, BlocksBecomeTurns) {
  const Conversation conversation = conversation_of(R"("system": [{"type": "text", "text": "One.",
      "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "Two."}],
    "messages": [
      {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "this?"}]},
      {"role": "assistant", "content": [{"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"z": 1, "a": {"y": 2, "b": 3}}},
        {"type": "tool_use", "id": "toolu_2", "name": "hear", "input": {}}]},
      {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_2", "content": "nothing"},
        {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": true, "content": [{"type": "text", "text": "dark"}]},
        {"type": "text", "text": "Well?"}]},
      {"role": "system", "content": "Three."}])");
  EXPECT_EQ(conversation.messages, (std::vector<Message>{{"system", "One.\n\nTwo.\n\nThree."},
                                                         {"user", "What is this?"},
                                                         {"assistant",
                                                          "I look.\n\n"
                                                          R"({"name":"look","arguments":{"z":1,"a":{"y":2,"b":3}}})"
                                                          "\n"
                                                          R"({"name":"hear","arguments":{}})"},
                                                         {"user",
                                                          "Result of hear:\nnothing\n\nResult of look:\nError: dark"
                                                          "\n\nWell?"}}));
}

TEST(AnthropicRequest, AnOpenAnswerIsContinued) {
  const auto request = [](const char* messages) {
    return parse_anthropic_request(std::string(R"({"max_tokens": 9, "messages": )") + messages + "}", {});
  };
  const ChatRequest open = request(R"([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "He"}])");
  EXPECT_TRUE(open.continues());
  EXPECT_EQ(open.conversation.messages.back(), Message("assistant", "He"));
  EXPECT_FALSE(request(R"([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": []}])").continues());
  const ChatRequest greeting = request(R"([{"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Hi"}])");
  EXPECT_EQ(greeting.conversation.messages, (std::vector<Message>{{"user", ""}, {"assistant", "Yes?"}, {"user", "Hi"}}));
}

TEST(AnthropicRequest, ToolsAreDescribedAsInChats) {
  const char* fields = R"("messages": [{"role": "user", "content": "Hi"}],
    "tools": [{"input_schema": {"type": "object", "properties": {"z": {"type": "integer"}, "a": {"type": "integer"}}},
               "description": "Looks.", "name": "look", "strict": true}])";
  const Conversation conversation = conversation_of(fields);
  EXPECT_THAT(conversation.messages.front().joined_text(),
              HasSubstr("\n{\"name\":\"look\",\"description\":\"Looks.\",\"parameters\":{\"type\":\"object\",\"properties\":"
                        "{\"z\":{\"type\":\"integer\"},\"a\":{\"type\":\"integer\"}}}}"));
}

TEST(AnthropicRequest, ToolChoice) {
  const json tools = {{{"name", "f"}, {"input_schema", {{"type", "object"}}}},
                      {{"name", "g"}, {"input_schema", {{"type", "object"}}}}};
  const auto format_of = [&](const json& choice) {
    return parse_anthropic_request(body_with({{"tools", tools}, {"tool_choice", choice}}).dump(), {});
  };
  EXPECT_EQ(format_of({{"type", "auto"}, {"disable_parallel_tool_use", true}}).format, ResponseFormat::kText);
  EXPECT_EQ(format_of({{"type", "none"}}).conversation.messages.size(), 1u);  // not described
  EXPECT_EQ(format_of({{"type", "any"}}).format, ResponseFormat::kToolCall);
  EXPECT_EQ(format_of({{"type", "any"}}).schema["anyOf"].size(), 2u);
  EXPECT_EQ(format_of({{"type", "tool"}, {"name", "g"}}).schema["anyOf"].size(), 1u);
  EXPECT_THAT(refusal({{"tools", tools}, {"tool_choice", {{"type", "tool"}, {"name", "h"}}}}), HasSubstr("found \"h\""));
  EXPECT_THAT(refusal({{"tools", tools}, {"tool_choice", {{"type", "tool"}}}}), HasSubstr("tool_choice.name: missing"));
  EXPECT_THAT(refusal({{"tools", tools}, {"tool_choice", {{"type", "all"}}}}), HasSubstr("tool_choice.type: found \"all\""));
  EXPECT_THAT(refusal({{"tool_choice", {{"type", "any"}}}}), HasSubstr("tool_choice: found \"any\""));
  EXPECT_THAT(refusal({{"tools", {{{"name", "f"}, {"input_schema", {{"type", "array"}}}}}},
                       {"tool_choice", {{"type", "any"}}}}),
              HasSubstr("tools[0].input_schema: found type \"array\""));
}

TEST(AnthropicRequest, AnAnswerMayHaveASchema) {
  const ChatRequest request = parse_anthropic_request(
      R"({"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}],
          "output_config": {"format": {"type": "json_schema", "schema": {"type": "object", "properties": {"z": {}, "a": {}}}}}})",
      {});
  EXPECT_EQ(request.format, ResponseFormat::kJsonSchema);
  EXPECT_EQ(request.format_field, "output_config.format");
  EXPECT_EQ(request.schema.dump(), R"({"type":"object","properties":{"z":{},"a":{}}})");
  EXPECT_THAT(refusal({{"output_config", {{"format", {{"type", "xml"}}}}}}),
              HasSubstr("output_config.format.type: found \"xml\""));
  EXPECT_THAT(refusal({{"output_config", {{"format", {{"type", "json_schema"}}}}}}),
              HasSubstr("output_config.format.schema: missing"));
  EXPECT_THAT(refusal({{"output_config", {{"effort", "low"}}}}), HasSubstr("output_config.effort: is not supported"));
}

TEST(AnthropicRequest, NamesWhatIsWrong) {
  EXPECT_THAT(refusal({{"max_tokens", nullptr}}), HasSubstr("max_tokens: missing"));
  EXPECT_THAT(refusal({{"max_tokens", 0}}), HasSubstr("max_tokens: found 0"));
  EXPECT_THAT(refusal({{"messages", nullptr}}), HasSubstr("messages: missing"));
  EXPECT_THAT(refusal({{"messages", json::array()}}), HasSubstr("messages: found an empty array"));
  EXPECT_THAT(refusal({{"stop_sequences", {""}}}), HasSubstr("stop_sequences: found a string of 0 characters"));
  EXPECT_THAT(refusal({{"stop_sequences", "a"}}), HasSubstr("stop_sequences: found a string, expected an array"));
  EXPECT_THAT(refused_message(R"({"role": "system"})"), HasSubstr("messages[0].content: missing"));
  EXPECT_THAT(refusal({{"system", 5}}), HasSubstr("system: found an integer"));
  EXPECT_THAT(refusal({{"system", {{{"type", "image"}}}}}), HasSubstr("system[0].type: found \"image\""));
  EXPECT_THAT(refusal({{"thinking", {{"type", "enabled"}, {"budget_tokens", 1024}}}}), HasSubstr("thinking.type"));
  EXPECT_THAT(refused_message(R"({"content": "Hi"})"), HasSubstr("messages[0].role: missing"));
  EXPECT_THAT(refused_message(R"({"role": "tool", "content": "Hi"})"), HasSubstr("messages[0].role: found \"tool\""));
  EXPECT_THAT(refused_message(R"({"role": "user"})"), HasSubstr("messages[0].content: missing"));
  EXPECT_THAT(refused_message(R"({"role": "user", "content": 5})"), HasSubstr("messages[0].content: found an integer"));
  EXPECT_THAT(refused_message(R"({"role": "user", "content": [{"type": "image"}]})"),
              HasSubstr("messages[0].content[0].type: found \"image\", expected text or tool_result"));
  EXPECT_THAT(refused_message(R"({"role": "user", "content": [{"type": "text"}]})"),
              HasSubstr("messages[0].content[0].text: missing"));
  EXPECT_THAT(refused_message(R"({"role": "user", "content": [{"type": "tool_result"}]})"),
              HasSubstr("messages[0].content[0].tool_use_id: missing"));
  EXPECT_THAT(refused_message(R"({"role": "user", "content": [{"type": "tool_use", "name": "f", "input": {}}]})"),
              HasSubstr("found \"tool_use\", expected text or tool_result"));
  EXPECT_THAT(refused_message(R"({"role": "assistant", "content": [{"type": "tool_use", "input": {}}]})"),
              HasSubstr("messages[0].content[0].name: missing"));
  EXPECT_THAT(refused_message(R"({"role": "assistant", "content": [{"type": "tool_use", "name": "f"}]})"),
              HasSubstr("messages[0].content[0].input: missing"));
  EXPECT_THAT(refused_message(R"({"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": {}}]})"),
              HasSubstr("messages: found the call of a function last"));
  EXPECT_THAT(refusal({{"tools", {{{"type", "bash_20250124"}, {"name", "bash"}}}}}), HasSubstr("tools[0].type"));
  EXPECT_THAT(refusal({{"tools", {{{"name", "f"}}}}}), HasSubstr("tools[0].input_schema: missing"));
  EXPECT_THAT(refusal({{"tools", {{{"input_schema", json::object()}}}}}), HasSubstr("tools[0].name: missing"));
}

TEST(AnthropicRequest, PassesOverNothingThatChangesTheAnswer) {
  for (const auto& [field, value] :
       std::initializer_list<std::pair<const char*, json>>{{"n", 2},
                                                           {"stop", {"a"}},
                                                           {"logprobs", true},
                                                           {"top_logprobs", 2},
                                                           {"response_format", {{"type", "json_object"}}},
                                                           {"guided_json", "{}"},
                                                           {"guided_regex", "a"},
                                                           {"container", "c"},
                                                           {"mcp_servers", {1}},
                                                           {"context_management", {{"edits", {1}}}},
                                                           {"speed", "fast"},
                                                           {"max_completion_tokens", 5}}) {
    EXPECT_THAT(refusal({{field, value}}), HasSubstr(std::string(field) + ": is not supported")) << field;
  }
  EXPECT_EQ(refusal({{"n", 1}, {"mcp_servers", json::array()}, {"speed", "standard"}, {"container", nullptr}}), "");
}

TEST(AnthropicRequest, CountingNeedsNoLimit) {
  json body = body_with(json::object());
  body.erase("max_tokens");
  EXPECT_NO_THROW(parse_anthropic_request(body.dump(), {}, true));
}

TEST(AnthropicRequest, ManyMessagesAreNoManyKeys) {
  json messages = json::array();
  for (int i = 0; i < 6000; ++i) messages.push_back({{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", "a"}});
  messages.push_back({{"role", "user"}, {"content", "b"}});
  EXPECT_EQ(refusal({{"messages", messages}}), "");
}

TEST(AnthropicRequest, AnyWrongValueIsAnErrorOfTheClient) {
  const json good = json::parse(
      R"({"model": "m", "max_tokens": 9, "stream": true, "system": [{"type": "text", "text": "S"}], "stop_sequences": ["a"],
    "metadata": {"user_id": "u"}, "thinking": {"type": "disabled"}, "temperature": 1,
    "tools": [{"name": "f", "description": "D", "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true},
    "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
    "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]},
      {"role": "assistant", "content": [{"type": "text", "text": "b"}, {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}]},
      {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "is_error": false, "content": [{"type": "text", "text": "c"}]}]},
      {"role": "system", "content": "T"}]})");
  EXPECT_GT(testing::count_refused(good, [&](const json& body) { parse_anthropic_request(body.dump(), {}); }), 200u);
}

}  // namespace
}  // namespace nanochat
