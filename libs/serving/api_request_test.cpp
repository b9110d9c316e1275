#include "serving/internal/api_request.h"

#include <gmock/gmock.h>

#include "serving/api_error.h"

namespace nanochat {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json chat_body(json extra = json::object()) {
  json body = {{"messages", {{{"role", "user"}, {"content", "Hi"}}}}};
  body.update(extra);
  return body;
}

std::string chat_refusal(const json& extra) {
  try {
    parse_chat_request(chat_body(extra).dump(), {});
  } catch (const ApiError& error) {
    return error.what();
  }
  return "";
}

std::string completion_refusal(const json& body) {
  try {
    parse_completion_request(body.dump(), {});
  } catch (const ApiError& error) {
    return error.what();
  }
  return "";
}

TEST(ChatRequest, ReadsEveryField) {
  const ChatRequest request = parse_chat_request(
      chat_body({{"model", "m"},
                 {"stream", true},
                 {"stream_options", {{"include_usage", true}, {"continuous_usage_stats", true}}},
                 {"max_tokens", 5},
                 {"max_completion_tokens", 7},
                 {"temperature", 0.5},
                 {"top_p", 0.9},
                 {"top_k", -1},
                 {"min_p", 0.1},
                 {"n", 2},
                 {"stop", "x"},
                 {"stop_token_ids", {3}},
                 {"seed", -3},
                 {"frequency_penalty", 1},
                 {"presence_penalty", -1},
                 {"repetition_penalty", 1.1},
                 {"logit_bias", {{"5", 2.5}}},
                 {"logprobs", true},
                 {"top_logprobs", 3},
                 {"ignore_eos", true},
                 {"min_tokens", 2},
                 {"user", "u"},
                 {"metadata", json::object()},
                 {"response_format", {{"type", "json_object"}}},
                 {"nanochat_tools", true},
                 {"of another time", {1, 2}}})
          .dump(),
      {});
  const GenerationFields& fields = request.fields;
  EXPECT_EQ(fields.model, "m");
  EXPECT_TRUE(fields.stream && fields.include_usage && fields.continuous_usage && fields.logprobs && fields.ignore_eos);
  EXPECT_EQ(fields.max_tokens, 7);
  EXPECT_EQ(fields.n, 2);
  EXPECT_EQ(fields.min_tokens, 2);
  EXPECT_EQ(fields.top_logprobs, 3);
  EXPECT_THAT(fields.stop, ::testing::ElementsAre("x"));
  EXPECT_EQ(fields.sampling.temperature, 0.5);
  EXPECT_EQ(fields.sampling.top_k, 0);
  EXPECT_EQ(fields.sampling.seed, static_cast<std::uint64_t>(-3));
  EXPECT_EQ(fields.sampling.frequency_penalty, 1.0);
  EXPECT_THAT(fields.sampling.logit_bias, ::testing::ElementsAre(std::pair(5, 2.5)));
  EXPECT_EQ(request.format, ResponseFormat::kJsonObject);
  EXPECT_EQ(request.nanochat_tools, true);
  EXPECT_THAT(fields.stop_token_ids, ::testing::ElementsAre(3));
}

TEST(ChatRequest, CountsTheCharactersOfStopStrings) {
  std::string text;
  for (int i = 0; i < 256; ++i) text += "é";
  EXPECT_EQ(chat_refusal({{"stop", text}}), "");
  EXPECT_THAT(chat_refusal({{"stop", text + "é"}}), HasSubstr("found a string of 257 characters"));
}

TEST(ChatRequest, NullIsAbsent) {
  const ChatRequest request = parse_chat_request(
      chat_body({{"stop", nullptr}, {"max_tokens", nullptr}, {"seed", nullptr}}).dump(), {.seed = 9});
  EXPECT_EQ(request.fields.max_tokens, std::nullopt);
  EXPECT_EQ(request.fields.sampling.seed, 9u);
}

TEST(ChatRequest, NamesWhatIsWrong) {
  EXPECT_THAT(chat_refusal({{"temperature", "hot"}}), HasSubstr("temperature: found a string, expected a number"));
  EXPECT_THAT(chat_refusal({{"temperature", -1}}), HasSubstr("temperature"));
  EXPECT_THAT(chat_refusal({{"n", 0}}), HasSubstr("n: found 0, expected an integer from 1 to 128"));
  EXPECT_THAT(chat_refusal({{"stop", json(17, "a")}}), HasSubstr("stop: found 17 strings, expected at most 16"));
  EXPECT_EQ(chat_refusal({{"stop", json(16, "a")}}), "");
  EXPECT_THAT(chat_refusal({{"stop", ""}}), HasSubstr("stop"));
  EXPECT_THAT(chat_refusal({{"stop", {1}}}), HasSubstr("stop"));
  EXPECT_THAT(chat_refusal({{"stop", std::string(257, 'x')}}),
              HasSubstr("found a string of 257 characters, expected 1 to 256"));
  EXPECT_THAT(chat_refusal({{"logit_bias", {{"x", 1}}}}), HasSubstr("logit_bias: found the key \"x\", expected token ids"));
  EXPECT_THAT(chat_refusal({{"logit_bias", {{"1", 101}}}}), HasSubstr("logit_bias.1"));
  EXPECT_THAT(chat_refusal({{"top_logprobs", 2}}), HasSubstr("logprobs"));
  EXPECT_THAT(chat_refusal({{"top_p", 0}}), HasSubstr("top_p"));
  EXPECT_THAT(chat_refusal({{"max_tokens", 0}}), HasSubstr("max_tokens"));
  EXPECT_THAT(chat_refusal({{"response_format", {{"type", "xml"}}}}), HasSubstr("response_format.type"));
  EXPECT_THAT(chat_refusal({{"response_format", {{"type", "json_schema"}}}}), HasSubstr("json_schema: missing"));
  EXPECT_THAT(chat_refusal({{"messages", "Hi"}}), HasSubstr("messages: found a string, expected an array"));
  EXPECT_THAT(chat_refusal({{"messages", json::array()}}),
              HasSubstr("messages: found an empty array, expected at least one message"));
  EXPECT_THAT(chat_refusal({{"messages", {1}}}), HasSubstr("messages[0]: found an integer, expected an object"));
  EXPECT_THAT(chat_refusal({{"messages", {{{"role", "robot"}, {"content", ""}}}}}), HasSubstr("messages[0].role"));
  EXPECT_THAT(chat_refusal({{"messages", {{{"role", "user"}, {"content", {{{"type", "image_url"}}}}}}}}),
              HasSubstr("content[0].type"));
  EXPECT_THAT(chat_refusal({{"tool_choice", "maybe"}}), HasSubstr("tool_choice"));
  EXPECT_THAT(chat_refusal({{"tools", {{{"type", "function"}}}}}), HasSubstr("tools[0].function"));
}

TEST(ChatRequest, TheUsageOfAStreamNeedsAStream) {
  EXPECT_THAT(chat_refusal({{"stream_options", {{"include_usage", true}}}}),
              HasSubstr("stream_options: needs \"stream\": true"));
  EXPECT_THAT(chat_refusal({{"stream", false}, {"stream_options", json::object()}}), HasSubstr("stream_options"));
  EXPECT_THAT(completion_refusal({{"prompt", "a"}, {"stream_options", json::object()}}), HasSubstr("stream_options"));
  EXPECT_EQ(chat_refusal({{"stream_options", nullptr}}), "");
}

// What changes the answer is followed or refused by name, and what asks for nothing passes.
TEST(ChatRequest, PassesOverNothingThatChangesTheAnswer) {
  const std::vector<std::pair<const char*, json>> refused = {{"guided_whitespace_pattern", "a+"},
                                                             {"structural_tag", "x"},
                                                             {"json_schema", {{"type", "object"}}},
                                                             {"ebnf", "x"},
                                                             {"format", "json"},
                                                             {"functions", {{{"name", "f"}}}},
                                                             {"function_call", {{"name", "f"}}},
                                                             {"bad_words", {"a"}},
                                                             {"allowed_token_ids", {1}},
                                                             {"max_new_tokens", 5},
                                                             {"n_predict", 5},
                                                             {"truncate_prompt_tokens", 5},
                                                             {"include_stop_str_in_output", true},
                                                             {"skip_special_tokens", false},
                                                             {"use_beam_search", true},
                                                             {"repeat_penalty", 1.1},
                                                             {"typical_p", 0.5},
                                                             {"mirostat", 2}};
  for (const auto& [name, value] : refused) {
    EXPECT_THAT(chat_refusal({{name, value}}), HasSubstr(std::string(name) + ": is not supported")) << value;
    EXPECT_THAT(completion_refusal({{"prompt", "a"}, {name, value}}), HasSubstr(std::string(name) + ": is not supported"))
        << value;
  }
  EXPECT_THAT(chat_refusal({{"best_of", 3}}), HasSubstr("best_of: found 3, expected 1, the value of n"));
  for (const auto& [name, value] : std::vector<std::pair<const char*, json>>{{"modalities", {"text", "audio"}},
                                                                             {"audio", {{"voice", "x"}}},
                                                                             {"web_search_options", json::object()},
                                                                             {"chat_template", "x"},
                                                                             {"add_generation_prompt", false},
                                                                             {"echo", true}}) {
    EXPECT_THAT(chat_refusal({{name, value}}), HasSubstr(std::string(name) + ": is not supported")) << value;
  }
  for (const auto& [name, value] : std::vector<std::pair<const char*, json>>{
           {"messages", json::array()}, {"tools", {{{"name", "f"}}}}, {"tool_choice", "required"}, {"nanochat_tools", true}}) {
    EXPECT_THAT(completion_refusal({{"prompt", "a"}, {name, value}}), HasSubstr(std::string(name) + ": is not supported"))
        << value;
  }
  EXPECT_EQ(chat_refusal({{"grammar", ""},
                          {"guided_choice", json::array()},
                          {"function_call", "auto"},
                          {"n_predict", -1},
                          {"repeat_penalty", 1.0},
                          {"typical_p", 1},
                          {"mirostat", 0},
                          {"best_of", 1},
                          {"skip_special_tokens", true},
                          {"modalities", {"text"}},
                          {"use_beam_search", false},
                          {"guided_regex", nullptr},
                          {"reasoning_effort", "low"},
                          {"store", true}}),
            "");
}

TEST(ChatRequest, TakesOtherFormsOfAnswers) {
  const auto format_of = [](const json& extra) { return parse_chat_request(chat_body(extra).dump(), {}); };
  const auto check = [&](const json& extra, ResponseFormat format, const json& value, const char* field) {
    const ChatRequest request = format_of(extra);
    EXPECT_EQ(request.format, format) << extra;
    EXPECT_EQ(json(request.schema), value) << extra;
    EXPECT_EQ(request.format_field, field);
  };
  check({{"guided_regex", "a+"}}, ResponseFormat::kRegex, "a+", "guided_regex");
  check({{"regex", "a+"}}, ResponseFormat::kRegex, "a+", "regex");
  check({{"guided_choice", {"b", "a"}}}, ResponseFormat::kChoice, {"b", "a"}, "guided_choice");
  check({{"choice", {"b", "a"}}}, ResponseFormat::kChoice, {"b", "a"}, "choice");
  check({{"guided_grammar", "root ::= \"a\""}}, ResponseFormat::kGrammar, "root ::= \"a\"", "guided_grammar");
  check({{"grammar", "root ::= \"a\""}}, ResponseFormat::kGrammar, "root ::= \"a\"", "grammar");
  check({{"structured_outputs", {{"regex", "a"}, {"json", nullptr}}}}, ResponseFormat::kRegex, "a", "structured_outputs.regex");
  EXPECT_EQ(parse_completion_request(json{{"prompt", "a"}, {"guided_regex", "a"}}.dump(), {}).format, ResponseFormat::kRegex);
  EXPECT_EQ(format_of({{"guided_regex", ""}, {"guided_choice", json::array()}, {"grammar", ""}}).format, ResponseFormat::kText);

  const auto refused = [](const json& extra, const char* message) {
    EXPECT_THAT(chat_refusal(extra), HasSubstr(message)) << extra;
  };
  refused({{"guided_regex", 1}}, "guided_regex: found an integer, expected a string");
  refused({{"guided_choice", "a"}}, "guided_choice: found a string, expected a list of at most 5000 strings");
  refused({{"guided_choice", {1}}}, "guided_choice: found an integer, expected a list of strings");
  refused({{"grammar", {{"type", "json"}}}}, "grammar: found an object, expected a string");
  refused({{"guided_regex", std::string(70'000, 'a')}}, "guided_regex: found 70000 bytes, expected at most 65536");
  refused({{"guided_regex", "a"}, {"guided_choice", {"a"}}}, "guided_choice: cannot be combined with guided_regex");
  refused({{"guided_regex", "a"}, {"guided_json", {{"type", "null"}}}}, "guided_regex: cannot be combined with guided_json");
  refused({{"guided_regex", "a"}, {"response_format", {{"type", "json_object"}}}},
          "guided_regex: cannot be combined with response_format");
  refused({{"guided_regex", "a"}, {"tools", {{{"function", {{"name", "f"}}}}}}, {"tool_choice", "required"}},
          "guided_regex: cannot be combined with a call");
  refused({{"structured_outputs", {{"json", json::object()}}}},
          "structured_outputs.json: is not supported; use response_format");
  refused({{"structured_outputs", {{"regex", "a"}, {"choice", {"a"}}}}},
          "structured_outputs.choice: cannot be combined with structured_outputs.regex");
}

TEST(ChatRequest, TakesSchemasUnderEveryName) {
  const json schema = {{"type", "object"}, {"properties", {{"a", {{"type", "integer"}}}}}};
  const auto format_of = [](const json& extra) { return parse_chat_request(chat_body(extra).dump(), {}); };
  for (const json& extra :
       std::vector<json>{{{"response_format", {{"type", "json_object"}, {"schema", schema}}}},
                         {{"response_format", {{"type", "json_schema"}, {"schema", schema}}}},
                         {{"response_format", {{"type", "json_schema"}, {"json_schema", {{"schema", schema}}}}}},
                         {{"guided_json", schema}},
                         {{"guided_json", schema.dump()}}}) {
    const ChatRequest request = format_of(extra);
    EXPECT_EQ(request.format, ResponseFormat::kJsonSchema) << extra;
    EXPECT_EQ(json::parse(request.schema.dump()), schema) << extra;
    EXPECT_EQ(request.format_field, extra.begin().key());
  }
  const CompletionRequest completion = parse_completion_request(json{{"prompt", "a"}, {"guided_json", schema}}.dump(), {});
  EXPECT_EQ(completion.format, ResponseFormat::kJsonSchema);
  EXPECT_EQ(json::parse(completion.schema.dump()), schema);
  EXPECT_EQ(format_of({{"response_format", {{"type", "json_object"}, {"schema", nullptr}}}}).format,
            ResponseFormat::kJsonObject);
  EXPECT_EQ(
      parse_chat_request(
          R"({"messages": [{"role": "user", "content": "a"}], "guided_json": "{\"properties\": {\"z\": {}, \"a\": {}}}"})", {})
          .schema["properties"]
          .begin()
          .key(),
      "z");

  const auto refused = [](const json& extra, const char* message) {
    EXPECT_THAT(chat_refusal(extra), HasSubstr(message)) << extra;
  };
  refused({{"response_format", {{"type", "text"}, {"schema", schema}}}},
          "response_format.schema: is not supported with \"type\": \"text\"");
  refused({{"response_format", {{"type", "json_object"}, {"json_schema", {{"schema", schema}}}}}},
          "response_format.json_schema: is not supported");
  refused({{"response_format", {{"type", "json_object"}, {"grammar", "x"}}}}, "response_format.grammar: is not supported");
  refused({{"response_format", {{"type", "json_schema"}, {"schema", schema}, {"json_schema", {{"schema", schema}}}}}},
          "found schema and json_schema, expected only one of them");
  refused({{"response_format", {{"type", "json_object"}, {"schema", "x"}}}},
          "response_format.schema: found a string, expected an object");
  refused({{"response_format", {{"type", "grammar"}, {"grammar", "x"}}}}, "response_format.type");
  refused({{"guided_json", schema}, {"response_format", {{"type", "json_object"}}}},
          "guided_json: cannot be combined with response_format");
  refused({{"guided_json", schema}, {"tools", {{{"function", {{"name", "f"}}}}}}, {"tool_choice", "required"}},
          "guided_json: cannot be combined");
  refused({{"guided_json", {1}}}, "guided_json: found an array, expected a schema, or the text of one");
  refused({{"guided_json", "{"}}, "guided_json: found an error at byte 2, expected valid JSON");
  refused({{"guided_json", "[1]"}}, "guided_json: found an array, expected a JSON object");
  refused({{"guided_json", "{}, \"x\": {}"}}, "guided_json");
}

TEST(ChatRequest, SchemasKeepTheOrderOfTheirProperties) {
  const ChatRequest format = parse_chat_request(
      R"({"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "json_schema",
      "json_schema": {"schema": {"type": "object", "properties": {"zeta": {"type": "integer"}, "alpha": {"type": "integer"}}}}}})",
      {});
  EXPECT_EQ(format.format, ResponseFormat::kJsonSchema);
  EXPECT_EQ(format.schema["properties"].begin().key(), "zeta");
  const ChatRequest call = parse_chat_request(R"({"messages": [{"role": "user", "content": "a"}], "tool_choice": "required",
      "tools": [{"function": {"name": "f", "parameters": {"properties": {"zeta": {}, "alpha": {}}}}}]})",
                                              {});
  EXPECT_EQ(call.format, ResponseFormat::kToolCall);
  EXPECT_EQ(call.schema["anyOf"][0]["properties"]["arguments"]["properties"].begin().key(), "zeta");
  EXPECT_THAT(call.conversation.messages[0].joined_text(), HasSubstr(R"({"name":"f","parameters":)"));
}

