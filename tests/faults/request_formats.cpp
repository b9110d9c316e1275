#include "request_formats.h"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/log.h"
#include "inference/answer_constraint.h"
#include "inference/token_trie.h"
#include "serving/api.h"
#include "serving/testing.h"
#include "serving/testing_connection.h"

namespace nanochat::testing {
namespace {

constexpr std::size_t kHeaderBytes = 4 << 10, kBodyBytes = 64 << 10;

// A server without connections. It is made once: requests find the sessions, responses and answers that others have left.
class Server {
 public:
  Server() {
    configure_logging({.level = LogLevel::kOff});
    backend_->answer = "Hi\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}";
    backend_->context = 1 << 20;
    const auto model = fake_model(backend_);
    const auto& tokenizer = *model->tokenizer;
    const auto trie = std::make_shared<const TokenTrie>(tokenizer.vocab_size(), [&tokenizer](std::int32_t id) {
      return tokenizer.is_special(id) ? std::string_view() : tokenizer.token_bytes(id);
    });
    model->make_constraint = [trie](AnswerForm form, const nlohmann::ordered_json& value) {
      return answer_constraint(form, value, trie);
    };
    model->has_tools = true;
    api_.set_model(model);
  }

  // The status and the size of the body. Throws std::logic_error for what a request must never cause.
  std::pair<int, std::size_t> answer(HttpRequest request) {
    const auto exchange = std::make_shared<RecordingExchange>(std::move(request));
    api_.handle(exchange);
    const std::string text = exchange->text();
    const int status = exchange->response ? exchange->response->status : 0;
    const bool whole = exchange->response && (exchange->response->stream == nullptr || exchange->ended);
    if (exchange->end) exchange->end(status, text.size());
    exchange->let_go();
    backend_->let_go();
    if (!whole) throw std::logic_error("a request without a whole answer");
    if (status == 500) throw std::logic_error("an internal error: " + text);
    return {status, text.size()};
  }

  void refuse(const Received& received) { api_.refuse(received.error, received.reason, received.refused); }

 private:
  std::shared_ptr<FakeBackend> backend_ = std::make_shared<FakeBackend>();
  Api api_{ApiOptions{.api_keys = {"secret"},
                      .cors_origins = {"https://example.org"},
                      .reload = [](const ReloadDone& done) { done({}, ""); },
                      .answer_cache_bytes = 1 << 16,
                      .max_stored_responses = 20}};
};

Server& server() {
  static Server one;
  return one;
}

bool same(const HttpRequest& a, const HttpRequest& b) {
  return a.method == b.method && a.path == b.path && a.query == b.query && a.headers == b.headers && a.body == b.body;
}

std::string read_connection(const std::string& bytes) {
  const Received received = receive(bytes, std::max<std::size_t>(1, bytes.size()), kHeaderBytes, kBodyBytes);
  const Received in_pieces = receive(bytes, 1 + bytes.size() % 97, kHeaderBytes, kBodyBytes);
  // An error may come early or late: the parser waits for the end of headers, and reads what is there when they begin.
  const bool alike = std::equal(received.requests.begin(), received.requests.end(), in_pieces.requests.begin(),
                                in_pieces.requests.end(), same);
  if (!alike) throw std::logic_error("the pieces in which bytes arrive make another request of them");
  std::string all;
  const bool broken = received.error != 0;
  if (broken) server().refuse(received);
  bool refused = broken;
  for (const HttpRequest& request : received.requests) {
    const auto [status, size] = server().answer(request);
    all += fmt::format("{} {} {}\n", request.path, status, size);
    refused = refused || status >= 400;
  }
  if (refused) throw DataError("a request that is refused");
  return all;
}

std::string request_bytes(const std::string& method, const std::string& path, const std::string& body) {
  return fmt::format(
      "{} {} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer secret\r\n"
      "Content-Length: {}\r\n\r\n{}",
      method, path, body.size(), body);
}

constexpr const char* kChat = R"({"model": "tiny", "messages": [{"role": "system", "content": "Be kind."},
{"role": "user", "content": [{"type": "text", "text": "Hi \u20ac"}]}, {"role": "assistant", "content": null, "tool_calls":
[{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Rome\"}"}}]},
{"role": "tool", "tool_call_id": "call_1", "content": "sunny"}], "max_tokens": 40, "temperature": 0, "top_p": 0.9, "seed": 7,
"stop": ["\n\n", "END"], "n": 1, "logprobs": true, "top_logprobs": 2, "logit_bias": {"65": -1.5}, "stream": true,
"stream_options": {"include_usage": true}, "tools": [{"type": "function", "function": {"name": "weather", "parameters":
{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}], "tool_choice": "auto"})";
constexpr const char* kConstrained = R"({"messages": [{"role": "user", "content": "Hi"}], "seed": 1, "response_format":
{"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": {"a": {"type": "integer",
"minimum": 3, "multipleOf": 2}, "b": {"enum": ["x", "y", null]}, "c": {"$ref": "#/$defs/d"}}, "required": ["a", "c"],
"additionalProperties": false, "$defs": {"d": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+$",
"maxLength": 5}, "maxItems": 3, "uniqueItems": false}}}}}})";
constexpr const char* kCompletion = R"({"prompt": ["Once", [72, 105]], "max_tokens": 16, "echo": true, "logprobs": 2, "n": 2,
"temperature": 0.5, "guided_regex": "(ab|c)*d{2,3}[^x]", "min_tokens": 1, "stop_token_ids": [10], "ignore_eos": true})";
constexpr const char* kResponse = R"({"input": [{"type": "message", "role": "user", "content": [{"type": "input_text",
"text": "Hi"}]}, {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}, {"type": "function_call_output",
"call_id": "c", "output": "5"}], "instructions": "Be kind.", "max_output_tokens": 30, "stream": true, "store": true, "text":
{"format": {"type": "json_object"}}, "metadata": {"a": "b"}, "include": ["message.output_text.logprobs"]})";
constexpr const char* kMessage = R"({"model": "tiny", "max_tokens": 30, "system": [{"type": "text", "text": "Be kind."}],
"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f",
"input": {"a": 1}}]}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "5"}]}],
"stop_sequences": ["END"], "tools": [{"name": "f", "input_schema": {"type": "object"}}], "tool_choice": {"type": "any"},
"temperature": 0, "stream": true, "thinking": {"type": "disabled"}})";
constexpr const char* kGrammar =
    R"({"prompt": "Hi", "guided_grammar": "root ::= (\"a\" | digit+ | other){2,3} \"\\n\"\ndigit ::= [0-9]\nother ::= [^a-c] root?"})";

