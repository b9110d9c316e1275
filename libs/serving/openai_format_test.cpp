#include <cmath>

#include <gmock/gmock.h>

#include "serving/internal/chat_format.h"
#include "serving/internal/completion_format.h"
#include "serving/testing.h"

namespace nanochat {
namespace {

using ::testing::MatchesRegex;
using Json = nlohmann::ordered_json;

const GenerationFields kPlain = {};

template <class Format>
Format make(const GenerationFields& fields = kPlain) {
  return Format({"answer-1", "tiny", "fp_1", 1700000000}, fields, std::make_shared<testing::ChatByteTokenizer>());
}

GenerationFields with_logprobs(std::int64_t top) {
  GenerationFields fields;
  fields.logprobs = true;
  fields.top_logprobs = top;
  return fields;
}

Json whole_choice(AnswerFormat& format, const ChoicePart& part) {
  return Json::parse(format.whole({&part, 1}, {}))["choices"][0];
}

// The choice of the one event that was written.
Json choice_of(const std::string& out) { return Json::parse(out.substr(6))["choices"][0]; }

Json delta_of(AnswerFormat& format, const ChoicePart& part) {
  std::string out;
  format.delta(part, {}, out);
  return choice_of(out);
}

TEST(OpenAiFormat, Ids) {
  EXPECT_THAT(new_id("call_"), MatchesRegex("call_[0-9a-f]+"));
  EXPECT_NE(new_id("x"), new_id("x"));
}

TEST(OpenAiFormat, UsageAddsUp) {
  EngineUsage usage;
  usage.prompt_tokens = 5;
  usage.cached_tokens = 3;
  usage.completion_tokens = 7;
  EXPECT_EQ(usage_json(usage).dump(),
            R"({"prompt_tokens":5,"completion_tokens":7,"total_tokens":12,"prompt_tokens_details":{"cached_tokens":3}})");
}

TEST(OpenAiFormat, HeadsOfAnswers) {
  auto chat = make<ChatFormat>();
  auto completion = make<CompletionFormat>();
  EXPECT_THAT(
      chat.whole({}, {}),
      ::testing::StartsWith(
          R"({"id":"answer-1","object":"chat.completion","created":1700000000,"model":"tiny","system_fingerprint":"fp_1","choices":[])"));
  EXPECT_EQ(Json::parse(completion.whole({}, {}))["object"], "text_completion");
  std::string chunk, text_chunk;
  chat.delta({.text = "a"}, {}, chunk);
  completion.delta({.text = "a"}, {}, text_chunk);
  EXPECT_EQ(Json::parse(chunk.substr(6))["object"], "chat.completion.chunk");
  EXPECT_EQ(Json::parse(text_chunk.substr(6))["object"], "text_completion");
}

TEST(OpenAiFormat, WholeChoices) {
  auto chat = make<ChatFormat>();
  auto completion = make<CompletionFormat>();
  const ChoicePart part{.index = 2, .text = "Hi", .end = ChoiceEnd::kLength};
  EXPECT_EQ(
      whole_choice(chat, part).dump(),
      R"({"index":2,"message":{"role":"assistant","content":"Hi","refusal":null},"logprobs":null,"finish_reason":"length"})");
  EXPECT_EQ(whole_choice(completion, part).dump(), R"({"index":2,"text":"Hi","logprobs":null,"finish_reason":"length"})");
  const ChoicePart call{.tool_choice = ToolChoice::kRequired, .calls = {{"f", "{}", 0, "call_1"}}, .end = ChoiceEnd::kCall};
  EXPECT_EQ(whole_choice(chat, call)["message"].dump(),
            R"({"role":"assistant","content":null,"refusal":null,)"
            R"("tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}}]})");
}

TEST(OpenAiFormat, SeveralCallsBesideText) {
  auto chat = make<ChatFormat>();
  const ChoicePart part{.text = "Hi", .tool_choice = ToolChoice::kAuto, .calls = {{"f", "{}"}, {"g", "{}", 1}}};
  const Json message = whole_choice(chat, part)["message"];
  EXPECT_EQ(message["content"], "Hi");
  EXPECT_EQ(message["tool_calls"].size(), 2u);
  EXPECT_EQ(message["tool_calls"][1]["function"]["name"], "g");
  const Json delta = delta_of(chat, part)["delta"];
  EXPECT_EQ(delta["content"], "Hi");
  EXPECT_EQ(delta["tool_calls"][1]["index"], 1);
}