TEST(Messages, BecomeTurnsOfUserAndAssistant) {
  const Conversation conversation = parse_messages(json::parse(R"([
    {"role": "system", "content": "S"}, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    {"role": "user", "content": "c"},
    {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": "{\"a\": 1}"}},
                                                           {"function": {"name": "g", "arguments": "no JSON"}}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "42"}, {"role": "developer", "content": "D"}])"),
                                                   "");
  ASSERT_EQ(conversation.messages.size(), 4u);
  EXPECT_EQ(conversation.messages[0], Message("system", "S\n\nD"));
  EXPECT_EQ(conversation.messages[1], Message("user", "ab\n\nc"));
  EXPECT_EQ(conversation.messages[2], Message("assistant", R"({"name":"f","arguments":{"a": 1}})"
                                                           "\n"
                                                           R"({"name":"g","arguments":"no JSON"})"));
  EXPECT_EQ(conversation.messages[3], Message("user", "Result of f:\n42"));
  EXPECT_NO_THROW(check_conversation({{conversation.messages.begin(), conversation.messages.end() - 2}}));
}

TEST(Messages, AGreetingByTheAssistantFollowsAnEmptyMessageOfTheUser) {
  const auto messages_of = [](const char* text) { return parse_messages(json::parse(text), "").messages; };
  EXPECT_EQ(messages_of(R"([{"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Hi"}])"),
            (std::vector<Message>{{"user", ""}, {"assistant", "Yes?"}, {"user", "Hi"}}));
  EXPECT_EQ(messages_of(R"([{"role": "system", "content": "S"}, {"role": "assistant", "content": "Yes?"},
                            {"role": "user", "content": "Hi"}])"),
            (std::vector<Message>{{"system", "S"}, {"user", ""}, {"assistant", "Yes?"}, {"user", "Hi"}}));
}

