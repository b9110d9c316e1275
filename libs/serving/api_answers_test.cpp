// Requests that generate text: what a client gets, and what the engine is asked for.
#include <gmock/gmock.h>

#include "core/errors.h"
#include "serving/testing_api.h"

namespace nanochat {
namespace {

using nlohmann::json;
using testing::ApiTest;
using ::testing::HasSubstr;
using testing::RecordingExchange;

TEST_F(ApiTest, AnswersAChat) {
  const auto exchange = chat();
  ASSERT_EQ(status(exchange), 200);
  const json answer = json::parse(exchange->text());
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["model"], "tiny");
  EXPECT_EQ(answer["system_fingerprint"], "fp_test");
  EXPECT_THAT(answer["id"].get<std::string>(), ::testing::StartsWith("chatcmpl-"));
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "Hello!");
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(answer["choices"][0]["logprobs"], nullptr);
  EXPECT_EQ(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 2);
  // <|bos|> <|user_start|> H i <|user_end|> <|assistant_start|>
  EXPECT_EQ(backend_->request(1).prompt, (std::vector<std::int32_t>{256, 257, 'H', 'i', 258, 259}));
  EXPECT_THAT(exchange->header("X-Request-Id"), HasSubstr("req-"));
}

TEST_F(ApiTest, StreamsAChatAsClientsExpectIt) {
  const auto exchange = chat({{"stream", true}, {"stream_options", {{"include_usage", true}}}});
  EXPECT_EQ(exchange->response->content_type, "text/event-stream; charset=utf-8");
  const auto chunks = events(exchange->text());
  ASSERT_EQ(chunks.size(), 5u);
  EXPECT_EQ(chunks[0]["choices"][0]["delta"], json({{"role", "assistant"}, {"content", ""}}));
  EXPECT_EQ(chunks[0]["usage"], nullptr);
  EXPECT_EQ(chunks[1]["choices"][0]["delta"], json({{"content", "Hello!"}}));  // what came at once is one delta
  EXPECT_EQ(chunks[2]["choices"][0]["delta"], json::object());
  EXPECT_EQ(chunks[2]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(chunks[3]["choices"], json::array());
  EXPECT_EQ(chunks[3]["usage"]["completion_tokens"], 5);
  EXPECT_EQ(chunks[4], "[DONE]");
  EXPECT_FALSE(exchange->text().empty());
}

TEST_F(ApiTest, StreamsTokenByToken) {
  backend_->manual = true;
  const auto exchange = chat({{"stream", true}});
  EXPECT_FALSE(exchange->response);  // an error could still have a status
  backend_->token(1, 'a');
  ASSERT_TRUE(exchange->response);
  EXPECT_EQ(events(exchange->text()).size(), 2u);
  backend_->token(1, 'b');
  EXPECT_THAT(exchange->text(), HasSubstr(R"("content":"b")"));
  backend_->finish(1, FinishReason::kLength);
  backend_->done(1);
  EXPECT_THAT(exchange->text(), ::testing::EndsWith("data: [DONE]\n\n"));
  EXPECT_TRUE(exchange->ended);
}

TEST_F(ApiTest, BeginsAStreamWhenAKeepAliveIsDue) {
  backend_->manual = true;
  const auto exchange = chat({{"stream", true}});
  exchange->quiet();
  ASSERT_TRUE(exchange->response);
  EXPECT_EQ(exchange->response->stream->keep_alive(), ": keep-alive\n\n");
  const auto whole = chat();
  whole->quiet();
  EXPECT_FALSE(whole->response);
}

TEST_F(ApiTest, SaysWhatFailedBeforeAndWithinAStream) {
  backend_->manual = true;
  const auto early = chat({{"stream", true}});
  backend_->finish(1, FinishReason::kError, "logit is NaN");
  backend_->done(1);
  EXPECT_EQ(status(early), 500);
  EXPECT_THAT(error(early)["message"].get<std::string>(), HasSubstr("NaN"));
  const auto late = chat({{"stream", true}});
  backend_->token(2, 'a');
  backend_->finish(2, FinishReason::kError, "logit is NaN");
  backend_->done(2);
  EXPECT_THAT(late->text(), HasSubstr("server_error"));
  EXPECT_TRUE(late->ended);
}

TEST_F(ApiTest, StopsAtAStopString) {
  const json answer = json::parse(chat({{"stop", {"lo"}}})->text());
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "Hel");
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
}

TEST_F(ApiTest, MoreChoicesThanTheEngineHasAtATimeAreRefused) {
  EXPECT_EQ(status(chat({{"n", 16}})), 200);
  for (const auto& refused : {chat({{"n", 17}}), complete({{"prompt", "a"}, {"n", 17}, {"best_of", 17}})}) {
    EXPECT_EQ(status(refused), 400);
    EXPECT_EQ(error(refused)["param"], "n");
    EXPECT_THAT(error(refused)["message"].get<std::string>(), ::testing::StartsWith("n: found 17, expected at most 16, "));
  }
}

TEST_F(ApiTest, GivesSeveralChoicesAndLogprobs) {
  const json answer = json::parse(chat({{"n", 3}, {"max_tokens", 2}, {"logprobs", true}, {"top_logprobs", 2}})->text());
  ASSERT_EQ(answer["choices"].size(), 3u);
  EXPECT_EQ(answer["choices"][2]["index"], 2);
  EXPECT_EQ(answer["choices"][2]["finish_reason"], "length");
  const json& content = answer["choices"][1]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 2u);
  EXPECT_EQ(content[0]["token"], "H");
  EXPECT_EQ(content[0]["bytes"], json({'H'}));
  EXPECT_EQ(content[0]["top_logprobs"].size(), 2u);
}

constexpr const char* kCallRequest = R"({"messages": [{"role": "user", "content": "Hi"}], "stop": ["Oslo"], "stream": STREAM,
  "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}],
  "tool_choice": {"type": "function", "function": {"name": "weather"}}})";

TEST_F(ApiTest, CallsTheFunctionThatIsRequired) {
  nlohmann::ordered_json schema;
  make_constraint_ = [&](AnswerForm, const nlohmann::ordered_json& given) {
    schema = given;
    return nullptr;
  };
  backend_->answer = R"({"name":"weather","arguments":{"city":"Oslo"}})";
  std::string body = kCallRequest;
  body.replace(body.find("STREAM"), 6, "false");
  const json choice = json::parse(call("POST", "/v1/chat/completions", body)->text())["choices"][0];
  EXPECT_EQ(schema["anyOf"][0]["properties"]["name"]["const"], "weather");
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_EQ(choice["message"]["content"], nullptr);
  EXPECT_EQ(choice["message"]["tool_calls"][0]["type"], "function");
  EXPECT_THAT(choice["message"]["tool_calls"][0]["id"].get<std::string>(), ::testing::StartsWith("call_"));
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"], json({{"name", "weather"}, {"arguments", R"({"city":"Oslo"})"}}));
}

TEST_F(ApiTest, StreamsACall) {
  make_constraint_ = [](AnswerForm, const nlohmann::ordered_json&) { return nullptr; };
  backend_->manual = true;
  std::string body = kCallRequest;
  body.replace(body.find("STREAM"), 6, "true");
  const auto exchange = call("POST", "/v1/chat/completions", body);
  for (const char c : std::string(R"({"name":"weather","arguments":{"city":"Oslo"}})")) {
    backend_->token(1, c);
    exchange->text();
  }
  backend_->finish(1, FinishReason::kStop);
  backend_->done(1);
  const auto chunks = events(exchange->text());
  EXPECT_EQ(chunks[0]["choices"][0]["delta"], json({{"role", "assistant"}, {"content", nullptr}}));
  EXPECT_EQ(chunks[1]["choices"][0]["delta"]["tool_calls"][0]["function"], json({{"name", "weather"}, {"arguments", ""}}));
  std::string arguments;
  for (std::size_t i = 1; i + 2 < chunks.size(); ++i) {
    const json& delta = chunks[i]["choices"][0]["delta"]["tool_calls"][0];
    EXPECT_EQ(delta["index"], 0);
    EXPECT_EQ(delta.contains("id"), i == 1);
    arguments += delta["function"]["arguments"].get<std::string>();
  }
  EXPECT_EQ(arguments, R"({"city":"Oslo"})");
  EXPECT_EQ(chunks[chunks.size() - 2]["choices"][0]["finish_reason"], "tool_calls");
}

