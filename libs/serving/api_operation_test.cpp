// What whoever runs the server relies on: limits, time limits, shutting down, and traces.
#include <chrono>
#include <thread>

#include <gmock/gmock.h>

#include "core/atomic_file.h"
#include "core/log.h"
#include "core/testing.h"
#include "serving/testing_api.h"

namespace nanochat {
namespace {

using nlohmann::json;
using testing::ApiTest;
using ::testing::HasSubstr;
using testing::RecordingExchange;

constexpr const char* kTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

TEST_F(ApiTest, MoreAnswersThanAllowedAreRefusedUntilOneEnds) {
  backend_->manual = true;
  options_.limits.max_concurrent = 2;
  const auto first = chat(), second = complete({{"prompt", "a"}});
  EXPECT_EQ(status(chat()), 429);
  EXPECT_EQ(status(call("GET", "/health")), 200);
  EXPECT_EQ(status(call("POST", "/tokenize", R"({"content": "a"})")), 200);
  exchanges_.erase(exchanges_.begin());  // the first exchange ends, and drops its call
  backend_->run(1);
  first->end(200, 10);
  first->let_go();
  EXPECT_EQ(status(chat()), 0);  // it runs
}

TEST_F(ApiTest, ARefusedRequestTakesNoPlace) {
  options_.limits.max_concurrent = 1;
  for (int i = 0; i < 3; ++i) {
    const auto wrong = complete({{"prompt", 5}});
    EXPECT_EQ(status(wrong), 400);
    wrong->end(400, 10);
    wrong->let_go();
  }
}

TEST_F(ApiTest, EachKeyHasItsOwnRate) {
  options_.api_keys = {"one", "two"};
  options_.limits.key_requests_per_minute = 2;
  const auto with = [&](const char* key) {
    return call("POST", "/v1/messages", R"({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5})",
                {{"x-api-key", key}});
  };
  EXPECT_EQ(status(with("one")), 200);
  EXPECT_EQ(status(with("one")), 200);
  const auto refused = with("one");
  EXPECT_EQ(status(refused), 429);
  EXPECT_EQ(json::parse(refused->text())["error"]["type"], "rate_limit_error");
  EXPECT_EQ(refused->header("Retry-After"), "30");
  EXPECT_EQ(status(with("two")), 200);
}

TEST_F(ApiTest, AnAnswerThatTakesTooLongEnds) {
  backend_->manual = true;
  options_.limits.request_timeout = 0.05;
  const auto whole = chat();
  const auto stream = chat({{"stream", true}});
  backend_->token(2, 'a');
  EXPECT_THAT(stream->text(), HasSubstr("\"a\""));
  for (int i = 0; i < 500 && backend_->cancelled().size() < 2; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_THAT(backend_->cancelled(), ::testing::UnorderedElementsAre(1, 2));
  EXPECT_EQ(status(whole), 504);
  EXPECT_EQ(error(whole)["code"], "request_timeout");
  EXPECT_EQ(whole->header("X-Should-Retry"), "false");
  EXPECT_EQ(status(stream), 200);
  EXPECT_THAT(stream->text(), HasSubstr("\"code\":\"request_timeout\""));
  EXPECT_TRUE(stream->ended);
  backend_->run(1);  // what the engine says after that is nobody's
  EXPECT_EQ(status(whole), 504);
}

TEST_F(ApiTest, AnAnswerInTimeIsWhole) {
  options_.limits.request_timeout = 3600;
  EXPECT_EQ(status(chat()), 200);
}

TEST_F(ApiTest, WhatIsCutAtTheEndIsToldSo) {
  backend_->manual = true;
  const auto waiting = chat();
  const auto stream = chat({{"stream", true}});
  const auto message = call("POST", "/v1/messages",
                            R"({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "stream": true})");
  backend_->token(2, 'a');
  backend_->token(3, 'a');
  const auto complete_one = chat();
  backend_->run(4);
  stream->text();
  message->text();
  api_->set_draining();
  api_->end_answers();
  EXPECT_EQ(status(waiting), 503);
  EXPECT_THAT(stream->text(), HasSubstr("shutting down and has ended this answer"));
  EXPECT_EQ(stream->text().find("\"finish_reason\":\"cancelled\""), std::string::npos);  // an error, and no end like others
  EXPECT_THAT(message->text(), HasSubstr("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\""));
  EXPECT_TRUE(stream->ended && message->ended);
  EXPECT_EQ(status(complete_one), 200);
  EXPECT_THAT(backend_->cancelled(), ::testing::UnorderedElementsAre(1, 2, 3));
}

TEST_F(ApiTest, ATraceIsInTheLogAndTheResponse) {
  const testing::TemporaryDirectory folder;
  configure_logging({.level = LogLevel::kInfo, .file = folder / "log"});
  const auto traced = call("POST", "/v1/completions", R"({"prompt": "my secret prompt"})",
                           {{"traceparent", kTrace}, {"authorization", "Bearer my-secret-key"}});
  EXPECT_EQ(traced->header("Traceparent"), kTrace);
  traced->end(200, 10);
  const auto wrong = call("GET", "/nothing", "", {{"traceparent", "00-evil\r\n"}});
  EXPECT_EQ(wrong->header("Traceparent"), "");
  wrong->end(404, 10);
  configure_logging({});
  const std::string log = read_file(folder / "log");
  EXPECT_THAT(log, HasSubstr(" trace_id=0af7651916cd43dd8448eb211c80319c span_id=b7ad6b7169203331 prompt_tokens="));
  EXPECT_EQ(log.find("evil"), std::string::npos);
  EXPECT_EQ(log.find("secret"), std::string::npos);
}

TEST_F(ApiTest, WhatIsNotARequestIsRefusedInTheProtocolOfItsPathAndLogged) {
  call("GET", "/health");
  const testing::TemporaryDirectory folder;
  configure_logging({.level = LogLevel::kInfo, .file = folder / "log"});
  const HttpRequest request{.method = "POST",
                            .path = "/v1/messages",
                            .query = {},
                            .headers = {{"traceparent", kTrace}},
                            .body = {},
                            .client = "127.0.0.1"};
  const HttpResponse refused = api_->refuse(413, "body: too large", request);
  const HttpResponse unknown = api_->refuse(408, "too slow", HttpRequest());
  configure_logging({});
  EXPECT_EQ(json::parse(refused.body)["type"], "error");
  EXPECT_EQ(json::parse(refused.body)["error"]["type"], "request_too_large");
  EXPECT_THAT(refused.headers, ::testing::Contains(std::pair<std::string, std::string>("Traceparent", kTrace)));
  EXPECT_EQ(json::parse(unknown.body)["error"]["type"], "invalid_request_error");
  EXPECT_THAT(read_file(folder / "log"), HasSubstr("method=\"POST\" path=\"/v1/messages\" status=413"));
  EXPECT_THAT(call("GET", "/metrics")->text(),
              HasSubstr("nanochat_http_requests_total{path=\"/v1/messages\",status=\"413\"} 1"));
}

}  // namespace
}  // namespace nanochat
