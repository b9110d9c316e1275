#include "serving/api.h"

#include <algorithm>
#include <chrono>

#include <gmock/gmock.h>
#include <spdlog/fmt/fmt.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/log.h"
#include "core/random.h"
#include "core/testing.h"
#include "inference/answer_constraint.h"
#include "serving/testing.h"

namespace nanochat {
namespace {

using nlohmann::json;
using testing::FakeBackend;
using ::testing::HasSubstr;
using testing::RecordingExchange;

class ApiTest : public ::testing::Test {
 protected:
  std::shared_ptr<FakeBackend> backend_ = std::make_shared<FakeBackend>();
  ApiOptions options_{.version = "1.2.3"};
  std::unique_ptr<Api> api_;
  std::function<std::unique_ptr<TokenConstraint>(AnswerForm, const nlohmann::ordered_json&)> make_constraint_;
  bool loaded_ = true;
  bool has_tools_ = true;
  std::vector<std::shared_ptr<RecordingExchange>> exchanges_;

  ~ApiTest() override {
    for (const auto& exchange : exchanges_) exchange->let_go();
    backend_->let_go();
  }
  std::shared_ptr<RecordingExchange> call(std::string method, std::string path, std::string body = {},
                                          HttpHeaders headers = {}) {
    if (!api_) {
      api_ = std::make_unique<Api>(options_);
      const auto model = testing::fake_model(backend_);
      model->make_constraint = make_constraint_;
      model->has_tools = has_tools_;
      if (loaded_) api_->set_model(model);
    }
    HttpRequest request{.method = std::move(method),
                        .path = std::move(path),
                        .query = {},
                        .headers = std::move(headers),
                        .body = std::move(body),
                        .client = "127.0.0.1"};
    exchanges_.push_back(std::make_shared<RecordingExchange>(std::move(request)));
    const auto exchange = exchanges_.back();
    api_->handle(exchange);
    return exchange;
  }
  std::shared_ptr<RecordingExchange> chat(json extra = json::object()) {
    json body = {{"messages", {{{"role", "user"}, {"content", "Hi"}}}}};
    body.update(extra);
    return call("POST", "/v1/chat/completions", body.dump());
  }
  std::shared_ptr<RecordingExchange> complete(const json& body) { return call("POST", "/v1/completions", body.dump()); }

  static std::vector<json> events(const std::string& text) {
    std::vector<json> found;
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = text.find("\n\n", begin);
      const std::string event = text.substr(begin, end - begin);
      EXPECT_EQ(event.substr(0, 6), "data: ");
      found.push_back(event == "data: [DONE]" ? json("[DONE]") : json::parse(event.substr(6)));
      begin = end + 2;
    }
    return found;
  }
  static int status(const std::shared_ptr<RecordingExchange>& exchange) {
    return exchange->response ? exchange->response->status : 0;
  }
  static json error(const std::shared_ptr<RecordingExchange>& exchange) { return json::parse(exchange->text())["error"]; }
};

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

TEST_F(ApiTest, LogsALineWhenAnExchangeEnds) {
  const testing::TemporaryDirectory folder;
  configure_logging({.level = LogLevel::kInfo, .file = folder / "log"});
  chat()->end(200, 321);
  call("GET", "/nothing\n")->end(404, 10);
  configure_logging({});
  const std::string log = read_file(folder / "log");
  EXPECT_THAT(log, HasSubstr("method=\"POST\" path=\"/v1/chat/completions\" status=200"));
  EXPECT_THAT(log, HasSubstr("bytes=321 prompt_tokens=6 cached_tokens=2 completion_tokens=5 finish=stop"));
  EXPECT_THAT(log, HasSubstr("path=\"/nothing\\n\" status=404"));
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 2);
}

TEST_F(ApiTest, StopsAtAStopString) {
  const json answer = json::parse(chat({{"stop", {"lo"}}})->text());
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "Hel");
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
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
              HasSubstr("found 6 tokens, expected at most 5 in a context of 6"));
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
              HasSubstr("found 7 tokens, expected at most 6 in a context of 6"));
  EXPECT_EQ(status(complete({{"prompt", {1, 9999}}})), 400);
  EXPECT_EQ(status(chat({{"model", "other"}})), 404);
  EXPECT_EQ(status(chat({{"response_format", {{"type", "json_object"}}}})), 400);
  backend_->context = 256;
  const auto call = chat({{"tools", {{{"function", {{"name", "f"}}}}}}, {"tool_choice", "required"}});
  EXPECT_EQ(status(call), 400);
  EXPECT_EQ(error(call)["param"], "tools");
  EXPECT_EQ(status(chat({{"logit_bias", {{"70000", 1}}}})), 400);
}

TEST_F(ApiTest, AsksForAKey) {
  options_.api_keys = {"first", "second"};
  EXPECT_EQ(status(call("GET", "/v1/models")), 401);
  EXPECT_EQ(status(call("GET", "/nothing")), 401);
  EXPECT_EQ(status(call("GET", "/health")), 200);
  EXPECT_EQ(status(call("GET", "/v1/models", "", {{"authorization", "Bearer first"}})), 200);
  EXPECT_EQ(status(call("GET", "/v1/models", "", {{"authorization", "bearer second"}})), 200);
  EXPECT_EQ(status(call("GET", "/v1/models", "", {{"x-api-key", "second"}})), 200);
  EXPECT_EQ(status(call("GET", "/v1/models", "", {{"authorization", "Bearer firs"}})), 401);
  EXPECT_EQ(status(call("GET", "/v1/models", "", {{"authorization", "Basic first"}})), 401);
  EXPECT_TRUE(equal_in_constant_time("abc", "abc"));
  EXPECT_FALSE(equal_in_constant_time("", "abc") || equal_in_constant_time("abcabc", "abc"));
}

TEST_F(ApiTest, KnowsItsPathsAndMethods) {
  EXPECT_EQ(status(call("GET", "/nothing")), 404);
  const auto wrong = call("GET", "/v1/completions");
  EXPECT_EQ(status(wrong), 405);
  EXPECT_EQ(wrong->header("Allow"), "POST");
  EXPECT_EQ(status(call("HEAD", "/health")), 200);
  EXPECT_EQ(status(call("GET", "/v1/models/tiny")), 200);
  EXPECT_EQ(status(call("GET", "/v1/models/other")), 404);
  EXPECT_EQ(status(call("POST", "/tokenize", "x=1", {{"content-type", "application/x-www-form-urlencoded"}})), 415);
  EXPECT_EQ(status(call("POST", "/v1/completions", "{")), 400);
  EXPECT_EQ(status(call("GET", "")), 400);
}

TEST_F(ApiTest, PathsAreServedWithAndWithoutTheirVersionAndWithASlash) {
  const std::string body = R"({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5})";
  for (const char* path : {"/v1/chat/completions", "/chat/completions", "/v1/chat/completions/", "/chat/completions/",
                           "/messages", "/v1/messages/", "/messages/count_tokens", "/v1/messages/count_tokens/"}) {
    EXPECT_EQ(status(call("POST", path, body)), 200) << path;
  }
  EXPECT_EQ(status(call("POST", "/responses/", R"({"input": "Hi"})")), 200);
  EXPECT_EQ(status(call("POST", "/completions", R"({"prompt": "Hi"})")), 200);
  EXPECT_EQ(status(call("POST", "/v1/tokenize", R"({"content": "Hi"})")), 200);
  EXPECT_EQ(json::parse(call("GET", "/models")->text())["data"][0]["id"], "tiny");
  EXPECT_EQ(json::parse(call("GET", "/v1/models/")->text())["data"][0]["id"], "tiny");
  EXPECT_EQ(json::parse(call("GET", "/models/tiny/")->text())["id"], "tiny");
  EXPECT_EQ(status(call("GET", "/v1/v1/models")), 200);  // a client that adds /v1 to a base URL that has it
  EXPECT_EQ(status(call("GET", "/v1/health")), 200);
  EXPECT_EQ(status(call("GET", "/health/")), 200);
  for (const char* path : {"/v1", "/v1/", "/v2/models", "/v1models", "/v1/models//x"}) {
    EXPECT_EQ(status(call("GET", path)), 404) << path;
  }
  const auto wrong = call("PUT", "/responses/x");
  EXPECT_EQ(status(wrong), 405);
  EXPECT_EQ(wrong->header("Allow"), "GET, HEAD, DELETE");
}

TEST_F(ApiTest, ErrorsAreInTheFormOfTheProtocol) {
  options_.api_keys = {"key"};
  const HttpHeaders key = {{"x-api-key", "key"}};
  const auto type_of = [](const std::shared_ptr<RecordingExchange>& exchange) {
    const json body = json::parse(exchange->text());
    EXPECT_EQ(body["type"], "error");
    EXPECT_EQ(exchange->header("Request-Id"), exchange->header("X-Request-Id"));
    return body["error"]["type"].get<std::string>();
  };
  const std::string body = R"({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5})";
  EXPECT_EQ(type_of(call("POST", "/v1/messages", body)), "authentication_error");
  EXPECT_EQ(type_of(call("POST", "/v1/messages", "{", key)), "invalid_request_error");
  EXPECT_EQ(type_of(call("GET", "/messages/", "", key)), "invalid_request_error");  // 405
  EXPECT_EQ(type_of(call("POST", "/v1/messages", "x", {{"x-api-key", "key"}, {"content-type", "text/plain"}})),
            "invalid_request_error");
  EXPECT_EQ(type_of(call("POST", "/v1/messages/count_tokens",
                         R"({"model": "other", "messages": [{"role": "user", "content": "a"}]})", key)),
            "not_found_error");
  backend_->refusal = Refusal::kQueueFull;
  const auto busy = call("POST", "/v1/messages", body, key);
  EXPECT_EQ(type_of(busy), "rate_limit_error");
  EXPECT_EQ(busy->header("Retry-After"), "1");
  backend_->is_ready = false;
  EXPECT_EQ(type_of(call("POST", "/v1/messages", body, key)), "overloaded_error");
  EXPECT_EQ(error(call("POST", "/v1/responses", "{}", key))["code"], "unavailable");
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

TEST_F(ApiTest, AllowsOriginsThatAreNamed) {
  options_.cors_origins = {"https://a.example"};
  const auto allowed = call("GET", "/v1/models", "", {{"origin", "https://a.example"}});
  EXPECT_EQ(allowed->header("Access-Control-Allow-Origin"), "https://a.example");
  EXPECT_EQ(call("GET", "/v1/models", "", {{"origin", "https://b.example"}})->header("Access-Control-Allow-Origin"), "");
  const auto preflight = call("OPTIONS", "/v1/completions", "", {{"origin", "https://a.example"}});
  EXPECT_EQ(status(preflight), 204);
  EXPECT_EQ(preflight->header("Access-Control-Allow-Methods"), "POST, OPTIONS");
  EXPECT_EQ(preflight->header("Access-Control-Allow-Origin"), "https://a.example");
}

TEST_F(ApiTest, GivesThePreflightTheHeadersItAsksFor) {
  options_.cors_origins = {"HTTP://localhost:3000/"};
  const std::string wanted =
      "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version";
  const auto preflight = [&](const char* origin, const std::string& names) {
    return call("OPTIONS", "/v1/chat/completions", "",
                {{"origin", origin}, {"access-control-request-method", "POST"}, {"access-control-request-headers", names}});
  };
  const auto allowed = preflight("http://localhost:3000", wanted);
  EXPECT_EQ(status(allowed), 204);
  EXPECT_EQ(allowed->header("Access-Control-Allow-Origin"), "http://localhost:3000");
  EXPECT_EQ(allowed->header("Access-Control-Allow-Headers"),
            "authorization, content-type, x-stainless-arch, x-stainless-lang, x-stainless-os, x-stainless-package-version");
  EXPECT_EQ(preflight("http://localhost:3000", "")->header("Access-Control-Allow-Headers"),
            "Authorization, Content-Type, X-Api-Key");
  EXPECT_EQ(preflight("http://localhost:3000", "x-a, x b\r\nEvil: 1, x-c")->header("Access-Control-Allow-Headers"), "x-a, x-c");
  const auto other = preflight("http://localhost:3001", wanted);
  EXPECT_EQ(other->header("Access-Control-Allow-Headers"), "");
  EXPECT_EQ(other->header("Access-Control-Allow-Origin"), "");
}

TEST_F(ApiTest, AnyOriginIsGivenTheHeadersTooAndNoneWithoutOrigins) {
  options_.cors_origins = {"*"};
  const HttpHeaders asked = {{"origin", "null"}, {"access-control-request-headers", "x-stainless-arch"}};
  const auto any = call("OPTIONS", "/v1/completions", "", asked);
  EXPECT_EQ(any->header("Access-Control-Allow-Origin"), "*");
  EXPECT_EQ(any->header("Access-Control-Allow-Headers"), "x-stainless-arch");
  api_.reset();
  options_.cors_origins = {};
  EXPECT_EQ(call("OPTIONS", "/v1/completions", "", asked)->header("Access-Control-Allow-Headers"), "");
}

TEST(Api, RefusesOriginsThatNoBrowserSends) {
  EXPECT_THAT([] { Api(ApiOptions{.cors_origins = {"localhost:3000"}}); },
              ::testing::ThrowsMessage<ConfigError>(
                  HasSubstr("--cors-origins: found \"localhost:3000\", expected the origin of a web page")));
}

TEST_F(ApiTest, NamesTheEncodingOfABodyThatItCannotRead) {
  const auto encoded = [&](const char* encoding) {
    return call("POST", "/v1/completions", R"({"prompt": "a"})",
                {{"content-type", "application/json"}, {"content-encoding", encoding}});
  };
  for (const char* encoding : {"gzip", "deflate", "br", "zstd", "gzip, identity"}) {
    const auto refused = encoded(encoding);
    EXPECT_EQ(status(refused), 415) << encoding;
    EXPECT_EQ(refused->header("Accept-Encoding"), "identity");
    EXPECT_THAT(error(refused)["message"].get<std::string>(),
                HasSubstr(fmt::format("Content-Encoding: found \"{}\", expected", encoding)));
  }
  EXPECT_EQ(status(encoded("Identity")), 200);
  EXPECT_EQ(status(call("GET", "/v1/models", "", {{"content-encoding", "gzip"}})), 200);
}

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
  // Each place must answer 200 or 400, and quickly. Returns the messages of the 400s.
  std::vector<std::string> outcomes(const std::string& text) {
    std::vector<std::string> messages;
    for (const std::string& body : bodies(text)) {
      const auto begin = std::chrono::steady_clock::now();
      const auto exchange = call("POST", "/v1/chat/completions", body);
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      EXPECT_TRUE(status(exchange) == 200 || status(exchange) == 400) << status(exchange) << " " << text.substr(0, 1000);
      EXPECT_LT(seconds, 20) << text.substr(0, 1000);
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

TEST_F(ApiTest, SaysHowItIs) {
  EXPECT_EQ(json::parse(call("GET", "/health")->text()), json({{"status", "ok"}, {"model_loaded", true}}));
  EXPECT_EQ(json::parse(call("GET", "/stats")->text())["cache_hits"], 3);
  chat();
  EXPECT_THAT(call("GET", "/metrics")->text(), HasSubstr("nanochat_time_to_first_token_seconds_count 1"));
  EXPECT_EQ(json::parse(call("GET", "/version")->text())["version"], "1.2.3");
  EXPECT_EQ(json::parse(call("GET", "/openapi.json")->text())["info"]["title"], "nanochat");
  api_->set_draining();
  EXPECT_EQ(status(call("GET", "/health")), 503);
  EXPECT_EQ(status(chat()), 503);
}

TEST_F(ApiTest, IsThereBeforeTheModel) {
  loaded_ = false;
  const auto health = call("GET", "/health");
  EXPECT_EQ(status(health), 503);
  EXPECT_EQ(json::parse(health->text()), json({{"status", "loading"}, {"model_loaded", false}}));
  EXPECT_EQ(status(call("GET", "/v1/models")), 503);
  EXPECT_EQ(status(call("GET", "/stats")), 200);
}

TEST_F(ApiTest, Tokenizes) {
  EXPECT_EQ(json::parse(call("POST", "/tokenize", R"({"content": "ab"})")->text())["tokens"], json({'a', 'b'}));
  EXPECT_EQ(json::parse(call("POST", "/tokenize", R"({"prompt": "ab"})")->text())["tokens"], json({256, 'a', 'b'}));
  EXPECT_EQ(json::parse(call("POST", "/tokenize", R"({"prompt": "<|bos|>", "add_special_tokens": false})")->text())["tokens"],
            json({256}));
  EXPECT_EQ(json::parse(call("POST", "/tokenize", R"({"content": "<|bos|>"})")->text())["count"], 7);
  const json text = json::parse(call("POST", "/detokenize", R"({"tokens": [97, 98]})")->text());
  EXPECT_EQ(text, json({{"content", "ab"}, {"prompt", "ab"}}));
  EXPECT_EQ(status(call("POST", "/detokenize", R"({"tokens": [9999]})")), 400);
  EXPECT_EQ(status(call("POST", "/tokenize", R"({"content": "a", "add_special_tokens": 1})")), 400);
  EXPECT_EQ(status(call("POST", "/tokenize", R"({"prompt": "a", "add_special": 1})")), 400);
  EXPECT_EQ(json::parse(call("GET", "/tokenizer_info")->text())["eos_token"], "<|assistant_end|>");
}

TEST_F(ApiTest, ForgetsWhatMatches) {
  const auto count = [&](const char* body) {
    return json::parse(call("POST", "/cache/invalidate", body)->text())["invalidated_count"];
  };
  EXPECT_EQ(count(""), 1);
  EXPECT_EQ(count(R"({"prefix": "a"})"), 1);
  EXPECT_EQ(count(R"({"prefix": "b"})"), 0);
  EXPECT_EQ(count(R"({"pattern": "?b"})"), 1);
  EXPECT_EQ(count(R"({"pattern": "b*"})"), 0);
}

TEST_F(ApiTest, ServesThePageUnderAStrictPolicy) {
  const auto page = call("GET", "/");
  EXPECT_THAT(page->header("Content-Security-Policy"), HasSubstr("default-src 'none'; script-src 'self'"));
  EXPECT_THAT(page->text(), HasSubstr("<title>nanochat</title>"));
  EXPECT_EQ(page->text().find("http://"), std::string::npos);
  EXPECT_EQ(call("GET", "/page.js")->response->content_type, "text/javascript; charset=utf-8");
}

}  // namespace
}  // namespace nanochat