TEST_F(ApiTest, TheCalculatorIsOnWhereItCanBe) {
  make_constraint_ = [](AnswerForm, const nlohmann::ordered_json&) { return nullptr; };
  const auto tools = [&](const json& extra) {
    EXPECT_EQ(status(chat(extra)), 200) << extra;
    return backend_->request(backend_->submitted()).tools;
  };
  EXPECT_TRUE(tools(json::object()));
  EXPECT_TRUE(tools({{"nanochat_tools", true}}));
  EXPECT_TRUE(tools({{"nanochat_tools", nullptr}}));
  EXPECT_FALSE(tools({{"nanochat_tools", false}}));
  // An answer that is constrained has no place for a call.
  const json schema = {{"type", "object"}};
  const std::vector<json> constrained = {{{"response_format", {{"type", "json_object"}}}},
                                         {{"guided_json", schema}},
                                         {{"tools", {{{"function", {{"name", "f"}}}}}}, {"tool_choice", "required"}}};
  for (json extra : constrained) {
    EXPECT_FALSE(tools(extra));
    extra["nanochat_tools"] = true;
    const auto both = chat(extra);
    EXPECT_EQ(status(both), 400);
    EXPECT_EQ(error(both)["param"], "nanochat_tools");
  }
  EXPECT_TRUE(tools({{"tools", {{{"function", {{"name", "f"}}}}}}}));  // offered functions constrain nothing
  EXPECT_EQ(status(complete({{"prompt", "a"}})), 200);
  EXPECT_FALSE(backend_->request(backend_->submitted()).tools);
}

TEST_F(ApiTest, AModelWithoutTheTokensHasNoCalculator) {
  has_tools_ = false;
  EXPECT_EQ(status(chat()), 200);
  EXPECT_FALSE(backend_->request(1).tools);
  EXPECT_EQ(status(chat({{"nanochat_tools", true}})), 400);
}

constexpr std::int32_t kPythonStartId = 261, kPythonEndId = 262, kOutputStartId = 263, kOutputEndId = 264;

TEST_F(ApiTest, SaysWhatTheCalculatorComputed) {
  backend_->manual = true;
  const auto answer = [&](const std::shared_ptr<RecordingExchange>& exchange, RequestId id, bool read) {
    const auto say = [&](const std::vector<std::int32_t>& tokens, bool forced) {
      for (const std::int32_t token : tokens) {
        backend_->token(id, token, 0, forced);
        if (read) exchange->text();
      }
    };
    say({'=', kPythonStartId, '2', '+', '3', kPythonEndId}, false);
    say({kOutputStartId, '5', kOutputEndId}, true);
    say({'5', '.'}, false);
    backend_->finish(id, FinishReason::kStop);
    backend_->done(id);
    return exchange->text();
  };
  const json message = json::parse(answer(chat(), 1, false))["choices"][0]["message"];
  EXPECT_EQ(message["content"], "=5.");
  EXPECT_EQ(message["nanochat_calculations"], json::parse(R"([{"expression": "2+3", "result": "5", "offset": 1}])"));
  for (const bool read : {true, false}) {  // a client that reads at once, and one that reads at the end
    std::string content;
    json calculations = json::array();
    for (const json& event : events(answer(chat({{"stream", true}}), backend_->submitted() + 1, read))) {
      if (event == "[DONE]" || !event["choices"][0]["delta"].contains("nanochat_calculations")) {
        if (event != "[DONE]") content += event["choices"][0]["delta"].value("content", "");
        continue;
      }
      content += event["choices"][0]["delta"].value("content", "");
      for (const json& one : event["choices"][0]["delta"]["nanochat_calculations"]) calculations.push_back(one);
    }
    EXPECT_EQ(content, "=5.");
    EXPECT_EQ(calculations, json::parse(R"([{"index": 0, "expression": "2+3", "result": "5", "offset": 1}])"));
  }
  const json scored = json::parse(answer(chat({{"logprobs", true}}), backend_->submitted() + 1, false))["choices"][0];
  EXPECT_EQ(scored["logprobs"]["content"].size(), 3u);  // those of the content
}

