#pragma once
// Internal to serving: bytes to a request, by Beast's parser and the rules of RFC 9112 that it leaves to its user.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "serving/http_message.h"

namespace nanochat {

class RequestParser {
 public:
  enum class State { kHeader, kBody, kDone, kError };

  RequestParser(std::size_t header_bytes, std::size_t body_bytes);
  ~RequestParser();

  // Takes from the front of `input`, which keeps what is not consumed(): part of a line, or the next request.
  State parse(std::string_view input);
  std::size_t consumed() const;  // by the last parse()
  int error() const;             // kError: the status to answer with
  const std::string& reason() const;

  bool http10() const;
  bool keep_alive() const;
  bool expects_continue() const;
  HttpRequest take();  // kDone

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanochat
