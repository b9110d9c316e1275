// Sessions: a request has the new messages only, and the answer is that of the whole conversation.
#include <gmock/gmock.h>
#include <spdlog/fmt/fmt.h>

#include "serving/testing_api.h"

namespace nanochat {
namespace {

using nlohmann::json;
using testing::ApiTest;
using ::testing::HasSubstr;
using testing::RecordingExchange;

class SessionTest : public ApiTest {
 protected:
  std::shared_ptr<RecordingExchange> say(const std::string& text, const std::string& session, const HttpHeaders& headers = {},
                                         json extra = json::object()) {
    json body = {{"messages", {{{"role", "user"}, {"content", text}}}}, {"session_id", session}};
    body.update(extra);
    return call("POST", "/v1/chat/completions", body.dump(), headers);
  }
  json messages_of(const std::string& session, const HttpHeaders& headers = {}) {
    return json::parse(call("GET", "/v1/sessions/" + session, "", headers)->text())["messages"];
  }
};

TEST_F(SessionTest, ThePromptIsThatOfTheWholeConversation) {
  const auto first = say("Hi", "s1");
  ASSERT_EQ(status(first), 200);
  EXPECT_EQ(first->header("X-Session-Id"), "s1");
  EXPECT_EQ(first->header("X-Session-Messages"), "0");
  const auto second = say("And?", "s1");
  EXPECT_EQ(second->header("X-Session-Messages"), "2");
  chat({{"messages",
         {{{"role", "user"}, {"content", "Hi"}},
          {{"role", "assistant"}, {"content", "Hello!"}},
          {{"role", "user"}, {"content", "And?"}}}}});
  EXPECT_EQ(backend_->request(2).prompt, backend_->request(3).prompt);
  EXPECT_EQ(messages_of("s1"), json::parse(R"([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"},
                                               {"role": "user", "content": "And?"}, {"role": "assistant", "content": "Hello!"}])"));
}

TEST_F(SessionTest, ASystemMessageStaysInFront) {
  const json system = {{"role", "system"}, {"content", "S"}};
  call("POST", "/v1/chat/completions",
       json{{"session_id", "s"}, {"messages", {system, {{"role", "user"}, {"content", "a"}}}}}.dump());
  say("b", "s");
  chat({{"messages",
         {system,
          {{"role", "user"}, {"content", "a"}},
          {{"role", "assistant"}, {"content", "Hello!"}},
          {{"role", "user"}, {"content", "b"}}}}});
  EXPECT_EQ(backend_->request(2).prompt, backend_->request(3).prompt);
}

TEST_F(SessionTest, AHeaderNamesASessionToo) {
  const std::string body = R"({"messages": [{"role": "user", "content": "Hi"}]})";
  EXPECT_EQ(call("POST", "/v1/chat/completions", body, {{"x-session-id", "h"}})->header("X-Session-Id"), "h");
  EXPECT_EQ(say("And?", "h", {{"x-session-id", "h"}})->header("X-Session-Messages"), "2");
  EXPECT_EQ(error(say("And?", "other", {{"x-session-id", "h"}}))["param"], "session_id");
  const auto completion = call("POST", "/v1/completions", R"({"prompt": "a"})", {{"x-session-id", "h"}});
  EXPECT_EQ(error(completion)["param"], "session_id");
  EXPECT_EQ(error(complete({{"prompt", "a"}, {"session_id", "h"}}))["param"], "session_id");
  EXPECT_EQ(error(call("POST", "/v1/responses", R"({"input": "a", "session_id": "h"})"))["param"], "session_id");
}

TEST_F(SessionTest, AStreamIsKeptWhenItsEndIsRead) {
  backend_->manual = true;
  const auto stream = say("Hi", "s", {}, {{"stream", true}});
  backend_->token(1, 'a');
  EXPECT_THAT(stream->text(), HasSubstr("\"a\""));
  EXPECT_EQ(status(call("GET", "/v1/sessions/s")), 404);
  const auto busy = say("Again", "s");
  EXPECT_EQ(status(busy), 409);
  EXPECT_EQ(error(busy)["code"], "session_busy");
  EXPECT_EQ(status(say("Hi", "t")), 0);  // another session runs
  backend_->token(1, 'b');
  backend_->finish(1, FinishReason::kStop);
  backend_->done(1);
  EXPECT_THAT(stream->text(), HasSubstr("[DONE]"));
  EXPECT_EQ(messages_of("s")[1]["content"], "ab");
  EXPECT_EQ(status(say("Again", "s")), 0);
}

TEST_F(SessionTest, AnAnswerThatFailsOrIsLeftChangesNothing) {
  say("Hi", "s");
  const json before = messages_of("s");
  backend_->manual = true;
  const auto left = say("Left", "s", {}, {{"stream", true}});
  backend_->token(2, 'a');
  left->gone();
  const auto failed = say("Failed", "s");
  backend_->finish(3, FinishReason::kError, "logit is NaN");
  backend_->done(3);
  EXPECT_EQ(status(failed), 500);
  EXPECT_EQ(status(say("Wrong", "s", {}, {{"temperature", "hot"}})), 400);
  EXPECT_EQ(status(say("Two", "s", {}, {{"n", 2}})), 400);
  EXPECT_EQ(messages_of("s"), before);
  backend_->manual = false;
  EXPECT_EQ(say("And?", "s")->header("X-Session-Messages"), "2");
}

TEST_F(SessionTest, NoKeyReadsAnotherKeysSession) {
  options_.api_keys = {"one", "two"};
  const HttpHeaders one = {{"x-api-key", "one"}}, two = {{"x-api-key", "two"}};
  say("Mine", "s", one);
  EXPECT_EQ(status(call("GET", "/v1/sessions/s", "", two)), 404);
  EXPECT_EQ(status(call("DELETE", "/v1/sessions/s", "", two)), 404);
  EXPECT_EQ(say("Hers", "s", two)->header("X-Session-Messages"), "0");
  EXPECT_EQ(messages_of("s", one)[0]["content"], "Mine");
  EXPECT_EQ(messages_of("s", two)[0]["content"], "Hers");
  EXPECT_EQ(status(call("GET", "/v1/sessions/s")), 401);
}

TEST_F(SessionTest, DeletionExpiryAndEvictionReleaseTheBlocks) {
  options_.sessions.max_sessions = 2;
  say("a", "s1");
  const std::vector<std::int32_t> path = {256, 257, 'a', 258, 259, 'H', 'e', 'l', 'l', 'o', '!'};
  EXPECT_TRUE(backend_->released().empty());
  EXPECT_EQ(json::parse(call("DELETE", "/v1/sessions/s1")->text()),
            json({{"id", "s1"}, {"object", "session"}, {"deleted", true}}));
  EXPECT_THAT(backend_->released(), ::testing::ElementsAre(path));
  EXPECT_EQ(status(call("DELETE", "/v1/sessions/s1")), 404);
  say("b", "s2");
  say("c", "s3");
  say("d", "s4");  // drops s2
  EXPECT_EQ(backend_->released().size(), 2u);
  EXPECT_EQ(backend_->released()[1][2], 'b');
  say("e", "s4");  // the path of the first turn goes when that of the second is there
  EXPECT_EQ(backend_->released().size(), 3u);
  EXPECT_EQ(json::parse(call("GET", "/stats")->text())["sessions"], 2);
}

TEST_F(SessionTest, ExpiresByItsTimeToLive) {
  options_.sessions.time_to_live = 0;
  say("a", "s1");
  EXPECT_EQ(json::parse(call("GET", "/stats")->text())["sessions"], 0);
  EXPECT_EQ(backend_->released().size(), 1u);
  EXPECT_EQ(status(call("GET", "/v1/sessions/s1")), 404);
  EXPECT_EQ(say("b", "s1")->header("X-Session-Messages"), "0");
}

TEST_F(SessionTest, AThousandSessionsStayWithinTheirBytes) {
  options_.sessions.max_bytes = 200'000;
  for (int i = 0; i < 1000; ++i) {
    const auto exchange = say(std::string(100, 'x'), fmt::format("s{}", i));
    ASSERT_EQ(status(exchange), 200);
    exchange->let_go();
  }
  const json stats = json::parse(call("GET", "/stats")->text());
  EXPECT_LE(stats["session_bytes"], 200'000);
  EXPECT_GT(stats["sessions"], 100);
  EXPECT_EQ(backend_->released().size() + stats["sessions"].get<std::size_t>(), 1000u);
  for (int i = 0; i < 1000; ++i) call("DELETE", fmt::format("/v1/sessions/s{}", i));
  EXPECT_EQ(backend_->released().size(), 1000u);
  EXPECT_EQ(json::parse(call("GET", "/stats")->text())["session_bytes"], 0);
  EXPECT_EQ(error(say(std::string(150'000, 'x'), "large"))["param"], "session_id");
}

TEST_F(SessionTest, ADeletedSessionIsNotBroughtBackByItsLastAnswer) {
  backend_->manual = true;
  const auto stream = say("Hi", "s", {}, {{"stream", true}});
  backend_->token(1, 'a');
  stream->text();
  EXPECT_EQ(status(call("DELETE", "/v1/sessions/s")), 200);
  backend_->finish(1, FinishReason::kStop);
  backend_->done(1);
  EXPECT_THAT(stream->text(), HasSubstr("[DONE]"));
  EXPECT_EQ(status(call("GET", "/v1/sessions/s")), 404);
  EXPECT_EQ(backend_->released().size(), 1u);
}

TEST_F(SessionTest, IdsAreChecked) {
  for (const std::string& id :
       {std::string(), std::string("a/b"), std::string("a b"), std::string(129, 'a'), std::string("a\n")}) {
    EXPECT_EQ(error(say("Hi", id))["param"], "session_id") << id;
  }
  EXPECT_EQ(status(say("Hi", std::string(128, 'a'))), 200);
  options_.sessions.max_sessions = 0;
  api_.reset();
  EXPECT_EQ(error(say("Hi", "s"))["code"], "unsupported");
}

TEST_F(SessionTest, TheResultOfACallBelongsToTheCall) {
  make_constraint_ = [](AnswerForm, const nlohmann::ordered_json&) { return nullptr; };
  backend_->answer = R"({"name":"weather","arguments":{"city":"Paris"}})";
  const json tools = {{{"type", "function"}, {"function", {{"name", "weather"}}}}};
  const json answer = json::parse(say("Weather?", "s", {}, {{"tools", tools}, {"tool_choice", "required"}})->text());
  const json given = answer["choices"][0]["message"];
  backend_->answer = "Sunny.";
  const json result = {{"role", "tool"}, {"tool_call_id", given["tool_calls"][0]["id"]}, {"content", "sunny"}};
  EXPECT_EQ(status(call("POST", "/v1/chat/completions",
                        json{{"session_id", "s"}, {"tools", tools}, {"messages", {result}}}.dump())),
            200);
  chat({{"tools", tools}, {"messages", {{{"role", "user"}, {"content", "Weather?"}}, given, result}}});
  EXPECT_EQ(backend_->request(2).prompt, backend_->request(3).prompt);
}

TEST_F(SessionTest, AMessageWithSeveralCallsIsKeptWithTheirIds) {
  const json tools = {{{"function", {{"name", "f"}}}}, {{"function", {{"name", "g"}}}}};
  backend_->answer = "Both.\n{\"name\":\"f\",\"arguments\":{\"a\":1}}\n{\"name\":\"g\",\"arguments\":{}}";
  const json answer = json::parse(say("Hi", "s", {}, {{"tools", tools}})->text());
  const json given = answer["choices"][0]["message"];
  ASSERT_EQ(given["tool_calls"].size(), 2u);
  EXPECT_NE(given["tool_calls"][0]["id"], given["tool_calls"][1]["id"]);
  EXPECT_EQ(messages_of("s")[1]["content"], "Both.");
  EXPECT_EQ(messages_of("s")[1]["tool_calls"], given["tool_calls"]);
  backend_->answer = "Done.";
  json results = json::array();
  for (const std::size_t i : {1, 0}) {  // results may come in another order than the calls
    results.push_back({{"role", "tool"}, {"tool_call_id", given["tool_calls"][i]["id"]}, {"content", std::to_string(i)}});
  }
  say("", "s", {}, {{"tools", tools}, {"messages", results}});
  chat({{"tools", tools}, {"messages", {{{"role", "user"}, {"content", "Hi"}}, given, results[0], results[1]}}});
  EXPECT_EQ(backend_->request(2).prompt, backend_->request(3).prompt);
}

}  // namespace
}  // namespace nanochat
