#pragma once
// ApiError is an error that a client is told of. The fields are those of OpenAI's error object; another protocol can build its
// own error object from them.

#include <stdexcept>
#include <string>

#include "serving/http_message.h"

namespace nanochat {

class ApiError : public std::runtime_error {
 public:
  // Messages quote what clients send: from one that is very long, the middle is left out.
  ApiError(int status, std::string type, std::string message, std::string param = {}, std::string code = {});

  static ApiError invalid(const std::string& message, std::string param = {}, std::string code = {}) {
    return {400, "invalid_request_error", message, std::move(param), std::move(code)};
  }
  static ApiError unavailable(const std::string& message) { return {503, "server_error", message, {}, "unavailable"}; }
  static ApiError busy(const std::string& message) { return {429, "rate_limit_error", message, {}, "rate_limit_exceeded"}; }
  static ApiError internal(const std::string& message) { return {500, "server_error", message, {}, "internal_error"}; }

  // Adds a header to the response: throw ApiError(...).with_header("Allow", "GET").
  ApiError with_header(std::string name, std::string value) &&;

  int status() const { return status_; }
  const std::string& param() const { return param_; }  // the field that is wrong, or empty
  const std::string& code() const { return code_; }
  std::string message() const;  // what(), with bytes that are not UTF-8 as U+FFFD
  // The response as in OpenAI's API. Status 429 and 503 also have the header Retry-After, 1 second if none was added.
  HttpResponse response() const { return response(json()); }
  HttpResponse response(std::string body) const;  // the same with the body of another protocol
  std::string json() const;  // {"error": {"message", "type", "param", "code"}}

 private:
  int status_;
  std::string type_, param_, code_;
  HttpHeaders headers_;
};

inline HttpResponse openai_failure(const ApiError& error) { return error.response(); }

// Call within a catch block: turns the current exception into an ApiError. ConfigError and DataError become status 400, and
// running out of memory becomes 503. Everything else becomes 500 with a general message, and its own message is logged.
ApiError current_api_error();
// The error for bytes that are not a valid HTTP request. See HttpErrorResponse.
ApiError http_error(int status, std::string_view reason);

}  // namespace nanochat