TEST(OpenAiFormat, ChunksOfChoices) {
  auto chat = make<ChatFormat>();
  auto completion = make<CompletionFormat>();
  std::string begin, begin_call, end, nothing;
  chat.begin({}, {}, begin);
  EXPECT_EQ(choice_of(begin)["delta"].dump(), R"({"role":"assistant","content":""})");
  chat.begin({.tool_choice = ToolChoice::kRequired}, {}, begin_call);
  EXPECT_EQ(choice_of(begin_call)["delta"].dump(), R"({"role":"assistant","content":null})");
  completion.begin({}, {}, nothing);
  EXPECT_EQ(nothing, "");
  chat.finish({.end = ChoiceEnd::kStop}, {}, end);
  EXPECT_EQ(choice_of(end)["delta"].dump(), "{}");
  EXPECT_EQ(choice_of(end)["finish_reason"], "stop");
  EXPECT_EQ(delta_of(chat, {.text = "Hi"})["delta"].dump(), R"({"content":"Hi"})");
  EXPECT_EQ(delta_of(chat, {.text = "Hi"})["finish_reason"], nullptr);
  EXPECT_EQ(delta_of(completion, {.text = "Hi"})["text"], "Hi");
  EXPECT_EQ(delta_of(chat, {.calls = {{"f", "", 0, "call_1"}}})["delta"].dump(),
            R"({"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":""}}]})");
  EXPECT_EQ(delta_of(chat, {.calls = {{"", "{\"a"}}})["delta"].dump(),
            R"({"tool_calls":[{"index":0,"function":{"arguments":"{\"a"}}]})");
}

TEST(OpenAiFormat, TextAloneIsWrittenAsTheJsonLibraryWritesIt) {
  for (const char* text : {"Hi", "{\"a\": \"\\\n\x01}", "\u00e9\u4e16 </script>", "\xff broken"}) {
    const std::string content = dump(Json(text));
    EXPECT_EQ(plain_choice(3, "text", content), dump(choice_json(3, "text", text, nullptr, {})));
    EXPECT_EQ(plain_choice(3, "delta", "{\"content\":" + content + "}"),
              dump(choice_json(3, "delta", {{"content", text}}, nullptr, {})));
  }
}

TEST(OpenAiFormat, TextsOfTokens) {
  const testing::ChatByteTokenizer tokenizer;
  EXPECT_EQ(token_text(tokenizer, 'a'), "a");
  EXPECT_EQ(token_text(tokenizer, 0xe2), "bytes:\\xe2");
  EXPECT_EQ(token_text(tokenizer, 256), "<|bos|>");
  EXPECT_EQ(token_text(tokenizer, 300), "<|unused_300|>");  // of a vocabulary that is padded
}

TEST(OpenAiFormat, LogprobsOfChats) {
  const std::vector<AnswerToken> tokens = {{{'a', -0.5}, {{'a', -0.5}, {0xe2, -INFINITY}}, 0}};
  auto two = make<ChatFormat>(with_logprobs(2)), none = make<ChatFormat>(with_logprobs(0));
  EXPECT_EQ(whole_choice(two, {.tokens = tokens})["logprobs"].dump(),
            R"({"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"a","logprob":-0.5,"bytes":[97]},)"
            R"({"token":"bytes:\\xe2","logprob":-9999.0,"bytes":[226]}]}],"refusal":null})");
  EXPECT_EQ(whole_choice(none, {.tokens = tokens})["logprobs"]["content"][0]["top_logprobs"], Json::array());
}

TEST(OpenAiFormat, LogprobsOfCompletions) {
  const std::vector<AnswerToken> tokens = {{{256, 0.0}, {}, 3}, {{'b', -2.0}, {{'a', -0.5}}, 3}};
  auto one = make<CompletionFormat>(with_logprobs(1)), none = make<CompletionFormat>(with_logprobs(0));
  EXPECT_EQ(
      whole_choice(one, {.tokens = tokens, .begins_with_prompt = true})["logprobs"].dump(),
      R"({"tokens":["<|bos|>","b"],"token_logprobs":[null,-2.0],"top_logprobs":[null,{"a":-0.5,"b":-2.0}],"text_offset":[3,3]})");
  EXPECT_EQ(whole_choice(none, {.tokens = tokens, .begins_with_prompt = true})["logprobs"]["top_logprobs"], nullptr);
  EXPECT_EQ(whole_choice(none, {.tokens = tokens})["logprobs"]["token_logprobs"], Json({0.0, -2.0}));
}

}  // namespace
}  // namespace nanochat
