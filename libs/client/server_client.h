#pragma once
// A client of `nanochat serve`, and of other servers with OpenAI's chats and completions. Answers are streamed.
//
//   ServerClient client({.url = "http://127.0.0.1:8000"});
//   const ServerAnswer answer = client.chat({{"messages", messages}, {"max_tokens", 100}}, [](std::string_view text) { ... });
//
// For one thread at a time; use one object per thread.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "tokenizer/chat_history.h"

namespace nanochat {

struct ServerOptions {
  std::string url;      // http:// or https://, host and port; with or without /v1
  std::string api_key = {};  // empty: none is sent
  std::function<bool()> stopped = {};  // polled at least ten times per second; true ends the answer as "cancelled"
};

// An error that the server answered with.
class ServerError : public DataError {
 public:
  ServerError(int status, std::string code, const std::string& message)
      : DataError(message), status_(status), code_(std::move(code)) {}
  int status() const { return status_; }                // of HTTP; 200: the error came in the stream
  const std::string& api_code() const { return code_; }  // "context_length_exceeded"; may be empty

 private:
  int status_;
  std::string code_;
};

struct ServerAnswer {
  std::string text = {};
  std::vector<Calculation> calculations = {};  // what the calculator of the server computed, with offsets in `text`
  std::string finish_reason = {};              // "stop", "length", ...; "cancelled" if `stopped` ended it
  std::int64_t prompt_tokens = 0, completion_tokens = 0;
  double first_seconds = 0.0;  // from the request to the first text (TTFT)
  double total_seconds = 0.0;
};

class ServerClient {
 public:
  using OnText = std::function<void(std::string_view)>;

  explicit ServerClient(ServerOptions options);  // throws ConfigError for a URL that is not one
  ~ServerClient();

  // Sends the body of POST /v1/chat/completions or /v1/completions; "stream" is added. `on_text` gets the text as it comes, in a
  // chat with calculations as "<<6*7=42>>" where they were made. Throws ServerError, IoError if the server cannot be reached
  // or ends the connection early, and DataError for an answer that is not in the protocol.
  ServerAnswer chat(nlohmann::ordered_json body, const OnText& on_text = {});
  ServerAnswer complete(nlohmann::ordered_json body, const OnText& on_text = {});

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

// The messages of a conversation as chats take them, with calculations in "nanochat_calculations".
nlohmann::ordered_json api_messages(const Conversation& conversation);

}  // namespace nanochat
