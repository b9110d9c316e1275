#pragma once
// Parses the bytes of one HTTP request with Beast's parser, and checks the rules of RFC 9112 that Beast leaves to its user.
//
//   RequestParser parser(32 << 10, 8 << 20);
//   const auto state = parser.parse(input);  // again with more input until kDone or kError
//   input.erase(0, parser.consumed());

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "serving/http_message.h"

namespace nanochat {

class RequestParser {
 public:
  enum class State { kHeader, kBody, kDone, kError };

  RequestParser(std::size_t header_bytes, std::size_t body_bytes);  // limits: status 431 and 413 beyond them
  ~RequestParser();

  // Parses the front of `input`. The caller keeps what was not consumed(): an incomplete line, or the next request.
  State parse(std::string_view input);
  std::size_t consumed() const;  // bytes that the last parse() used
  int error() const;             // after kError: the HTTP status of the response
  const std::string& reason() const;  // after kError: the message

  bool http10() const;
  bool keep_alive() const;
  bool expects_continue() const;
  HttpRequest take();  // once: after kDone the request, before it what has been parsed, without the body

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanochat
