// Paths, keys, origins and encodings, the log, and the endpoints that generate no text.
#include <algorithm>

#include <gmock/gmock.h>
#include <spdlog/fmt/fmt.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/log.h"
#include "core/testing.h"
#include "serving/testing_api.h"

namespace nanochat {
namespace {

using nlohmann::json;
using testing::ApiTest;
using ::testing::HasSubstr;
using testing::RecordingExchange;

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

TEST_F(ApiTest, StatsListTheReplicas) {
  EXPECT_FALSE(json::parse(call("GET", "/stats")->text()).contains("replicas"));
  backend_->replicas = 2;
  const json replicas = json::parse(call("GET", "/stats")->text())["replicas"];
  ASSERT_EQ(replicas.size(), 2U);
  EXPECT_EQ(replicas[1]["running"], 0);
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