TEST(Messages, ALastMessageOfTheAssistantIsContinued) {
  const auto request = [](const char* messages, const json& extra = json::object()) {
    json body = {{"messages", json::parse(messages)}};
    body.update(extra);
    return parse_chat_request(body.dump(), {});
  };
  const char* open = R"([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "He"}])";
  EXPECT_TRUE(request(open).continues());
  EXPECT_EQ(request(open).conversation.messages, (std::vector<Message>{{"user", "Hi"}, {"assistant", "He"}}));
  const char* empty = R"([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}])";
  EXPECT_FALSE(request(empty).continues());
  EXPECT_EQ(request(R"([{"role": "assistant", "content": null}])").conversation.messages, (std::vector<Message>{{"user", ""}}));
  EXPECT_EQ(request(R"([{"role": "system", "content": "S"}, {"role": "assistant", "content": ""}])").conversation.messages,
            (std::vector<Message>{{"user", "S"}}));
  EXPECT_TRUE(request(open, {{"continue_final_message", true}, {"add_generation_prompt", false}}).continues());
  const auto refusal = [&](const char* messages, const json& extra = json::object()) {
    try {
      request(messages, extra);
    } catch (const ApiError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(refusal(open, {{"continue_final_message", false}}), HasSubstr("continue_final_message: found false"));
  EXPECT_THAT(refusal(empty, {{"continue_final_message", true}}), HasSubstr("continue_final_message: found true"));
  EXPECT_EQ(refusal(empty, {{"continue_final_message", false}, {"add_generation_prompt", true}}), "");
  EXPECT_THAT(
      refusal(R"([{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}])"),
      HasSubstr("messages: found the call of a function last, expected its result"));
}

// Training data of the same chat is rendered by the same class: data/conversations/conversations_test.cpp.
TEST(Messages, NameResultsOfCallsWithoutAnId) {
  const Conversation conversation = parse_messages(json::parse(R"([{"role": "user", "content": "a"},
    {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}},
    {"role": "function", "content": "1"}])"),
                                                   "");
  ASSERT_EQ(conversation.messages.size(), 3u);
  EXPECT_EQ(conversation.messages[1], Message("assistant", R"({"name":"f","arguments":{}})"));
  EXPECT_EQ(conversation.messages[2], Message("user", "Result of f:\n1"));
}