TEST_F(ApiTest, ConstrainsCompletionsToo) {
  int made = 0;
  make_constraint_ = [&](AnswerForm form, const nlohmann::ordered_json& schema) -> std::unique_ptr<TokenConstraint> {
    ++made;
    EXPECT_EQ(form, AnswerForm::kJsonSchema);
    EXPECT_EQ(schema, nlohmann::ordered_json({{"type", "integer"}}));
    return nullptr;
  };
  EXPECT_EQ(status(complete({{"prompt", {"a", "b"}}, {"guided_json", {{"type", "integer"}}}})), 200);
  EXPECT_EQ(made, 2);  // each prompt has its own
}

TEST_F(ApiTest, ConstrainsAnswersToText) {
  EXPECT_EQ(error(chat({{"guided_regex", "a+"}}))["param"], "guided_regex");  // without a way to constrain
  api_.reset();
  std::vector<std::pair<AnswerForm, nlohmann::ordered_json>> made;
  make_constraint_ = [&](AnswerForm form, const nlohmann::ordered_json& value) -> std::unique_ptr<TokenConstraint> {
    made.emplace_back(form, value);
    if (value == "(") throw ConfigError("a '(' without ')'");
    return nullptr;
  };
  EXPECT_EQ(status(chat({{"guided_regex", "a+"}})), 200);
  EXPECT_FALSE(backend_->request(backend_->submitted()).tools);
  EXPECT_EQ(status(complete({{"prompt", "a"}, {"choice", {"b", "a"}}})), 200);
  EXPECT_EQ(status(complete({{"prompt", "a"}, {"structured_outputs", {{"grammar", "root ::= \"a\""}}}})), 200);
  const std::vector<std::pair<AnswerForm, nlohmann::ordered_json>> expected = {
      {AnswerForm::kRegex, "a+"}, {AnswerForm::kChoice, {"b", "a"}}, {AnswerForm::kGrammar, "root ::= \"a\""}};
  EXPECT_EQ(made, expected);
  const auto wrong = chat({{"regex", "("}});
  EXPECT_EQ(status(wrong), 400);
  EXPECT_EQ(error(wrong)["param"], "regex");
  EXPECT_EQ(error(wrong)["message"], "regex: a '(' without ')'");
}

TEST_F(ApiTest, EndsAtTokensThatTheRequestNames) {
  EXPECT_EQ(status(complete({{"prompt", "a"}, {"stop_token_ids", {7}}})), 200);
  EXPECT_EQ(backend_->request(1).stop_tokens, (std::vector<std::int32_t>{256, 260, 7}));
  EXPECT_EQ(status(complete({{"prompt", "a"}, {"stop_token_ids", {7}}, {"ignore_eos", true}})), 200);
  EXPECT_EQ(backend_->request(2).stop_tokens, (std::vector<std::int32_t>{7}));
  EXPECT_FALSE(backend_->request(2).ignore_eos);
  EXPECT_EQ(status(complete({{"prompt", "a"}, {"stop_token_ids", {265}}})), 400);
  EXPECT_EQ(status(complete({{"prompt", "a"}, {"stop_token_ids", "x"}})), 400);
}