// Chats that are pipelined on one connection, in both forms of a body.
std::string sample_connection() {
  return request_bytes("POST", "/v1/chat/completions", R"({"messages": [{"role": "user", "content": "Hi"}]})") +
         "POST /v1/completions?a=%20b HTTP/1.1\r\nHost: x\r\nX-Api-Key: secret\r\nTransfer-Encoding: chunked\r\n"
         "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n"
         "9;a=\"b\"\r\n{\"prompt\"\r\n7\r\n: \"Hi\"}\r\n0\r\nTrailer: x\r\n\r\n" +
         request_bytes("POST", "/tokenize", R"({"content": "Hi"})") +
         "GET /v1/models/ti%6Ey HTTP/1.1\r\nHost: x\r\n"
         "Authorization: Bearer secret\r\nOrigin: https://example.org\r\n\r\n"
         "OPTIONS /v1/messages HTTP/1.1\r\nHost: x\r\nOrigin: https://example.org\r\nAccess-Control-Request-Method: POST\r\n"
         "Access-Control-Request-Headers: x-stainless-os, content-type\r\n\r\n"
         "HEAD /metrics HTTP/1.0\r\nX-Api-Key: secret\r\nConnection: close\r\n\r\n";
}

Format body_of(const char* name, const char* path, const char* sample) {
  return {name, [sample] { return std::string(sample); },
          [path](const std::string& bytes) {
            HttpRequest request{
                .method = "POST", .path = path, .query = {}, .headers = {}, .body = bytes, .client = "127.0.0.1"};
            request.headers = {{"x-api-key", "secret"}};
            const auto [status, size] = server().answer(std::move(request));
            if (status >= 400) throw DataError(fmt::format("refused with status {}", status));
            return fmt::format("{} {}", status, size);
          }};
}

}  // namespace

std::vector<Format> request_formats() {
  return {{"http", sample_connection, read_connection},
          body_of("chat_request", "/v1/chat/completions", kChat),
          body_of("schema_request", "/v1/chat/completions", kConstrained),
          body_of("completion_request", "/v1/completions", kCompletion),
          body_of("grammar_request", "/v1/completions", kGrammar),
          body_of("responses_request", "/v1/responses", kResponse),
          body_of("anthropic_request", "/v1/messages", kMessage)};
}

}  // namespace nanochat::testing
