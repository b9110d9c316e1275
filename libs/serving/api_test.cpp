#include "serving/api.h"

#include <algorithm>

#include <gmock/gmock.h>

#include "core/atomic_file.h"
#include "core/log.h"
#include "core/testing.h"
#include "serving/serving_testing.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using nlohmann::json;
using testing::FakeBackend;
using testing::RecordingExchange;

class ApiTest : public ::testing::Test {
 protected:
  std::shared_ptr<FakeBackend> backend_ = std::make_shared<FakeBackend>();
  ApiOptions options_{.version = "1.2.3"};
  std::unique_ptr<Api> api_;
  std::function<std::unique_ptr<TokenConstraint>(const nlohmann::ordered_json&)> make_constraint_;
  bool loaded_ = true;
  std::vector<std::shared_ptr<RecordingExchange>> exchanges_;

  ~ApiTest() override {
    for (const auto& exchange : exchanges_) exchange->let_go();
    backend_->let_go();
  }
  std::shared_ptr<RecordingExchange> call(std::string method, std::string path, std::string body = {}, HttpHeaders headers = {}) {
    if (!api_) {
      api_ = std::make_unique<Api>(options_);
      const auto model = testing::fake_model(backend_);
      model->make_constraint = make_constraint_;
      if (loaded_) api_->set_model(model);
    }
    HttpRequest request{.method = std::move(method), .path = std::move(path), .query = {}, .headers = std::move(headers),
                        .body = std::move(body), .client = "127.0.0.1"};
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
  static int status(const std::shared_ptr<RecordingExchange>& exchange) { return exchange->response ? exchange->response->status : 0; }
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
  make_constraint_ = [&](const nlohmann::ordered_json& given) {
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
  make_constraint_ = [](const nlohmann::ordered_json&) { return nullptr; };
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
  EXPECT_THAT(error(long_prompt)["message"].get<std::string>(), HasSubstr("has 6 tokens, but the model's context of 6"));
  EXPECT_EQ(status(complete({{"prompt", {1, 9999}}})), 400);
  EXPECT_EQ(status(chat({{"model", "other"}})), 404);
  EXPECT_EQ(status(chat({{"response_format", {{"type", "json_object"}}}})), 400);
  backend_->context = 256;
  const auto call = chat({{"tools", {{{"function", {{"name", "f"}}}}}}, {"tool_choice", "required"}});
  EXPECT_EQ(status(call), 400);
  EXPECT_EQ(error(call)["param"], "tools");
  EXPECT_EQ(status(chat({{"nanochat_tools", true}})), 400);
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
  EXPECT_EQ(json::parse(call("POST", "/tokenize", R"({"prompt": "<|bos|>", "add_special_tokens": false})")->text())["tokens"], json({256}));
  EXPECT_EQ(json::parse(call("POST", "/tokenize", R"({"content": "<|bos|>"})")->text())["count"], 7);
  const json text = json::parse(call("POST", "/detokenize", R"({"tokens": [97, 98]})")->text());
  EXPECT_EQ(text, json({{"content", "ab"}, {"prompt", "ab"}}));
  EXPECT_EQ(status(call("POST", "/detokenize", R"({"tokens": [9999]})")), 400);
  EXPECT_EQ(status(call("POST", "/tokenize", R"({"content": "a", "add_special_tokens": 1})")), 400);
  EXPECT_EQ(status(call("POST", "/tokenize", R"({"prompt": "a", "add_special": 1})")), 400);
  EXPECT_EQ(json::parse(call("GET", "/tokenizer_info")->text())["eos_token"], "<|assistant_end|>");
}

TEST_F(ApiTest, ForgetsWhatMatches) {
  const auto count = [&](const char* body) { return json::parse(call("POST", "/cache/invalidate", body)->text())["invalidated_count"]; };
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
