#pragma once
// For tests only: what the parser of connections makes of bytes, in whatever pieces they arrive.

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serving/internal/request_parser.h"

namespace nanochat::testing {

// What a connection has received: its requests, and what ended it, if that is an error.
struct Received {
  std::vector<HttpRequest> requests;
  int error = 0;  // HTTP status
  std::string reason;
  HttpRequest refused;  // what was understood of the request with the error
};

// Parses the bytes of a connection, which arrive in pieces of `piece` bytes, up to their end, an error, or a request that closes
// the connection.
inline Received receive(std::string_view bytes, std::size_t piece, std::size_t header_bytes, std::size_t body_bytes) {
  Received received;
  std::string input;
  std::optional<RequestParser> parser(std::in_place, header_bytes, body_bytes);
  while (true) {
    const RequestParser::State state = parser->parse(input);
    input.erase(0, parser->consumed());
    if (state == RequestParser::State::kError) {
      received.error = parser->error();
      received.reason = parser->reason();
      received.refused = parser->take();
      return received;
    }
    if (state == RequestParser::State::kDone) {
      const bool more = parser->keep_alive();
      received.requests.push_back(parser->take());
      parser.emplace(header_bytes, body_bytes);
      if (!more) return received;
      continue;
    }
    if (bytes.empty()) return received;
    input += bytes.substr(0, piece);
    bytes.remove_prefix(std::min(piece, bytes.size()));
  }
}

}  // namespace nanochat::testing