TEST(Messages, KeepWhatTheCalculatorComputed) {
  const auto assistant = [](const json& fields) {
    json message = {{"role", "assistant"}};
    message.update(fields);
    return parse_messages({{{"role", "user"}, {"content", "a"}}, message, {{"role", "user"}, {"content", "b"}}}, "")
        .messages[1];
  };
  const json first = {{"expression", "2+3"}, {"result", "5"}, {"offset", 5}},
             last = {{"expression", "6*7"}, {"result", "42"}, {"offset", 7}};
  using Parts = std::vector<MessagePart>;
  EXPECT_EQ(assistant({{"content", "\u00e9 is 5."}, {"nanochat_calculations", {first, last}}}).parts,
            (Parts{{PartType::kText, "\xc3\xa9 is "},
                   {PartType::kPython, "2+3"},
                   {PartType::kPythonOutput, "5"},
                   {PartType::kText, "5."},
                   {PartType::kPython, "6*7"},
                   {PartType::kPythonOutput, "42"}}));
  EXPECT_EQ(assistant({{"content", "a"}, {"nanochat_calculations", json::array()}}).parts, (Parts{{PartType::kText, "a"}}));
  const Conversation joined = parse_messages(
      {{{"role", "user"}, {"content", "a"}},
       {{"role", "assistant"},
        {"content", "is 5"},
        {"nanochat_calculations", {{{"expression", "2+3"}, {"result", "5"}, {"offset", 3}}}}},
       {{"role", "assistant"}, {"content", "Yes."}},
       {{"role", "user"}, {"content", "b"}}},
      "");
  EXPECT_EQ(joined.messages[1].parts, (Parts{{PartType::kText, "is "},
                                             {PartType::kPython, "2+3"},
                                             {PartType::kPythonOutput, "5"},
                                             {PartType::kText, "5\n\nYes."}}));

  const auto refusal = [&](const json& calculations) {
    try {
      assistant({{"content", "\u00e9 is 5."}, {"nanochat_calculations", calculations}});
    } catch (const ApiError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(refusal({last, first}),
              HasSubstr("messages[1].nanochat_calculations[1].offset: found 5, expected an integer at least 7"));
  EXPECT_THAT(refusal({{{"expression", "1"}, {"result", "1"}, {"offset", 8}}}),
              HasSubstr("offset: found 8, expected at most 7, the characters of the content"));
  EXPECT_THAT(refusal({{{"expression", "1"}, {"offset", 0}}}),
              HasSubstr("nanochat_calculations[0]: found an incomplete entry, expected expression, result and offset"));
  EXPECT_THAT(refusal({{{"expression", 1}, {"result", "1"}, {"offset", 0}}}),
              HasSubstr("expression: found an integer, expected a string"));
  EXPECT_THAT(refusal("x"), HasSubstr("nanochat_calculations: found a string, expected an array"));
}

TEST(Messages, KeepTheCallsOfOlderClients) {
  const Conversation conversation = parse_messages(json::parse(R"([{"role": "user", "content": "a"},
    {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{\"a\": 1}"}},
    {"role": "function", "name": "f", "content": "42"}])"),
                                                   "");
  EXPECT_EQ(conversation.messages[1], Message("assistant", R"({"name":"f","arguments":{"a": 1}})"));
  EXPECT_EQ(conversation.messages[2], Message("user", "Result of f:\n42"));
}

TEST(Messages, DescribeTools) {
  const json messages = json::parse(R"([{"role": "user", "content": "a"}])");
  const Conversation conversation = parse_messages(messages, "f: what it does");
  ASSERT_EQ(conversation.messages.size(), 2u);
  EXPECT_THAT(conversation.messages[0].joined_text(), ::testing::EndsWith("f: what it does"));
  const json alone = json::parse(R"([{"role": "system", "content": "a"}])");
  EXPECT_EQ(parse_messages(alone, "").messages[0], Message("user", "a"));
}

TEST(CompletionRequest, ReadsEveryFormOfPrompt) {
  const auto prompts = [](json prompt) {
    return parse_completion_request(json{{"prompt", std::move(prompt)}}.dump(), {}).prompts;
  };
  EXPECT_EQ(std::get<0>(prompts("a")[0]), "a");
  EXPECT_EQ(std::get<1>(prompts({1, 2})[0]), (std::vector<TokenId>{1, 2}));
  EXPECT_EQ(prompts({"a", "b"}).size(), 2u);
  EXPECT_EQ(std::get<1>(prompts({{1}, {2, 3}})[1]), (std::vector<TokenId>{2, 3}));
  const CompletionRequest request = parse_completion_request(R"({"prompt": "a", "echo": true, "logprobs": 1, "max_tokens": 0})",
                                                             {});
  EXPECT_TRUE(request.echo && request.fields.logprobs);
  EXPECT_EQ(request.fields.top_logprobs, 1);
  EXPECT_EQ(parse_completion_request(R"({"prompt": "a"})", {}).fields.max_tokens, 16);
}

TEST(CompletionRequest, NamesWhatIsWrong) {
  EXPECT_THAT(completion_refusal({{"prompt", nullptr}}), HasSubstr("prompt: missing"));
  EXPECT_THAT(completion_refusal({{"prompt", json::array()}}), HasSubstr("prompt"));
  EXPECT_THAT(completion_refusal({{"prompt", {1, "a"}}}), HasSubstr("found a string, expected token ids"));
  EXPECT_THAT(completion_refusal({{"prompt", {1, -2}}}), HasSubstr("found -2"));
  EXPECT_THAT(completion_refusal({{"prompt", {1, 1e12}}}), HasSubstr("expected token ids"));
  EXPECT_THAT(completion_refusal({{"prompt", "a"}, {"suffix", "b"}}), HasSubstr("suffix"));
  EXPECT_THAT(completion_refusal({{"prompt", "a"}, {"max_tokens", 0}}), HasSubstr("max_tokens"));
  EXPECT_THAT(completion_refusal({{"prompt", {"a", "b"}}, {"n", 100}}), HasSubstr("128 answers"));
}

}  // namespace
}  // namespace nanochat
