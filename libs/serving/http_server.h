#pragma once
// An HTTP/1.1 server: listens, reads requests, hands them to a handler, writes responses whole or as they come. Boost.Asio and
// Beast stay behind this header. Supports keep-alive, pipelining, Content-Length and chunked bodies, HTTP/1.0, Expect:
// 100-continue and TLS; a request that two servers could read differently (both Content-Length and Transfer-Encoding, RFC 9112
// 6.3) is refused and its connection closed.
//
// While a request is being answered the connection goes on reading, so that a client that went away is noticed at once.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "serving/http_message.h"

namespace nanochat {

struct HttpLimits {
  std::size_t header_bytes = 32 << 10;       // request line and headers: 431 beyond
  std::size_t body_bytes = 8 << 20;          // 413 beyond
  std::chrono::milliseconds header_time{10'000};  // from the first byte of a request to the end of its headers: 408
  std::chrono::milliseconds body_time{30'000};    // between two pieces of a body: 408
  std::chrono::milliseconds request_time{300'000};  // from its first byte to the end of its body: 408
  std::chrono::milliseconds idle_time{75'000};    // between two requests
  std::chrono::milliseconds write_time{30'000};   // for the client to take what is written to it
  std::chrono::milliseconds keep_alive_time{10'000};  // silence of a stream before a comment is sent
};

struct HttpServerOptions {
  std::string host = "127.0.0.1";  // address or name
  int port = 8000;                 // 0: one that is free
  std::int64_t max_connections = 1024;  // more wait to be accepted
  int io_threads = 1;
  int worker_threads = 2;          // handlers of requests with a body: parsing and tokenizing
  std::filesystem::path tls_certificate = {}, tls_key = {};  // PEM, the certificate's chain behind it; both or none
  HttpLimits limits;
};

class HttpServer {
 public:
  // Binds. Throws ConfigError for a host that is none or a certificate that cannot be used, IoError naming the address when it
  // is taken.
  HttpServer(const HttpServerOptions& options, HttpHandler handler, HttpErrorResponse error_response);
  ~HttpServer();  // stop()
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  void start();
  int port() const;  // that it listens on
  std::size_t connections() const;  // now
  // Accepts no more, lets responses that have begun end for at most `grace`, closes everything and ends the threads.
  void stop(std::chrono::milliseconds grace = std::chrono::milliseconds(0));

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanochat
