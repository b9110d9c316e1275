#include "serving/response_json.h"

#include <cmath>

#include <gmock/gmock.h>

#include "serving/serving_testing.h"

namespace nanochat {
namespace {

using ::testing::MatchesRegex;
using ::testing::StartsWith;
using Json = nlohmann::ordered_json;

const AnswerHead kChat = {true, "chatcmpl-1", "tiny", "fp_1", 1700000000}, kCompletion = {false, "cmpl-1", "tiny", "fp_1", 1700000000};

TEST(ResponseJson, Ids) {
  EXPECT_THAT(new_id("call_"), MatchesRegex("call_[0-9a-f]+"));
  EXPECT_NE(new_id("x"), new_id("x"));
}

TEST(ResponseJson, UsageAddsUp) {
  EngineUsage usage;
  usage.prompt_tokens = 5;
  usage.cached_tokens = 3;
  usage.completion_tokens = 7;
  EXPECT_EQ(usage_json(usage).dump(),
            R"({"prompt_tokens":5,"completion_tokens":7,"total_tokens":12,"prompt_tokens_details":{"cached_tokens":3}})");
}

TEST(ResponseJson, HeadsOfAnswers) {
  EXPECT_EQ(answer_json(kChat, false, Json::array()).dump(),
            R"({"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"tiny","system_fingerprint":"fp_1","choices":[]})");
  EXPECT_EQ(answer_json(kChat, true, Json::array())["object"], "chat.completion.chunk");
  EXPECT_EQ(answer_json(kCompletion, false, Json::array())["object"], "text_completion");
  EXPECT_EQ(answer_json(kCompletion, true, Json::array())["object"], "text_completion");
}

TEST(ResponseJson, WholeChoices) {
  const ChoicePart part{.index = 2, .text = "Hi", .finish_reason = "length"};
  EXPECT_EQ(whole_choice(kChat, part, nullptr).dump(),
            R"({"index":2,"message":{"role":"assistant","content":"Hi","refusal":null},"logprobs":null,"finish_reason":"length"})");
  EXPECT_EQ(whole_choice(kCompletion, part, nullptr).dump(), R"({"index":2,"text":"Hi","logprobs":null,"finish_reason":"length"})");
  const ChoicePart call{.call = ToolCallPart{"f", "{}"}, .call_id = "call_1", .finish_reason = "tool_calls"};
  EXPECT_EQ(whole_choice(kChat, call, nullptr)["message"].dump(),
            R"({"role":"assistant","content":null,"refusal":null,)"
            R"("tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}}]})");
}

TEST(ResponseJson, ChunksOfChoices) {
  const auto delta = [](const ChoicePart& part) { return chunk_choice(kChat, part, nullptr)["delta"].dump(); };
  EXPECT_EQ(delta({.begins = true}), R"({"role":"assistant","content":""})");
  EXPECT_EQ(delta({.text = "Hi"}), R"({"content":"Hi"})");
  EXPECT_EQ(delta({.finish_reason = "stop"}), "{}");
  EXPECT_EQ(chunk_choice(kChat, {.text = "Hi"}, nullptr)["finish_reason"], nullptr);
  EXPECT_EQ(chunk_choice(kChat, {.finish_reason = "stop"}, nullptr)["finish_reason"], "stop");
  EXPECT_EQ(chunk_choice(kCompletion, {.text = "Hi"}, nullptr)["text"], "Hi");
  for (const AnswerHead& head : {kChat, kCompletion}) {
    for (const char* text : {"Hi", "{\"a\": \"\\\n\x01}", "\u00e9\u4e16 </script>", "\xff broken"}) {
      const auto whole = chunk_choice(head, {.index = 3, .text = text}, nullptr);
      EXPECT_EQ(text_chunk_choice(head, 3, text), whole.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
    }
  }
  EXPECT_EQ(delta({.call = ToolCallPart(), .begins = true}), R"({"role":"assistant","content":null})");
  EXPECT_EQ(delta({.call = ToolCallPart{"f", ""}, .call_id = "call_1"}),
            R"({"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":""}}]})");
  EXPECT_EQ(delta({.call = ToolCallPart{"", "{\"a"}, .call_id = "call_1"}),
            R"({"tool_calls":[{"index":0,"function":{"arguments":"{\"a"}}]})");
}

TEST(ResponseJson, TextsOfTokens) {
  const testing::ChatByteTokenizer tokenizer;
  EXPECT_EQ(token_text(tokenizer, 'a'), "a");
  EXPECT_EQ(token_text(tokenizer, 0xe2), "bytes:\\xe2");
  EXPECT_EQ(token_text(tokenizer, 256), "<|bos|>");
  EXPECT_EQ(token_text(tokenizer, 300), "<|unused_300|>");  // of a vocabulary that is padded
}

TEST(ResponseJson, LogprobsOfChats) {
  const testing::ChatByteTokenizer tokenizer;
  const std::vector<AnswerToken> tokens = {{{'a', -0.5}, {{'a', -0.5}, {0xe2, -INFINITY}}, 0}};
  EXPECT_EQ(chat_logprobs(tokenizer, tokens, 2).dump(),
            R"({"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"a","logprob":-0.5,"bytes":[97]},)"
            R"({"token":"bytes:\\xe2","logprob":-9999.0,"bytes":[226]}]}],"refusal":null})");
  EXPECT_EQ(chat_logprobs(tokenizer, tokens, 0)["content"][0]["top_logprobs"], Json::array());
}

TEST(ResponseJson, LogprobsOfCompletions) {
  const testing::ChatByteTokenizer tokenizer;
  const std::vector<AnswerToken> tokens = {{{256, 0.0}, {}, 0}, {{'b', -2.0}, {{'a', -0.5}}, 0}};
  EXPECT_EQ(completion_logprobs(tokenizer, tokens, 1, true, 3).dump(),
            R"({"tokens":["<|bos|>","b"],"token_logprobs":[null,-2.0],"top_logprobs":[null,{"a":-0.5,"b":-2.0}],"text_offset":[3,3]})");
  EXPECT_EQ(completion_logprobs(tokenizer, tokens, 0, true, 0)["top_logprobs"], nullptr);
  EXPECT_EQ(completion_logprobs(tokenizer, tokens, 0, false, 0)["token_logprobs"], Json({0.0, -2.0}));
}

}  // namespace
}  // namespace nanochat
