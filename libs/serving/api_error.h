#pragma once
// What a client is told when its request cannot be served. A protocol with an error object of its own makes it of these fields.

#include <stdexcept>
#include <string>

#include "serving/http_message.h"

namespace nanochat {

class ApiError : public std::runtime_error {
 public:
  ApiError(int status, std::string type, const std::string& message, std::string param = {}, std::string code = {})
      : std::runtime_error(message), status_(status), type_(std::move(type)), param_(std::move(param)), code_(std::move(code)) {
  }

  static ApiError invalid(const std::string& message, std::string param = {}, std::string code = {}) {
    return {400, "invalid_request_error", message, std::move(param), std::move(code)};
  }
  static ApiError unavailable(const std::string& message) { return {503, "server_error", message, {}, "unavailable"}; }
  static ApiError busy(const std::string& message) { return {429, "rate_limit_error", message, {}, "rate_limit_exceeded"}; }
  static ApiError internal(const std::string& message) { return {500, "server_error", message, {}, "internal_error"}; }

  // The same with one more header in its response.
  ApiError with_header(std::string name, std::string value) &&;

  int status() const { return status_; }
  // The error object of OpenAI's API, {"error": {"message", "type", "param", "code"}}, with Retry-After for 429 and 503.
  HttpResponse response() const;
  std::string json() const;

 private:
  int status_;
  std::string type_, param_, code_;
  HttpHeaders headers_;
};

inline HttpResponse openai_failure(const ApiError& error) { return error.response(); }

// Of the exception that is being handled: an ApiError itself; 400 for what the engine, the tokenizer or the schema refuse
// (ConfigError, DataError); 503 for want of memory; 500 for anything else, without its text, which is logged.
ApiError current_api_error();
// Of a request that never became one (HttpErrorResponse).
HttpResponse http_error_response(int status, std::string_view reason);

}  // namespace nanochat
