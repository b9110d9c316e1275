#pragma once
// An HTTP/1.1 server. It reads requests, passes them to a handler, and writes whole responses and streams. It supports
// keep-alive, pipelining, Content-Length and chunked bodies, HTTP/1.0, "Expect: 100-continue" and TLS. Users of this header do
// not see Boost.Asio and Beast.
//
// A request with both Content-Length and Transfer-Encoding is refused and its connection closed, because two servers could read
// it differently (request smuggling, RFC 9112 6.3). A connection keeps reading while its request is answered, and so it notices
// at once if the client disconnects.
//
//   HttpServer server({.port = 0}, handler, error_response);
//   server.start();
//   ...
//   server.stop(std::chrono::seconds(10));

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "serving/http_message.h"

namespace nanochat {

// The number behind a limit is the status of the response to a request that exceeds it.
struct HttpLimits {
  std::size_t header_bytes = 32 << 10;  // request line and headers: 431
  std::size_t body_bytes = 8 << 20;  // 413
  std::chrono::milliseconds header_time{10'000};  // from the first byte of a request to the end of its headers: 408
  std::chrono::milliseconds body_time{30'000};  // between two pieces of a body: 408
  std::chrono::milliseconds request_time{300'000};  // from its first byte to the end of its body: 408
  std::chrono::milliseconds idle_time{75'000};  // between two requests
  std::chrono::milliseconds write_time{30'000};  // for the client to receive what is written
  std::chrono::milliseconds keep_alive_time{10'000};  // without data in a stream, until HttpBodyStream::keep_alive() is sent
};

struct HttpServerOptions {
  std::string host = "127.0.0.1";  // address or name
  int port = 8000;  // 0: any free port
  std::int64_t max_connections = 1024;  // further ones wait in the kernel's queue
  int io_threads = 1;
  int worker_threads = 2;  // for handlers of requests with a body, which parse and tokenize it
  std::filesystem::path tls_certificate = {}, tls_key = {};  // PEM files, the first with its chain; both or none
  HttpLimits limits;
};

class HttpServer {
 public:
  // Binds the port. Throws ConfigError for a host that does not exist or a certificate that cannot be used, and IoError with
  // the address if the port is in use.
  HttpServer(const HttpServerOptions& options, HttpHandler handler, HttpErrorResponse error_response);
  ~HttpServer();  // calls stop()
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  void start();
  int port() const;  // the port that it listens on
  std::size_t connections() const;  // number of open connections
  // From now on, each response is the last one of its connection. New connections are still accepted, so that load balancers get
  // the answer of /health.
  void close_after_responses();
  // Accepts no further connections, waits for up to `grace` until responses that have begun end, closes all connections and
  // ends the threads.
  void stop(std::chrono::milliseconds grace = std::chrono::milliseconds(0));

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanochat
