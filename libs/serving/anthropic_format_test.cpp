// The bytes of the answers of POST /v1/messages.
#include <gmock/gmock.h>

#include "serving/internal/anthropic_format.h"
#include "serving/testing_answers.h"

namespace nanochat {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::HasSubstr;

class AnthropicFormatTest : public testing::AnswerBytes {
 protected:
  void post_message(const std::string& fields, const std::string& max_tokens = "5") {
    post("/v1/messages", R"({"max_tokens": )" + max_tokens + R"(, "messages": [{"role": "user", "content": "Hi"}])" +
                             (fields.empty() ? "" : ", " + fields) + "}");
  }
  void post_call(const std::string& fields = {}) {
    post_message(R"("tools": [{"name": "weather", "input_schema": {"type": "object"}}], "tool_choice": {"type": "any"})" +
                 (fields.empty() ? "" : ", " + fields));
  }
};

TEST_F(AnthropicFormatTest, AStreamOfText) {
  post_message(R"("stream": true)");
  say("a\"");
  calculate("1+1", "2");  // is not part of the text
  say("b");
  finish(FinishReason::kStop);
  backend_->done(1);
  EXPECT_EQ(bytes(), R"(event: message_start
data: {"type":"message_start","message":{"id":"<msg>","type":"message","role":"assistant","model":"tiny","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":4,"cache_creation_input_tokens":0,"cache_read_input_tokens":2,"output_tokens":5}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"b"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":4,"cache_creation_input_tokens":0,"cache_read_input_tokens":2,"output_tokens":5}}

event: message_stop
data: {"type":"message_stop"}

)");
  EXPECT_EQ(exchange_->response->content_type, "text/event-stream; charset=utf-8");
}

TEST_F(AnthropicFormatTest, AStreamOfACall) {
  post_call(R"("stream": true)");
  say(R"({"name":"weather","arguments":{"b)");
  say("\":1}}");
  finish(FinishReason::kStop);
  backend_->done(1);
  EXPECT_EQ(bytes(), R"(event: message_start
data: {"type":"message_start","message":{"id":"<msg>","type":"message","role":"assistant","model":"tiny","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":120,"cache_creation_input_tokens":0,"cache_read_input_tokens":2,"output_tokens":5}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"<toolu>","name":"weather","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"\""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"b"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"\""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":":"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"1"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":120,"cache_creation_input_tokens":0,"cache_read_input_tokens":2,"output_tokens":5}}

event: message_stop
data: {"type":"message_stop"}

)");
}

TEST_F(AnthropicFormatTest, AStreamWithoutTextHasNoBlock) {
  post_message(R"("stream": true)");
  finish(FinishReason::kStop);
  backend_->done(1);
  EXPECT_THAT(bytes(), ::testing::Not(HasSubstr("content_block")));
  EXPECT_THAT(bytes(), HasSubstr(R"("stop_reason":"end_turn")"));
}

TEST_F(AnthropicFormatTest, AStreamThatFails) {
  post_message(R"("stream": true)");
  say("a");
  backend_->finish(1, FinishReason::kError, "logit is NaN");
  backend_->done(1);
  EXPECT_THAT(bytes(), ::testing::EndsWith(R"(event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}

event: error
data: {"type":"error","error":{"type":"api_error","message":"logit is NaN"}}

)"));
}

TEST_F(AnthropicFormatTest, AnAnswerThatFailsBeforeItBegins) {
  post_message(R"("stream": true)");
  backend_->finish(1, FinishReason::kError, "logit is NaN");
  backend_->done(1);
  EXPECT_EQ(exchange_->response->status, 500);
  EXPECT_EQ(bytes(), R"({"type":"error","error":{"type":"api_error","message":"logit is NaN"}})");
}

TEST_F(AnthropicFormatTest, AWholeMessage) {
  post_message("");
  say("ab");
  finish(FinishReason::kStop);
  backend_->done(1);
  EXPECT_EQ(
      bytes(),
      R"({"id":"<msg>","type":"message","role":"assistant","model":"tiny","content":[{"type":"text","text":"ab"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":4,"cache_creation_input_tokens":0,"cache_read_input_tokens":2,"output_tokens":5}})");
}

TEST_F(AnthropicFormatTest, AWholeCallKeepsTheOrderOfItsInput) {
  post_call();
  say(R"({"name":"weather","arguments":{"b":1,"a":2}})");
  finish(FinishReason::kStop);
  backend_->done(1);
  EXPECT_THAT(
      bytes(),
      HasSubstr(
          R"("content":[{"type":"tool_use","id":"<toolu>","name":"weather","input":{"b":1,"a":2}}],"stop_reason":"tool_use")"));
}

constexpr const char* kMayCall = R"({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 200, "stream": STREAM,
  "tools": [{"name": "weather", "input_schema": {"type": "object"}}, {"name": "now", "input_schema": {"type": "object"}}]})";
constexpr const char* kTextAndCalls =
    "So:\n{\"name\":\"weather\",\"arguments\":{\"b\":1}}\n{\"name\":\"now\",\"arguments\":{}}";

