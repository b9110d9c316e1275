#include "serving/internal/answer_cache.h"

#include <gmock/gmock.h>

#include "serving/testing_api.h"

namespace nanochat {
namespace {

using nlohmann::json;
using testing::ApiTest;
using testing::FakeBackend;
using ::testing::HasSubstr;

class AnswerCacheTest : public ApiTest {
 protected:
  AnswerCacheTest() { options_.answer_cache_bytes = 1 << 20; }
  ~AnswerCacheTest() override { other_->let_go(); }

  // The answer's text, with what the header says about the cache: "Hello! (hit)".
  std::string ask(json extra = json::object(), HttpHeaders headers = {}) {
    json body = {{"messages", {{{"role", "user"}, {"content", "Hi"}}}}, {"temperature", 0}};
    body.update(extra);
    const auto exchange = call("POST", "/v1/chat/completions", body.dump(), std::move(headers));
    const std::string text = json::parse(exchange->text())["choices"][0]["message"]["content"];
    const std::string cache = exchange->header("X-Response-Cache");
    return cache.empty() ? text : text + " (" + cache + ")";
  }
  json stats() { return json::parse(call("GET", "/stats")->text()); }
  std::shared_ptr<FakeBackend> other_ = std::make_shared<FakeBackend>();
};

TEST_F(AnswerCacheTest, TheSameRequestIsAnsweredOnce) {
  EXPECT_EQ(ask(), "Hello! (miss)");
  EXPECT_EQ(ask(), "Hello! (hit)");
  EXPECT_EQ(ask({{"user", "somebody"}}), "Hello! (hit)");
  EXPECT_EQ(backend_->submitted(), 1u);
  EXPECT_EQ(ask({{"max_tokens", 5}}), "Hello (miss)");
  EXPECT_EQ(ask({{"max_tokens", 5}}), "Hello (hit)");
  EXPECT_EQ(backend_->submitted(), 2u);
  const json now = stats();
  EXPECT_EQ(now["response_cache_hits"], 3);
  EXPECT_EQ(now["response_cache_misses"], 2);
  EXPECT_EQ(now["response_cache_answers"], 2);
  EXPECT_GT(now["response_cache_bytes"], 0);
}

TEST_F(AnswerCacheTest, AnswersThatMayDifferAreNotKept) {
  for (int i = 0; i < 2; ++i) EXPECT_EQ(ask({{"temperature", 1}}), "Hello!") << "no header either";
  EXPECT_EQ(backend_->submitted(), 2u);
  EXPECT_EQ(ask({{"temperature", 1}, {"seed", 5}}), "Hello! (miss)");
  EXPECT_EQ(ask({{"temperature", 1}, {"seed", 5}}), "Hello! (hit)");
  EXPECT_EQ(ask({{"temperature", 1}, {"seed", 6}}), "Hello! (miss)");
  EXPECT_EQ(ask({{"temperature", 1}, {"seed", nullptr}}), "Hello!");
  EXPECT_EQ(ask({{"session_id", "a"}}), "Hello!") << "the session has to change";
}

TEST_F(AnswerCacheTest, OffUnlessItHasASize) {
  options_.answer_cache_bytes = 0;
  for (int i = 0; i < 2; ++i) EXPECT_EQ(ask(), "Hello!");
  EXPECT_EQ(backend_->submitted(), 2u);
}

TEST_F(AnswerCacheTest, StreamsAndWholeAnswersShareTheirEntry) {
  const json request = {{"temperature", 0}, {"stream", true}, {"stream_options", {{"include_usage", true}}}};
  const std::string computed = chat(request)->text();
  EXPECT_EQ(ask(), "Hello! (hit)");
  const auto again = chat(request);
  EXPECT_EQ(again->header("X-Response-Cache"), "hit");
  EXPECT_EQ(again->header("Cache-Control"), "no-cache");
  std::string text;
  const std::vector<json> sent = events(again->text());
  for (const json& event : sent) {
    if (!event.is_object() || event["choices"].empty()) continue;
    text += event["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(text, "Hello!");
  EXPECT_EQ(sent.back(), "[DONE]");
  EXPECT_EQ(sent[sent.size() - 2]["usage"], events(computed)[events(computed).size() - 2]["usage"]);
  EXPECT_NE(sent.front()["id"], events(computed).front()["id"]);
  EXPECT_EQ(backend_->submitted(), 1u);
}

// What was cached before a model was unloaded is there when it is loaded again.
TEST_F(AnswerCacheTest, AStreamThatWaitedForItsModelIsAnsweredFromIt) {
  LoadDone loaded;
  options_.load = [&](const std::string&, LoadDone done) { loaded = std::move(done); };
  EXPECT_EQ(ask(), "Hello! (miss)");
  const auto unloaded = std::make_shared<ServedModel>();
  unloaded->id = "tiny";
  unloaded->fingerprint = "fp_test";
  api_->set_model(unloaded);
  const auto stream = chat({{"temperature", 0}, {"stream", true}});
  stream->quiet();
  api_->set_model(testing::fake_model(backend_));
  loaded("");
  const std::vector<json> sent = events(stream->text());
  EXPECT_EQ(sent[1]["choices"][0]["delta"]["content"], "Hello!");
  EXPECT_EQ(sent.back(), "[DONE]");
  EXPECT_TRUE(stream->ended);
  EXPECT_EQ(backend_->submitted(), 1u);
}

TEST_F(AnswerCacheTest, EveryProtocolReadsItsOwnEntries) {
  const char* message = R"({"max_tokens": 9, "temperature": 0, "messages": [{"role": "user", "content": "Hi"}]})";
  const char* response = R"({"temperature": 0, "input": "Hi"})";
  const char* completion = R"({"temperature": 0, "prompt": "Hi", "n": 2, "logprobs": 1, "echo": true})";
  for (const auto& [path, body] :
       {std::pair{"/v1/messages", message}, std::pair{"/v1/responses", response}, std::pair{"/v1/completions", completion}}) {
    json computed = json::parse(call("POST", path, body)->text());
    const auto exchange = call("POST", path, body);
    json again = json::parse(exchange->text());
    EXPECT_EQ(exchange->header("X-Response-Cache"), "hit") << path;
    for (json* one : {&computed, &again}) {
      for (const char* field : {"id", "created", "created_at", "completed_at"}) one->erase(field);
      if (one->contains("output")) (*one)["output"][0].erase("id");
    }
    EXPECT_EQ(again, computed) << path;
  }
  EXPECT_EQ(backend_->submitted(), 3u);
  const auto stream = call("POST", "/v1/messages",
                           R"({"max_tokens": 9, "temperature": 0, "stream": true,
                               "messages": [{"role": "user", "content": "Hi"}]})");
  EXPECT_EQ(stream->header("X-Response-Cache"), "hit");
  EXPECT_THAT(stream->text(), HasSubstr("Hello!"));
  EXPECT_THAT(stream->text(), HasSubstr("event: message_stop"));
}

TEST_F(AnswerCacheTest, AResponseFromTheCacheIsStored) {
  const char* body = R"({"temperature": 0, "input": "Hi"})";
  call("POST", "/v1/responses", body)->text();
  const std::string id = json::parse(call("POST", "/v1/responses", body)->text())["id"];
  EXPECT_EQ(status(call("GET", "/v1/responses/" + id)), 200);
}

TEST_F(AnswerCacheTest, CallsGetNewIds) {
  backend_->answer = R"({"name": "weather", "arguments": {"city": "Rome"}})";
  const json request = {{"temperature", 0}, {"tools", {{{"type", "function"}, {"function", {{"name", "weather"}}}}}}};
  const json first = json::parse(chat(request)->text())["choices"][0];
  const json second = json::parse(chat(request)->text())["choices"][0];
  EXPECT_EQ(second["finish_reason"], "tool_calls");
  EXPECT_EQ(second["message"]["tool_calls"][0]["function"], first["message"]["tool_calls"][0]["function"]);
  EXPECT_NE(second["message"]["tool_calls"][0]["id"], first["message"]["tool_calls"][0]["id"]);
  json streamed = request;
  streamed["stream"] = true;
  std::string arguments;
  for (const json& event : events(chat(streamed)->text())) {
    if (!event.is_object() || !event["choices"][0]["delta"].contains("tool_calls")) continue;
    arguments += event["choices"][0]["delta"]["tool_calls"][0]["function"].value("arguments", "");
  }
  EXPECT_EQ(json::parse(arguments), json({{"city", "Rome"}}));
  EXPECT_EQ(backend_->submitted(), 1u);
}

// Schemas are answered in the order of their keys.
TEST_F(AnswerCacheTest, TheOrderOfKeysMatters) {
  make_constraint_ = [](AnswerForm, const nlohmann::ordered_json&) { return nullptr; };
  const auto of = [&](const char* properties) {
    const std::string body =
        std::string(R"({"messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "guided_json": {"properties": )") +
        properties + "}}";
    return call("POST", "/v1/chat/completions", body)->header("X-Response-Cache");
  };
  EXPECT_EQ(of(R"({"a": {}, "b": {}})"), "miss");
  EXPECT_EQ(of(R"({"b": {}, "a": {}})"), "miss");
  EXPECT_EQ(of(R"({"a": {},   "b": {}})"), "hit");
}

TEST_F(AnswerCacheTest, AKeyDoesNotGetTheAnswersOfAnother) {
  options_.api_keys = {"one", "two"};
  EXPECT_EQ(ask(json::object(), {{"x-api-key", "one"}}), "Hello! (miss)");
  EXPECT_EQ(ask(json::object(), {{"x-api-key", "two"}}), "Hello! (miss)");
  EXPECT_EQ(ask(json::object(), {{"x-api-key", "two"}}), "Hello! (hit)");
}

TEST_F(AnswerCacheTest, AReloadEmptiesIt) {
  ask();
  const auto newer = testing::fake_model(other_);
  newer->fingerprint = "fp_newer";
  other_->answer = "New!";
  api_->set_model(newer);
  EXPECT_EQ(stats()["response_cache_answers"], 0);
  EXPECT_EQ(ask(), "New! (miss)");
}

TEST_F(AnswerCacheTest, AnAnswerThatDidNotEndIsNotKept) {
  backend_->manual = true;
  const auto failed = chat({{"temperature", 0}});
  backend_->token(1, 'a');
  backend_->finish(1, FinishReason::kError, "out of paper");
  backend_->done(1);
  EXPECT_EQ(status(failed), 500);
  const auto cancelled = chat({{"temperature", 0}, {"stream", true}});
  backend_->token(2, 'a');
  cancelled->gone();
  backend_->finish(2, FinishReason::kCancelled);
  backend_->done(2);
  EXPECT_EQ(stats()["response_cache_answers"], 0);
}

TEST_F(AnswerCacheTest, TheLeastRecentlyUsedAnswerGoesFirst) {
  options_.answer_cache_bytes = 4000;
  backend_->answer = std::string(200, 'x');
  for (int i = 0; i < 20; ++i) ask({{"seed", i}});
  const json now = stats();
  EXPECT_LE(now["response_cache_bytes"], 4000);
  EXPECT_GT(now["response_cache_answers"], 2);
  EXPECT_LT(now["response_cache_answers"], 20);
  EXPECT_THAT(ask({{"seed", 19}}), HasSubstr("(hit)"));
  EXPECT_THAT(ask({{"seed", 0}}), HasSubstr("(miss)"));
}

TEST_F(AnswerCacheTest, AHitCostsNoTokensOfTheRate) {
  options_.limits.key_tokens_per_minute = 100;
  const auto tokens_of = [&] {
    ask();
    exchanges_.back()->end(200, 10);
  };
  for (int i = 0; i < 50; ++i) tokens_of();
  EXPECT_EQ(backend_->submitted(), 1u);
}

TEST(ChoicePart, JoinsWhatWasRead) {
  ChoicePart whole;
  whole.append({.index = 1, .text = "a", .calls = {{.name = "f", .arguments = "{", .index = 0, .id = "x"}}});
  whole.append({.index = 1, .text = "b", .calls = {{.arguments = "}", .index = 0}, {.name = "g", .index = 1}}});
  whole.append({.index = 1, .end = ChoiceEnd::kStop, .stop_string = "s"});
  EXPECT_EQ(whole.index, 1);
  EXPECT_EQ(whole.text, "ab");
  ASSERT_EQ(whole.calls.size(), 2u);
  EXPECT_EQ(whole.calls[0].name, "f");
  EXPECT_EQ(whole.calls[0].arguments, "{}");
  EXPECT_EQ(whole.calls[1].name, "g");
  EXPECT_EQ(whole.end, ChoiceEnd::kStop);
  EXPECT_EQ(whole.stop_string, "s");
}

}  // namespace
}  // namespace nanochat
