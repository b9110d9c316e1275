#pragma once
// What lies between the connections (http_connection.h) and what answers (api.h): a request, a response, and the exchange
// that binds the two. No socket and no JSON here.

#include <functional>
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
  std::string query;    // as sent, without '?'
  HttpHeaders headers;  // names in lower case
  std::string body;
  std::string client;   // address of the peer
  std::string_view header(std::string_view lower_case_name) const;  // empty when absent; the first of several
};

// A body whose end is not known when it begins. Both calls come from the thread of the connection.
class HttpBodyStream {
 public:
  virtual ~HttpBodyStream() = default;
  // Appends what there is by now, possibly nothing. False: nothing will follow. What is not read stays with the stream, in
  // its shortest form: a client that reads slowly must not let text pile up in front of it.
  virtual bool read(std::string& out) = 0;
  // To be sent when nothing has been for a while, so that proxies keep the connection open.
  virtual std::string_view keep_alive() const = 0;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  HttpHeaders headers = {};  // beside Content-Type and those of the framing
  std::string body = {};
  std::shared_ptr<HttpBodyStream> stream = {};  // set: in place of body
};

// One request and its response. Thread-safe; functions given to it are called on the connection's thread.
class HttpExchange {
 public:
  explicit HttpExchange(HttpRequest request) : request_(std::move(request)) {}
  virtual ~HttpExchange() = default;
  HttpExchange(const HttpExchange&) = delete;
  HttpExchange& operator=(const HttpExchange&) = delete;
  const HttpRequest& request() const { return request_; }
  // Headers that the response shall have whoever gives it. Before anybody else knows of the exchange.
  void add_headers(HttpHeaders headers) { added_headers_ = std::move(headers); }

  virtual void respond(HttpResponse response) = 0;  // once; later calls do nothing
  virtual void wake() = 0;                          // the stream of the response has something to read
  // Called once when the client went away before the response was complete, at once if it has gone already.
  virtual void on_gone(std::function<void()> function) = 0;
  // Called when there has been no response for as long as keep_alive() would wait.
  virtual void on_quiet(std::function<void()> function) = 0;
  // Called once with the status and the bytes of the body that were sent, when the exchange is over.
  virtual void on_end(std::function<void(int status, std::size_t bytes)> function) = 0;

 protected:
  const HttpHeaders& added_headers() const { return added_headers_; }

 private:
  HttpRequest request_;
  HttpHeaders added_headers_;
};

// Called on the connection's thread for a request without a body, on a worker's for one with. Must not throw.
using HttpHandler = std::function<void(std::shared_ptr<HttpExchange>)>;
// The response to what is not HTTP, or too large, or too slow: 400, 408, 413, 431, 501, 505.
using HttpErrorResponse = std::function<HttpResponse(int status, std::string_view reason)>;

std::string_view status_text(int status);  // "Not Found"
// Status line and headers, with the empty line behind them. `framing`: "Content-Length: 5\r\n" and the like.
std::string response_head(const HttpResponse& response, std::string_view framing, bool keep_alive);
// nullopt-like: false for a target that is neither absolute path nor URL, or has a bad escape or a zero byte.
bool split_target(std::string_view target, std::string& path, std::string& query);

}  // namespace nanochat