TEST_F(ApiTest, ABosIsLeftOutWhenItIsDeclined) {
  EXPECT_EQ(status(complete({{"prompt", "ab"}, {"add_special_tokens", false}})), 200);
  EXPECT_EQ(backend_->request(1).prompt, (std::vector<std::int32_t>{'a', 'b'}));
}

TEST_F(ApiTest, ScoresAPromptForLmEval) {
  const auto exchange = complete({{"prompt", {256, 'a', 'b'}}, {"echo", true}, {"logprobs", 1}, {"max_tokens", 1}});
  const json choice = json::parse(exchange->text())["choices"][0];
  EXPECT_EQ(choice["text"], "abH");
  EXPECT_EQ(choice["logprobs"]["token_logprobs"], json({nullptr, -1.0, -1.0, -0.5}));
  EXPECT_EQ(choice["logprobs"]["tokens"], json({"<|bos|>", "a", "b", "H"}));
  EXPECT_EQ(choice["logprobs"]["text_offset"], json({0, 0, 1, 2}));
  EXPECT_EQ(choice["logprobs"]["top_logprobs"][1], json({{"a", -1.0}}));
  EXPECT_TRUE(backend_->request(1).ignore_eos && backend_->request(1).prompt_logprobs);
  EXPECT_EQ(backend_->request(1).prompt, (std::vector<std::int32_t>{256, 'a', 'b'}));  // ids get no <|bos|>
}

TEST_F(ApiTest, AnEndIsAGeneratedTokenWhenScoring) {
  backend_->manual = true;
  const auto exchange = complete({{"prompt", {256, 'a'}}, {"echo", true}, {"logprobs", 1}, {"max_tokens", 1}});
  EXPECT_FALSE(backend_->token(1, 260));  // and nothing follows it
  backend_->finish(1, FinishReason::kStop);
  backend_->done(1);
  EXPECT_EQ(json::parse(exchange->text())["choices"][0]["logprobs"]["token_logprobs"], json({-0.5}));
}

TEST_F(ApiTest, CompletesSeveralPrompts) {
  const json answer = json::parse(complete({{"prompt", {"x", "y"}}, {"n", 2}, {"echo", true}, {"max_tokens", 2}})->text());
  EXPECT_EQ(answer["object"], "text_completion");
  ASSERT_EQ(answer["choices"].size(), 4u);
  EXPECT_EQ(answer["choices"][3]["text"], "yHe");
  EXPECT_EQ(backend_->request(1).prompt, (std::vector<std::int32_t>{256, 'x'}));  // a text gets <|bos|>
}

TEST_F(ApiTest, CancelsWhenTheClientIsGone) {
  backend_->manual = true;
  const auto exchange = complete({{"prompt", {"x", "y"}}});
  ASSERT_TRUE(exchange->gone);
  exchange->gone();
  EXPECT_EQ(backend_->cancelled(), (std::vector<RequestId>{1, 2}));
  EXPECT_TRUE(backend_->token(1, 'a'));  // else the engine would count it as finished
}

