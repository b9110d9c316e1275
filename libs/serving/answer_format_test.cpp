// The bytes of whole answers and whole streams in each format: what clients rely on, to the letter.
#include <gmock/gmock.h>

#include "serving/testing_answers.h"

namespace nanochat {
namespace {

using AnswerFormatTest = testing::AnswerBytes;

TEST_F(AnswerFormatTest, AStreamOfAChat) {
  post_chat(R"("stream": true, "n": 2, "stream_options": {"include_usage": true})");
  say("a\n\"");
  calculate("1+1", "2");
  say("\xe4\xb8\x96\xff", 1);  // a character of three tokens, and half a one
  finish(FinishReason::kStop);
  say("!", 1);
  finish(FinishReason::kLength, 1);
  backend_->done(1);
  EXPECT_EQ(
      bytes(),
      R"(data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":1,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"content":"\n"},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"content":"\""},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"nanochat_calculations":[{"index":0,"expression":"1+1","result":"2","offset":3}]},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":1,"delta":{"content":"世"},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":1,"delta":{"content":"�"},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":1,"delta":{"content":"!"},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":1,"delta":{},"logprobs":null,"finish_reason":"length"}],"usage":null}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[],"usage":{"prompt_tokens":6,"completion_tokens":5,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":2}}}

data: [DONE]

)");
}

TEST_F(AnswerFormatTest, AStreamOfAChatWithProbabilities) {
  post_chat(R"("stream": true, "stop": ["lo"], "logprobs": true, "top_logprobs": 1)");
  say("Hel");
  say("o");
  finish(FinishReason::kStop);
  backend_->done(1);
  EXPECT_EQ(
      bytes(),
      R"(data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"content":"H"},"logprobs":{"content":[{"token":"H","logprob":-0.5,"bytes":[72],"top_logprobs":[{"token":"H","logprob":-0.5,"bytes":[72]}]}],"refusal":null},"finish_reason":null}]}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"content":"e"},"logprobs":{"content":[{"token":"e","logprob":-0.5,"bytes":[101],"top_logprobs":[{"token":"e","logprob":-0.5,"bytes":[101]}]}],"refusal":null},"finish_reason":null}]}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}

data: [DONE]

)");
}

TEST_F(AnswerFormatTest, AStreamOfACall) {
  post_call(R"("stream": true, "stream_options": {"continuous_usage_stats": true})");
  say(R"({"name":"weather","arguments":{"b":1}})");
  finish(FinishReason::kStop);
  backend_->done(1);
  EXPECT_EQ(
      bytes(),
      R"(data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"role":"assistant","content":null},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":91,"completion_tokens":5,"total_tokens":96,"prompt_tokens_details":{"cached_tokens":2}}}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"<call>","type":"function","function":{"name":"weather","arguments":""}}]},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":91,"completion_tokens":5,"total_tokens":96,"prompt_tokens_details":{"cached_tokens":2}}}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":91,"completion_tokens":5,"total_tokens":96,"prompt_tokens_details":{"cached_tokens":2}}}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\""}}]},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":91,"completion_tokens":5,"total_tokens":96,"prompt_tokens_details":{"cached_tokens":2}}}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"b"}}]},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":91,"completion_tokens":5,"total_tokens":96,"prompt_tokens_details":{"cached_tokens":2}}}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\""}}]},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":91,"completion_tokens":5,"total_tokens":96,"prompt_tokens_details":{"cached_tokens":2}}}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":"}}]},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":91,"completion_tokens":5,"total_tokens":96,"prompt_tokens_details":{"cached_tokens":2}}}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1"}}]},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":91,"completion_tokens":5,"total_tokens":96,"prompt_tokens_details":{"cached_tokens":2}}}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":91,"completion_tokens":5,"total_tokens":96,"prompt_tokens_details":{"cached_tokens":2}}}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":91,"completion_tokens":5,"total_tokens":96,"prompt_tokens_details":{"cached_tokens":2}}}

data: [DONE]

)");
}

TEST_F(AnswerFormatTest, AStreamOfAChatThatFails) {
  post_chat(R"("stream": true)");
  say("a");
  backend_->finish(1, FinishReason::kError, "logit is NaN");
  backend_->done(1);
  EXPECT_EQ(
      bytes(),
      R"(data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}

data: {"id":"<chatcmpl>","object":"chat.completion.chunk","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}]}

data: {"error":{"message":"logit is NaN","type":"server_error","param":null,"code":"internal_error"}}

data: [DONE]

)");
}

TEST_F(AnswerFormatTest, AStreamOfACompletion) {
  post_completion(
      R"("prompt": ["x", "y"], "stream": true, "stream_options": {"include_usage": true, "continuous_usage_stats": true})");
  say("ab");
  say("c", 0, 2);
  finish(FinishReason::kLength);
  backend_->done(1);
  finish(FinishReason::kStop, 0, 2);
  backend_->done(2);
  EXPECT_EQ(
      bytes(),
      R"(data: {"id":"<cmpl>","object":"text_completion","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"text":"a","logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":2,"completion_tokens":5,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":2}}}

data: {"id":"<cmpl>","object":"text_completion","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"text":"b","logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":2,"completion_tokens":5,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":2}}}

data: {"id":"<cmpl>","object":"text_completion","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":1,"text":"c","logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":4,"completion_tokens":10,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":4}}}

data: {"id":"<cmpl>","object":"text_completion","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":4,"completion_tokens":10,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":4}}}

data: {"id":"<cmpl>","object":"text_completion","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":1,"text":"","logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":10,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":4}}}

data: {"id":"<cmpl>","object":"text_completion","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[],"usage":{"prompt_tokens":4,"completion_tokens":10,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":4}}}

data: [DONE]

)");
}

