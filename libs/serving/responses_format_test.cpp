// The bytes of the answers of POST /v1/responses.
#include <gmock/gmock.h>

#include "serving/testing_answers.h"

namespace nanochat {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ResponsesFormatTest : public testing::AnswerBytes {
 protected:
  void post_response(const std::string& fields = {}) {
    post("/v1/responses", R"({"input": "Hi", "temperature": 1)" + (fields.empty() ? "" : ", " + fields) + "}");
  }
  void post_call(const std::string& fields = {}) {
    post_response(R"("tools": [{"type": "function", "name": "weather"}], "tool_choice": "required")" +
                  (fields.empty() ? "" : ", " + fields));
  }
  // Says the whole answer to the newest request and returns it.
  Json answer(const std::string& text, FinishReason reason = FinishReason::kStop) {
    const RequestId id = backend_->submitted();
    say(text, 0, id);
    finish(reason, 0, id);
    backend_->done(id);
    return Json::parse(exchange_->text());
  }
  void next() {
    exchange_->let_go();
    exchange_.reset();
  }
  Json send(const std::string& method, const std::string& path) {
    HttpRequest request{.method = method, .path = path, .query = {}, .headers = {}, .body = {}, .client = "127.0.0.1"};
    exchange_ = std::make_shared<testing::RecordingExchange>(std::move(request));
    api_.handle(exchange_);
    return Json::parse(exchange_->text());
  }
  std::string prompt() {  // of the newest request
    std::string text;
    const testing::ChatByteTokenizer tokenizer;
    for (const TokenId id : backend_->request(backend_->submitted()).prompt) text += tokenizer.token_bytes(id);
    return text;
  }
  // Every event of the stream without the response object: "name number other fields".
  std::vector<std::string> events() {
    std::vector<std::string> found;
    std::string text = bytes();
    for (std::size_t at = 0; (at = text.find("<time>", at)) != std::string::npos;) text.replace(at, 6, "0");
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = text.find("\n\n", begin), line = text.find('\n', begin);
      const std::string name = text.substr(begin + 7, line - begin - 7);
      Json data = Json::parse(text.substr(line + 7, end - line - 7));
      EXPECT_EQ(text.substr(begin, 7), "event: ");
      EXPECT_EQ(data["type"], name);
      const std::string number = data["sequence_number"].dump();
      data.erase("type");
      data.erase("sequence_number");
      if (data.contains("response")) data["response"] = data["response"]["status"];
      found.push_back(name + " " + number + " " + data.dump());
      begin = end + 2;
    }
    return found;
  }
};

TEST_F(ResponsesFormatTest, AWholeResponse) {
  post_response(R"("metadata": {"z": "1", "a": "2"}, "max_output_tokens": 9)");
  answer("ab");
  EXPECT_EQ(
      bytes(),
      R"({"id":"<resp>","object":"response","created_at":<time>,"completed_at":<time>,"status":"completed","background":false,"error":null,"incomplete_details":null,"model":"tiny","output":[{"id":"<msg>","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"ab","annotations":[],"logprobs":[]}]}],"instructions":null,"max_output_tokens":9,"max_tool_calls":null,"metadata":{"z":"1","a":"2"},"parallel_tool_calls":true,"previous_response_id":null,"prompt_cache_key":null,"reasoning":{"effort":null,"summary":null},"safety_identifier":null,"service_tier":"default","store":true,"temperature":1.0,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":1.0,"truncation":"disabled","user":null,"usage":{"input_tokens":6,"input_tokens_details":{"cached_tokens":2,"cache_write_tokens":0},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":11}})");
}

TEST_F(ResponsesFormatTest, AStreamOfText) {
  post_response(R"("stream": true)");
  say("a\"");
  calculate("1+1", "2");  // is not part of the text
  finish(FinishReason::kStop);
  backend_->done(1);
  EXPECT_THAT(
      events(),
      ElementsAre(
          R"(response.created 0 {"response":"in_progress"})", R"(response.in_progress 1 {"response":"in_progress"})",
          R"(response.output_item.added 2 {"output_index":0,"item":{"id":"<msg>","type":"message","status":"in_progress","role":"assistant","content":[]}})",
          R"(response.content_part.added 3 {"item_id":"<msg>","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}})",
          R"(response.output_text.delta 4 {"item_id":"<msg>","output_index":0,"content_index":0,"delta":"a","logprobs":[]})",
          R"(response.output_text.delta 5 {"item_id":"<msg>","output_index":0,"content_index":0,"delta":"\"","logprobs":[]})",
          R"(response.output_text.done 6 {"item_id":"<msg>","output_index":0,"content_index":0,"text":"a\"","logprobs":[]})",
          R"(response.content_part.done 7 {"item_id":"<msg>","output_index":0,"content_index":0,"part":{"type":"output_text","text":"a\"","annotations":[],"logprobs":[]}})",
          R"(response.output_item.done 8 {"output_index":0,"item":{"id":"<msg>","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"a\"","annotations":[],"logprobs":[]}]}})",
          R"(response.completed 9 {"response":"completed"})"));
}

TEST_F(ResponsesFormatTest, AStreamOfACall) {
  post_call(R"("stream": true)");
  say(R"({"name":"weather","arguments":{)");
  say("}}");
  finish(FinishReason::kStop);
  backend_->done(1);
  EXPECT_THAT(
      events(),
      ElementsAre(
          R"(response.created 0 {"response":"in_progress"})", R"(response.in_progress 1 {"response":"in_progress"})",
          R"(response.output_item.added 2 {"output_index":0,"item":{"id":"<fc>","type":"function_call","status":"in_progress","call_id":"<call>","name":"weather","arguments":""}})",
          R"(response.function_call_arguments.delta 3 {"item_id":"<fc>","output_index":0,"delta":"{"})",
          R"(response.function_call_arguments.delta 4 {"item_id":"<fc>","output_index":0,"delta":"}"})",
          R"(response.function_call_arguments.done 5 {"item_id":"<fc>","output_index":0,"name":"weather","arguments":"{}"})",
          R"(response.output_item.done 6 {"output_index":0,"item":{"id":"<fc>","type":"function_call","status":"completed","call_id":"<call>","name":"weather","arguments":"{}"}})",
          R"(response.completed 7 {"response":"completed"})"));
}

TEST_F(ResponsesFormatTest, TextAndCallsAreItems) {
  for (const bool stream : {false, true}) {
    if (stream) next();
    post("/v1/responses",
         R"({"input": "Hi", "tools": [{"type": "function", "name": "f"}, {"type": "function", "name": "g"}], "stream": )" +
             std::string(stream ? "true}" : "false}"));
    const RequestId id = backend_->submitted();
    say("So:\n{\"name\":\"f\",\"arguments\":{\"b\":1}}\n{\"name\":\"g\",\"arguments\":{}}", 0, id);
    finish(FinishReason::kStop, 0, id);
    backend_->done(id);
    const std::string all = bytes();
    EXPECT_THAT(
        all,
        HasSubstr(
            R"("output":[{"id":"<msg>","type":"message","status":"completed","role":"assistant","content":)"
            R"([{"type":"output_text","text":"So:","annotations":[],"logprobs":[]}]},)"
            R"({"id":"<fc>","type":"function_call","status":"completed","call_id":"<call>","name":"f","arguments":"{\"b\":1}"},)"
            R"({"id":"<fc>","type":"function_call","status":"completed","call_id":"<call>","name":"g","arguments":"{}"}])"));
    if (!stream) continue;
    EXPECT_THAT(all, HasSubstr(R"("type":"response.function_call_arguments.done","sequence_number":)"));
    EXPECT_THAT(all, HasSubstr(R"("output_index":2,"name":"g","arguments":"{}"})"));
  }
}

TEST_F(ResponsesFormatTest, ALengthEndsAStreamAsIncomplete) {
  post_response(R"("stream": true)");
  say("a");
  finish(FinishReason::kLength);
  backend_->done(1);
  EXPECT_EQ(events().back(), R"(response.incomplete 8 {"response":"incomplete"})");
  EXPECT_THAT(bytes(), HasSubstr(R"("incomplete_details":{"reason":"max_output_tokens"})"));
  EXPECT_THAT(events()[7], HasSubstr(R"("status":"incomplete")"));
}

TEST_F(ResponsesFormatTest, AStreamThatFails) {
  post_response(R"("stream": true)");
  say("a");
  backend_->finish(1, FinishReason::kError, "logit is NaN");
  backend_->done(1);
  EXPECT_EQ(events().back(), R"(response.failed 5 {"response":"failed"})");
  EXPECT_THAT(bytes(), HasSubstr(R"("error":{"code":"server_error","message":"logit is NaN"})"));
}

TEST_F(ResponsesFormatTest, AStreamThatFailsBeforeItsFirstTokenIsCreatedFirst) {
  post_response(R"("stream": true)");
  exchange_->quiet();  // a keep-alive is due: the head of the stream is sent
  backend_->finish(1, FinishReason::kError, "logit is NaN");
  backend_->done(1);
  EXPECT_THAT(events(), ElementsAre(R"(response.created 0 {"response":"in_progress"})",
                                    R"(response.in_progress 1 {"response":"in_progress"})",
                                    R"(response.failed 2 {"response":"failed"})"));
}

TEST_F(ResponsesFormatTest, AnAnswerThatFailsBeforeItBegins) {
  post_response();
  backend_->finish(1, FinishReason::kError, "logit is NaN");
  backend_->done(1);
  EXPECT_EQ(exchange_->response->status, 500);
  EXPECT_EQ(bytes(), R"({"error":{"message":"logit is NaN","type":"server_error","param":null,"code":"internal_error"}})");
}

TEST_F(ResponsesFormatTest, AnAnswerWithoutTextIsAnEmptyMessage) {
  post_response();
  EXPECT_EQ(answer("")["output"][0]["content"][0]["text"], "");
}

TEST_F(ResponsesFormatTest, LogprobsBelongToTheText) {
  post_response(R"("stream": true, "include": ["message.output_text.logprobs"], "top_logprobs": 1)");
  say("ab");
  finish(FinishReason::kStop);
  backend_->done(1);
  const auto entry = [](const char* token, int byte) {
    const std::string one = "\"token\":\"" + std::string(token) + "\",\"logprob\":-0.5,\"bytes\":[" + std::to_string(byte) +
                            "]";
    return "{" + one + ",\"top_logprobs\":[{" + one + "}]}";
  };
  EXPECT_THAT(events()[5], HasSubstr("\"logprobs\":[" + entry("b", 98) + "]"));
  EXPECT_THAT(events()[6], HasSubstr("\"logprobs\":[" + entry("a", 97) + "," + entry("b", 98) + "]"));
}

TEST_F(ResponsesFormatTest, AStoredResponseIsContinuedReadAndDeleted) {
  post_response(R"("instructions": "Be brief.")");
  const Json first = answer("one");
  const std::string id = first["id"];
  next();
  post_response(R"("previous_response_id": ")" + id + "\"");
  EXPECT_EQ(prompt(),
            "<|bos|><|user_start|>Hi<|user_end|><|assistant_start|>one<|assistant_end|><|user_start|>Hi<|user_end|>"
            "<|assistant_start|>");
  const Json second = answer("two");
  EXPECT_EQ(second["previous_response_id"], id);
  next();
  post_response(R"("previous_response_id": )" + second["id"].dump());
  EXPECT_THAT(prompt(), HasSubstr("one<|assistant_end|><|user_start|>Hi<|user_end|><|assistant_start|>two<|assistant_end|>"));
  answer("three");
  next();
  EXPECT_EQ(send("GET", "/v1/responses/" + id), first);
  next();
  EXPECT_EQ(send("DELETE", "/v1/responses/" + id).dump(), R"({"id":")" + id + R"(","object":"response","deleted":true})");
  next();
  EXPECT_EQ(send("GET", "/v1/responses/" + id)["error"]["code"], "response_not_found");
  EXPECT_EQ(exchange_->response->status, 404);
  next();
  EXPECT_EQ(send("DELETE", "/v1/responses/" + id)["error"]["code"], "response_not_found");
  next();
  post_response(R"("previous_response_id": ")" + id + "\"");
  EXPECT_EQ(exchange_->response->status, 400);
  EXPECT_THAT(bytes(), HasSubstr("previous_response_not_found"));
}

TEST_F(ResponsesFormatTest, AStreamedCallIsStoredToo) {
  post_call(R"("stream": true)");
  say(R"({"name":"weather","arguments":{"b":1}})");
  finish(FinishReason::kStop);
  backend_->done(1);
  const std::string text = exchange_->text();
  const std::size_t begin = text.find("resp_");
  const std::string id = text.substr(begin, text.find('"', begin) - begin);
  const Json stored = [&] {
    next();
    return send("GET", "/v1/responses/" + id);
  }();
  const std::string call = stored["output"][0]["call_id"];
  next();
  post("/v1/responses", R"({"previous_response_id": ")" + id + R"(", "input": [{"type": "function_call_output", "call_id": ")" +
                            call + R"(", "output": "sun"}]})");
  EXPECT_THAT(prompt(), HasSubstr(R"({"name":"weather","arguments":{"b":1}})"
                                  "<|assistant_end|><|user_start|>Result of weather:\nsun<|user_end|>"));
}

TEST_F(ResponsesFormatTest, WhatIsNotToBeStoredIsNot) {
  post_response(R"("store": false)");
  const std::string id = answer("one")["id"];
  next();
  EXPECT_EQ(send("GET", "/v1/responses/" + id)["error"]["code"], "response_not_found");
}

TEST_F(ResponsesFormatTest, AContinuedMessageIsStoredAsOne) {
  post("/v1/responses", R"({"input": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "He"}]})");
  EXPECT_EQ(prompt(), "<|bos|><|user_start|>Hi<|user_end|><|assistant_start|>He");
  const Json first = answer("llo");
  EXPECT_EQ(first["output"][0]["content"][0]["text"], "llo");
  next();
  post_response(R"("previous_response_id": )" + first["id"].dump());
  EXPECT_THAT(prompt(), HasSubstr("<|assistant_start|>Hello<|assistant_end|>"));
}

}  // namespace
}  // namespace nanochat