TEST_F(ApiTest, RefusesWhatTheEngineCannotTake) {
  backend_->refusal = Refusal::kQueueFull;
  const auto full = chat();
  EXPECT_EQ(status(full), 429);
  EXPECT_EQ(full->header("Retry-After"), "1");
  backend_->refusal = Refusal::kDraining;
  EXPECT_EQ(status(chat()), 503);
  backend_->refusal = Refusal::kNone;
  backend_->context = 6;
  const auto long_prompt = chat();
  EXPECT_EQ(status(long_prompt), 400);
  EXPECT_EQ(error(long_prompt)["code"], "context_length_exceeded");
  EXPECT_THAT(error(long_prompt)["message"].get<std::string>(),
              HasSubstr("found 6 tokens, expected at most 5: this model's maximum context length is 6 tokens"));
  // A prompt alone may fill the context, and only that is more than it leaves room for.
  const auto scored = [&](int tokens) {
    return complete({{"prompt", std::vector<int>(static_cast<std::size_t>(tokens), 'a')},
                     {"echo", true},
                     {"max_tokens", 0},
                     {"logprobs", 1}});
  };
  EXPECT_EQ(status(scored(6)), 200);
  EXPECT_EQ(error(scored(7))["code"], "context_length_exceeded");
  EXPECT_THAT(error(scored(7))["message"].get<std::string>(),
              HasSubstr("found 7 tokens, expected at most 6: this model's maximum context length is 6 tokens"));
  EXPECT_EQ(status(complete({{"prompt", {1, 9999}}})), 400);
  EXPECT_EQ(status(chat({{"model", "other"}})), 404);
  EXPECT_EQ(status(chat({{"response_format", {{"type", "json_object"}}}})), 400);
  backend_->context = 256;
  const auto call = chat({{"tools", {{{"function", {{"name", "f"}}}}}}, {"tool_choice", "required"}});
  EXPECT_EQ(status(call), 400);
  EXPECT_EQ(error(call)["param"], "tools");
  EXPECT_EQ(status(chat({{"logit_bias", {{"70000", 1}}}})), 400);
}

TEST_F(ApiTest, AKeyReadsOnlyItsOwnResponses) {
  options_.api_keys = {"one", "two"};
  const auto with = [&](const char* key, const char* method, const std::string& path, const std::string& body = {}) {
    return call(method, path, body, {{"authorization", std::string("Bearer ") + key}});
  };
  const std::string id = json::parse(with("one", "POST", "/v1/responses", R"({"input": "Hi"})")->text())["id"];
  EXPECT_EQ(status(with("two", "GET", "/v1/responses/" + id)), 404);
  EXPECT_EQ(status(with("two", "DELETE", "/v1/responses/" + id)), 404);
  const std::string next = R"({"input": "Hi", "previous_response_id": ")" + id + "\"}";
  EXPECT_EQ(error(with("two", "POST", "/v1/responses", next))["param"], "previous_response_id");
  EXPECT_EQ(status(with("one", "POST", "/v1/responses", next)), 200);
  EXPECT_EQ(status(with("one", "GET", "/v1/responses/" + id)), 200);
}

TEST_F(ApiTest, AStoredResponseIsNotStreamed) {
  HttpRequest request{
      .method = "GET", .path = "/v1/responses/x", .query = "stream=true", .headers = {}, .body = {}, .client = {}};
  call("GET", "/health");
  exchanges_.push_back(std::make_shared<RecordingExchange>(std::move(request)));
  api_->handle(exchanges_.back());
  EXPECT_EQ(error(exchanges_.back())["param"], "stream");
}

TEST_F(ApiTest, TokensAreCountedAsTheyArePrompted) {
  const std::string fields = R"("messages": [{"role": "user", "content": "Hi"}], "system": "S")";
  call("POST", "/v1/messages", "{" + fields + R"(, "max_tokens": 5})");
  EXPECT_EQ(json::parse(call("POST", "/v1/messages/count_tokens", "{" + fields + "}")->text())["input_tokens"],
            backend_->request(1).prompt.size());
}

TEST_F(ApiTest, APrefillIsThePromptWithoutAnEnd) {
  const json messages = {{{"role", "user"}, {"content", "Hi"}}, {{"role", "assistant"}, {"content", "He"}}};
  EXPECT_EQ(status(chat({{"messages", messages}})), 200);
  EXPECT_THAT(backend_->request(1).prompt, ::testing::ElementsAre(256, 257, 'H', 'i', 258, 259, 'H', 'e'));
  make_constraint_ = [](AnswerForm, const nlohmann::ordered_json&) { return nullptr; };
  api_.reset();
  const auto refused = chat({{"messages", messages}, {"response_format", {{"type", "json_object"}}}});
  EXPECT_EQ(error(refused)["param"], "response_format");
  EXPECT_THAT(error(refused)["message"], HasSubstr("cannot be combined with a message of the assistant last"));
}

}  // namespace
}  // namespace nanochat