TEST_F(AnthropicFormatTest, TextAndCallsAreBlocks) {
  post("/v1/messages", std::regex_replace(kMayCall, std::regex("STREAM"), "false"));
  say(kTextAndCalls);
  finish(FinishReason::kStop);
  backend_->done(1);
  EXPECT_THAT(
      bytes(),
      HasSubstr(
          R"("content":[{"type":"text","text":"So:"},{"type":"tool_use","id":"<toolu>","name":"weather","input":{"b":1}},)"
          R"({"type":"tool_use","id":"<toolu>","name":"now","input":{}}],"stop_reason":"tool_use")"));
}

TEST_F(AnthropicFormatTest, AStreamOfTextAndCalls) {
  post("/v1/messages", std::regex_replace(kMayCall, std::regex("STREAM"), "true"));
  say(kTextAndCalls);
  finish(FinishReason::kStop);
  backend_->done(1);
  const std::string all = bytes();
  std::vector<std::string> starts;
  for (std::size_t at = 0; (at = all.find("data: {\"type\":\"content_block_start\"", at)) != std::string::npos; ++at)
    starts.push_back(all.substr(at + 6, all.find('\n', at) - at - 6));
  EXPECT_THAT(starts, ::testing::ElementsAre(
                          HasSubstr(R"("index":0,"content_block":{"type":"text")"),
                          HasSubstr(R"("index":1,"content_block":{"type":"tool_use","id":"<toolu>","name":"weather")"),
                          HasSubstr(R"("index":2,"content_block":{"type":"tool_use","id":"<toolu>","name":"now")")));
  EXPECT_THAT(all,
              HasSubstr(R"({"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"b"}})"));
  EXPECT_THAT(all, HasSubstr(R"({"type":"content_block_stop","index":2})"));
  EXPECT_THAT(all, HasSubstr(R"("stop_reason":"tool_use")"));
}

TEST_F(AnthropicFormatTest, SaysWhyAnAnswerEnded) {
  const auto stop_of = [&](FinishReason reason, const std::string& fields, const std::string& max_tokens = "5") {
    if (exchange_) exchange_->let_go();
    const RequestId id = backend_->submitted() + 1;
    post_message(fields, max_tokens);
    say("abc", 0, id);
    finish(reason, 0, id);
    backend_->done(id);
    const Json message = Json::parse(exchange_->text());
    return message["stop_reason"].dump() + message["stop_sequence"].dump() + message["content"][0]["text"].dump();
  };
  EXPECT_EQ(stop_of(FinishReason::kStop, ""), R"("end_turn"null"abc")");
  EXPECT_EQ(stop_of(FinishReason::kStop, R"("stop_sequences": ["x", "c"])"), R"("stop_sequence""c""ab")");
  EXPECT_EQ(stop_of(FinishReason::kLength, ""), R"("max_tokens"null"abc")");  // the engine reports 5 tokens
  EXPECT_EQ(stop_of(FinishReason::kLength, "", "6"), R"("model_context_window_exceeded"null"abc")");
  EXPECT_EQ(stop_of(FinishReason::kCancelled, ""), R"(nullnull"abc")");
}

TEST_F(AnthropicFormatTest, AnAnswerWithoutTextHasNoContent) {
  post_message("");
  finish(FinishReason::kStop);
  backend_->done(1);
  EXPECT_THAT(bytes(), HasSubstr(R"("content":[],"stop_reason":"end_turn")"));
}

TEST_F(AnthropicFormatTest, ACallThatWasCutHasNoInput) {
  post_call();
  say(R"({"name":"weather","arguments":{"b":)");
  finish(FinishReason::kLength);
  backend_->done(1);
  EXPECT_THAT(bytes(), HasSubstr(R"("name":"weather","input":{}}],"stop_reason":"max_tokens")"));
}

TEST(AnthropicError, HasATypeForEachStatus) {
  const auto type_of = [](int status) {
    return Json::parse(anthropic_error_json(ApiError(status, "x", "why")))["error"]["type"].get<std::string>();
  };
  EXPECT_EQ(type_of(400), "invalid_request_error");
  EXPECT_EQ(type_of(401), "authentication_error");
  EXPECT_EQ(type_of(403), "permission_error");
  EXPECT_EQ(type_of(404), "not_found_error");
  EXPECT_EQ(type_of(405), "invalid_request_error");
  EXPECT_EQ(type_of(413), "request_too_large");
  EXPECT_EQ(type_of(415), "invalid_request_error");
  EXPECT_EQ(type_of(429), "rate_limit_error");
  EXPECT_EQ(type_of(500), "api_error");
  EXPECT_EQ(type_of(503), "overloaded_error");
  const HttpResponse response = anthropic_failure(ApiError::busy("later\xff"));
  EXPECT_EQ(response.status, 429);
  EXPECT_EQ(response.headers.front().first, "Retry-After");
  EXPECT_EQ(response.body, "{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"later\uFFFD\"}}");
}

}  // namespace
}  // namespace nanochat