TEST_F(AnswerFormatTest, AStreamOfACompletionWithTheScoresOfItsPrompt) {
  backend_->manual = false;
  backend_->answer = "bc";
  post_completion(R"("prompt": "xy", "stream": true, "echo": true, "logprobs": 1, "max_tokens": 2)");
  EXPECT_EQ(
      bytes(),
      R"(data: {"id":"<cmpl>","object":"text_completion","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"text":"xybc","logprobs":{"tokens":["<|bos|>","x","y","b","c"],"token_logprobs":[null,-1.0,-1.0,-0.5,-0.5],"top_logprobs":[null,{"x":-1.0},{"y":-1.0},{"b":-0.5,"?":-1.5},{"c":-0.5,"?":-1.5}],"text_offset":[0,0,1,2,3]},"finish_reason":null}]}

data: {"id":"<cmpl>","object":"text_completion","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}]}

data: [DONE]

)");
}

TEST_F(AnswerFormatTest, AStreamOfACompletionThatFails) {
  post_completion(R"("prompt": "x", "stream": true)");
  say("a");
  backend_->finish(1, FinishReason::kError, "logit is NaN");
  backend_->done(1);
  EXPECT_EQ(
      bytes(),
      R"(data: {"id":"<cmpl>","object":"text_completion","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"text":"a","logprobs":null,"finish_reason":null}]}

data: {"error":{"message":"logit is NaN","type":"server_error","param":null,"code":"internal_error"}}

data: [DONE]

)");
}

TEST_F(AnswerFormatTest, AWholeChat) {
  post_chat(R"("n": 2, "logprobs": true)");
  say("a");
  calculate("1+1", "2");
  finish(FinishReason::kStop);
  say("b", 1);
  finish(FinishReason::kLength, 1);
  backend_->done(1);
  EXPECT_EQ(
      bytes(),
      R"({"id":"<chatcmpl>","object":"chat.completion","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"message":{"role":"assistant","content":"a","refusal":null,"nanochat_calculations":[{"expression":"1+1","result":"2","offset":1}]},"logprobs":{"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[]}],"refusal":null},"finish_reason":"stop"},{"index":1,"message":{"role":"assistant","content":"b","refusal":null},"logprobs":{"content":[{"token":"b","logprob":-0.5,"bytes":[98],"top_logprobs":[]}],"refusal":null},"finish_reason":"length"}],"usage":{"prompt_tokens":6,"completion_tokens":5,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":2}}})");
}

TEST_F(AnswerFormatTest, AWholeCall) {
  post_call(R"("temperature": 0)");
  say(R"({"name":"weather","arguments":{"b":1}})");
  finish(FinishReason::kStop);
  backend_->done(1);
  EXPECT_EQ(
      bytes(),
      R"({"id":"<chatcmpl>","object":"chat.completion","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"<call>","type":"function","function":{"name":"weather","arguments":"{\"b\":1}"}}]},"logprobs":null,"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":91,"completion_tokens":5,"total_tokens":96,"prompt_tokens_details":{"cached_tokens":2}}})");
}

TEST_F(AnswerFormatTest, AWholeCompletion) {
  post_completion(R"("prompt": "xy", "echo": true, "logprobs": 1, "max_tokens": 2)");
  backend_->run(1);
  EXPECT_EQ(
      bytes(),
      R"({"id":"<cmpl>","object":"text_completion","created":<time>,"model":"tiny","system_fingerprint":"fp_test","choices":[{"index":0,"text":"xyHe","logprobs":{"tokens":["<|bos|>","x","y","H","e"],"token_logprobs":[null,-1.0,-1.0,-0.5,-0.5],"top_logprobs":[null,{"x":-1.0},{"y":-1.0},{"H":-0.5,"?":-1.5},{"e":-0.5,"?":-1.5}],"text_offset":[0,0,1,2,3]},"finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":2}}})");
}

TEST_F(AnswerFormatTest, AnAnswerThatFailsBeforeItBegins) {
  for (const bool chat : {true, false}) {
    const RequestId id = backend_->submitted() + 1;
    chat ? post_chat(R"("stream": true)") : post_completion(R"("prompt": "x", "stream": true)");
    backend_->finish(id, FinishReason::kError, "logit is NaN");
    backend_->done(id);
    EXPECT_EQ(exchange_->response->status, 500);
    EXPECT_EQ(bytes(), R"({"error":{"message":"logit is NaN","type":"server_error","param":null,"code":"internal_error"}})");
    exchange_->let_go();
  }
}

}  // namespace
}  // namespace nanochat
