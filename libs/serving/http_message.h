#pragma once
// The interface between connections (http_server.h) and the code that answers (api.h): a request, a response, and the exchange
// that connects them. It uses neither sockets nor JSON.

#include <chrono>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nanochat {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;   // "GET"
  std::string path;     // percent-decoded, without the query
  std::string query;    // as received, without '?'
  HttpHeaders headers;  // names in lower case
  std::string body;
  std::string client;   // IP address of the peer
  std::string_view header(std::string_view lower_case_name) const;  // the first one of this name; empty if absent
};

// The body of a response that is produced piece by piece. Both functions are called on the connection's thread.
class HttpBodyStream {
 public:
  virtual ~HttpBodyStream() = default;
  // Appends what is new, possibly nothing. Returns false at the end of the body. The stream must store what was not yet read in
  // a form of limited size, because a client may read slowly.
  virtual bool read(std::string& out) = 0;
  // Bytes to send after a time without data, so that proxies keep the connection open.
  virtual std::string_view keep_alive() const = 0;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  HttpHeaders headers = {};  // in addition to Date, Content-Type, Content-Length, Transfer-Encoding and Connection
  std::string body = {};
  std::shared_ptr<HttpBodyStream> stream = {};  // if set, it replaces `body`
};

// One request and its response. Thread-safe. Functions passed to it are called on the connection's thread.
class HttpExchange {
 public:
  explicit HttpExchange(HttpRequest request) : request_(std::move(request)) {}
  virtual ~HttpExchange() = default;
  HttpExchange(const HttpExchange&) = delete;
  HttpExchange& operator=(const HttpExchange&) = delete;
  const HttpRequest& request() const { return request_; }
  std::chrono::steady_clock::time_point arrival() const { return arrival_; }  // when the whole request was there
  // Adds headers to the response. Call it before another thread can use the exchange.
  void add_headers(HttpHeaders headers) {
    added_headers_.insert(added_headers_.end(), std::make_move_iterator(headers.begin()),
                          std::make_move_iterator(headers.end()));
  }

  // Frees the body of a request that has been read. Call it on the handler's thread.
  void drop_body() { request_.body = {}; }

  virtual void respond(HttpResponse response) = 0;  // sends the response; only the first call has an effect
  virtual void wake() = 0;  // says that the stream of the response has something to read
  // `function` is called once if the client disconnects before the response is complete, and at once if it already has.
  virtual void on_gone(std::function<void()> function) = 0;
  // `function` is called when there has been no response for HttpLimits::keep_alive_time.
  virtual void on_quiet(std::function<void()> function) = 0;
  // `function` is called once at the end of the exchange, with the status and the number of bytes of the body that were sent; at
  // once if it has ended, because the client left before the handler began.
  virtual void on_end(std::function<void(int status, std::size_t bytes)> function) = 0;

 protected:
  const HttpHeaders& added_headers() const { return added_headers_; }

 private:
  HttpRequest request_;
  const std::chrono::steady_clock::time_point arrival_ = std::chrono::steady_clock::now();
  HttpHeaders added_headers_;
};

// Answers requests. It is called on the connection's thread if the request has no body, else on a worker thread. It must not
// throw.
using HttpHandler = std::function<void(std::shared_ptr<HttpExchange>)>;
// Returns the response to a request that is not valid HTTP, too large or too slow (400, 408, 413, 417, 431, 501, 505). `request`
// has what was understood of it: its client, maybe its method and path, maybe headers, and no body.
using HttpErrorResponse = std::function<HttpResponse(int status, std::string_view reason, const HttpRequest& request)>;

std::string_view status_text(int status);  // "Not Found"
// The status line, the headers and an empty line. `framing` is a header such as "Content-Length: 5\r\n".
std::string response_head(const HttpResponse& response, std::string_view framing, bool keep_alive);
// Splits the target of a request. Returns false if it is neither an absolute path nor a URL, or has an invalid escape or a zero
// byte.
bool split_target(std::string_view target, std::string& path, std::string& query);

}  // namespace nanochat
