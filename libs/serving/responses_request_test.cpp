#include "serving/internal/responses_request.h"

#include <gmock/gmock.h>

#include "serving/api_error.h"
#include "serving/testing.h"

namespace nanochat {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class ResponsesRequestTest : public ::testing::Test {
 protected:
  ResponsesRequest parse(const json& extra) {
    json body = {{"input", "Hi"}};
    body.update(extra);
    return parse_responses_request(body.dump(), {}, store_, "me");
  }
  ResponsesRequest parse_text(const std::string& body) { return parse_responses_request(body, {}, store_, "me"); }
  std::string refusal(const json& extra) {
    try {
      parse(extra);
    } catch (const ApiError& error) {
      EXPECT_EQ(error.status(), 400);
      EXPECT_EQ(std::string(error.what()).rfind(error.param(), 0), 0u) << error.what();
      return error.what();
    }
    return "";
  }
  std::string refused_item(const char* item) { return refusal({{"input", json::array({json::parse(item)})}}); }

  ResponseStore store_{10, 100000};
};

TEST_F(ResponsesRequestTest, ReadsEveryField) {
  const ResponsesRequest request = parse({{"model", "m"},
                                          {"stream", true},
                                          {"stream_options", {{"include_obfuscation", false}}},
                                          {"instructions", "Be brief."},
                                          {"max_output_tokens", 7},
                                          {"temperature", 0.5},
                                          {"top_p", 0.9},
                                          {"store", false},
                                          {"include", {"message.output_text.logprobs", "reasoning.encrypted_content"}},
                                          {"top_logprobs", 2},
                                          {"metadata", {{"k", "v"}}},
                                          {"reasoning", {{"effort", "none"}, {"summary", nullptr}}},
                                          {"text", {{"format", {{"type", "text"}}}, {"verbosity", "medium"}}},
                                          {"truncation", "disabled"},
                                          {"service_tier", "auto"},
                                          {"seed", 5},
                                          {"stop", {"x"}},
                                          {"nanochat_tools", false}});
  EXPECT_EQ(request.fields.model, "m");
  EXPECT_TRUE(request.fields.stream && request.fields.logprobs);
  EXPECT_FALSE(request.store);
  EXPECT_EQ(request.fields.max_tokens, 7);
  EXPECT_EQ(request.fields.top_logprobs, 2);
  EXPECT_EQ(request.fields.sampling.temperature, 0.5);
  EXPECT_EQ(request.fields.sampling.seed, 5u);
  EXPECT_EQ(request.nanochat_tools, false);
  EXPECT_EQ(request.conversation.messages, (std::vector<Message>{{"system", "Be brief."}, {"user", "Hi"}}));
  EXPECT_EQ(request.settings["max_output_tokens"], 7);
  EXPECT_EQ(request.settings["metadata"].dump(), R"({"k":"v"})");
  EXPECT_EQ(request.settings["instructions"], "Be brief.");
  EXPECT_EQ(request.settings["store"], false);
  EXPECT_EQ(request.settings["tool_choice"], "auto");
  EXPECT_EQ(request.settings["text"].dump(), R"({"format":{"type":"text"},"verbosity":"medium"})");
}

TEST_F(ResponsesRequestTest, ItemsBecomeTurns) {
  const ResponsesRequest request = parse_text(R"({"input": [
    {"role": "developer", "content": "Be brief."},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is "}, {"type": "input_text", "text": "this?"}]},
    {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
     "content": [{"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}]},
    {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look", "arguments": "{\"z\": 1, \"a\": 2}"},
    {"type": "function_call", "call_id": "call_2", "name": "hear", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_2", "output": "nothing"},
    {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "dark"}]}]})");
  EXPECT_EQ(request.conversation.messages,
            (std::vector<Message>{{"system", "Be brief."},
                                  {"user", "What is this?"},
                                  {"assistant",
                                   "I look.\n\n"
                                   R"({"name":"look","arguments":{"z": 1, "a": 2}})"
                                   "\n"
                                   R"({"name":"hear","arguments":{}})"},
                                  {"user", "Result of hear:\nnothing\n\nResult of look:\ndark"}}));
  ASSERT_EQ(request.items.size(), 7u);
  EXPECT_EQ(request.items[2].dump(), R"({"content":"I look.","role":"assistant"})");  // without what has no effect
  EXPECT_EQ(request.items[3].dump(),
            R"({"arguments":"{\"z\": 1, \"a\": 2}","call_id":"call_1","name":"look","type":"function_call"})");
  EXPECT_EQ(request.items[6].dump(), R"({"call_id":"call_1","output":"dark","type":"function_call_output"})");
}

TEST_F(ResponsesRequestTest, ContinuesAStoredResponse) {
  store_.put("resp_1", {"me", "{}", R"([{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}])"});
  const ResponsesRequest request = parse({{"previous_response_id", "resp_1"}, {"instructions", "New."}});
  EXPECT_EQ(request.conversation.messages,
            (std::vector<Message>{{"system", "New."}, {"user", "A"}, {"assistant", "B"}, {"user", "Hi"}}));
  EXPECT_EQ(request.items.size(), 3u);
  EXPECT_EQ(request.settings["previous_response_id"], "resp_1");
  EXPECT_THAT(refusal({{"previous_response_id", "resp_2"}}),
              HasSubstr("found \"resp_2\", expected the id of a stored response"));
  store_.put("resp_3", {"another", "{}", "[]"});
  EXPECT_THAT(refusal({{"previous_response_id", "resp_3"}}), HasSubstr("previous_response_id: found \"resp_3\""));
}

TEST_F(ResponsesRequestTest, AResultMayBelongToAStoredCall) {
  store_.put("resp_1", {"me", "{}", R"([{"role": "user", "content": "A"},
      {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}])"});
  const ResponsesRequest request = parse({{"previous_response_id", "resp_1"},
                                          {"input", {{{"type", "function_call_output"}, {"call_id", "c"}, {"output", "4"}}}}});
  EXPECT_EQ(request.conversation.messages.back(), Message("user", "Result of f:\n4"));
}

TEST_F(ResponsesRequestTest, ToolsAndTheirChoice) {
  const json tools = {{{"type", "function"}, {"name", "f"}, {"parameters", {{"type", "object"}}}, {"strict", true}},
                      {{"type", "function"}, {"name", "g"}}};
  const auto with = [&](const json& choice) { return parse({{"tools", tools}, {"tool_choice", choice}}); };
  EXPECT_THAT(with("auto").conversation.messages.front().joined_text(),
              HasSubstr("\n{\"name\":\"f\",\"parameters\":{\"type\":\"object\"}}\n{\"name\":\"g\"}"));
  EXPECT_EQ(with("none").conversation.messages.size(), 1u);
  EXPECT_EQ(with("required").schema["anyOf"].size(), 2u);
  EXPECT_EQ(with({{"type", "function"}, {"name", "g"}}).schema["anyOf"].size(), 1u);
  const json only = {{{"type", "function"}, {"name", "g"}}};
  EXPECT_EQ(with({{"type", "allowed_tools"}, {"mode", "required"}, {"tools", only}}).schema["anyOf"].size(), 1u);
  EXPECT_EQ(with({{"type", "allowed_tools"}, {"mode", "auto"}, {"tools", only}}).format, ResponseFormat::kText);
  EXPECT_EQ(with("required").settings["tools"].size(), 2u);
  const auto refused = [&](const json& choice) { return refusal({{"tools", tools}, {"tool_choice", choice}}); };
  EXPECT_THAT(refused({{"type", "function"}, {"name", "h"}}), HasSubstr("tool_choice: found \"h\""));
  EXPECT_THAT(refused({{"type", "function"}}), HasSubstr("tool_choice.name: missing"));
  EXPECT_THAT(refused({{"type", "web_search"}}), HasSubstr("tool_choice.type: found \"web_search\""));
  EXPECT_THAT(refused({{"type", "allowed_tools"}, {"mode", "all"}, {"tools", only}}),
              HasSubstr("tool_choice.mode: found \"all\""));
  EXPECT_THAT(refused({{"type", "allowed_tools"}, {"mode", "auto"}}), HasSubstr("tool_choice.tools: missing"));
  EXPECT_THAT(refused("any"), HasSubstr("tool_choice: found \"any\""));
  EXPECT_THAT(refusal({{"tool_choice", "required"}}), HasSubstr("tool_choice: found \"required\""));
  EXPECT_THAT(refusal({{"tools", {{{"type", "web_search"}}}}}), HasSubstr("tools[0].type: found \"web_search\""));
  EXPECT_THAT(refusal({{"tools", {{{"type", "function"}}}}}), HasSubstr("tools[0].name: missing"));
}

TEST_F(ResponsesRequestTest, AnAnswerMayHaveASchema) {
  const ResponsesRequest request = parse_text(
      R"({"input": "Hi", "text": {"format": {"type": "json_schema", "name": "s", "strict": true,
          "schema": {"type": "object", "properties": {"z": {}, "a": {}}}}}})");
  EXPECT_EQ(request.format, ResponseFormat::kJsonSchema);
  EXPECT_EQ(request.format_field, "text.format");
  EXPECT_EQ(request.schema.dump(), R"({"type":"object","properties":{"z":{},"a":{}}})");
  EXPECT_EQ(request.settings["text"]["format"]["schema"].dump(), request.schema.dump());
  EXPECT_EQ(parse({{"text", {{"format", {{"type", "json_object"}}}}}}).format, ResponseFormat::kJsonObject);
  EXPECT_THAT(refusal({{"text", {{"format", {{"type", "xml"}}}}}}), HasSubstr("text.format.type: found \"xml\""));
  EXPECT_THAT(refusal({{"text", {{"format", {{"type", "json_schema"}}}}}}), HasSubstr("text.format.schema: missing"));
  EXPECT_THAT(refusal({{"text", {{"verbosity", "low"}}}}), HasSubstr("text.verbosity: is not supported"));
}

TEST_F(ResponsesRequestTest, NamesWhatIsWrong) {
  EXPECT_THAT(refusal({{"input", nullptr}}), HasSubstr("input: missing"));
  EXPECT_THAT(refusal({{"input", 5}}), HasSubstr("input: found an integer, expected a string or an array of items"));
  EXPECT_THAT(refusal({{"input", json::array()}}), HasSubstr("input: found an empty array"));
  EXPECT_THAT(refusal({{"max_output_tokens", 0}}), HasSubstr("max_output_tokens: found 0"));
  EXPECT_THAT(refusal({{"include", {1}}}), HasSubstr("include: found an integer"));
  EXPECT_THAT(refusal({{"store", "yes"}}), HasSubstr("store: found a string"));
  EXPECT_THAT(refused_item(R"({"content": "a"})"), HasSubstr("input[0].role: missing"));
  EXPECT_THAT(refused_item(R"({"role": "robot", "content": "a"})"), HasSubstr("input[0].role: found \"robot\""));
  EXPECT_THAT(refused_item(R"({"role": "user"})"), HasSubstr("input[0].content: missing"));
  EXPECT_THAT(refused_item(R"({"role": "user", "content": 5})"), HasSubstr("input[0].content: found an integer"));
  EXPECT_THAT(refused_item(R"({"role": "user", "content": [{"type": "input_image"}]})"),
              HasSubstr("input[0].content[0].type: found \"input_image\""));
  EXPECT_THAT(refused_item(R"({"role": "user", "content": [{"type": "input_text"}]})"),
              HasSubstr("input[0].content[0].text: missing"));
  EXPECT_THAT(refused_item(R"({"type": "item_reference", "id": "x"})"), HasSubstr("input[0].type: found \"item_reference\""));
  EXPECT_THAT(refused_item(R"({"type": "function_call", "call_id": "c", "arguments": "{}"})"),
              HasSubstr("input[0].name: missing"));
  EXPECT_THAT(refused_item(R"({"type": "function_call", "name": "f", "arguments": "{}"})"),
              HasSubstr("input[0].call_id: missing"));
  EXPECT_THAT(refused_item(R"({"type": "function_call", "name": "f", "call_id": "c"})"),
              HasSubstr("input[0].arguments: missing"));
  EXPECT_THAT(refused_item(R"({"type": "function_call", "name": "f", "call_id": "c", "arguments": "{}"})"),
              HasSubstr("input: found the call of a function last"));
  EXPECT_THAT(refused_item(R"({"type": "function_call_output", "output": ""})"), HasSubstr("input[0].call_id: missing"));
  EXPECT_THAT(refused_item(R"({"type": "function_call_output", "call_id": "c"})"), HasSubstr("input[0].output: missing"));
}

TEST_F(ResponsesRequestTest, PassesOverNothingThatChangesTheAnswer) {
  for (const auto& [field, value] :
       std::initializer_list<std::pair<const char*, json>>{{"n", 2},
                                                           {"messages", {1}},
                                                           {"max_tokens", 5},
                                                           {"response_format", {{"type", "json_object"}}},
                                                           {"guided_regex", "a"},
                                                           {"background", true},
                                                           {"conversation", "c"},
                                                           {"prompt", {{"id", "p"}}},
                                                           {"truncation", "auto"},
                                                           {"context_management", {1}}}) {
    EXPECT_THAT(refusal({{field, value}}), HasSubstr(std::string(field) + ": is not supported")) << field;
  }
  EXPECT_THAT(refusal({{"reasoning", {{"effort", "high"}}}}), HasSubstr("reasoning.effort: is not supported"));
  EXPECT_EQ(refusal({{"n", 1}, {"background", false}, {"reasoning", json::object()}}), "");
}

TEST_F(ResponsesRequestTest, AnyWrongValueIsAnErrorOfTheClient) {
  const json good = json::parse(
      R"({"model": "m", "stream": true, "stream_options": {"include_obfuscation": false}, "instructions": "S", "max_output_tokens": 9,
    "store": true, "include": ["message.output_text.logprobs"], "top_logprobs": 2, "metadata": {"a": "b"},
    "reasoning": {"effort": "none"}, "text": {"format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}}},
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}],
    "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
    "parallel_tool_calls": false, "previous_response_id": null, "truncation": "disabled", "user": "u",
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]},
      {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}, {"type": "refusal", "refusal": "c"}]},
      {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
      {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "d"}]}]})");
  EXPECT_GT(testing::count_refused(good, [&](const json& body) { parse_text(body.dump()); }), 200u);
}

}  // namespace
}  // namespace nanochat
