#pragma once
// The exchange of one request that came over a connection. The functions of HttpExchange may be called from any thread; the
// others are called on the connection's thread.

#include <cstddef>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>

#include "serving/http_message.h"

namespace nanochat {

class ConnectionExchange : public HttpExchange {
 public:
  // `notify` tells the connection that there is something new. It is called from any thread.
  ConnectionExchange(HttpRequest request, std::function<void()> notify);

  void respond(HttpResponse response) override;
  void wake() override;
  void on_gone(std::function<void()> function) override;
  void on_quiet(std::function<void()> function) override;
  void on_end(std::function<void(int status, std::size_t bytes)> function) override;

  // Called by the connection. take_response() returns the response once; nullopt before it has come and after it was taken.
  std::optional<HttpResponse> take_response();
  void quiet();                             // calls the function of on_quiet()
  void gone();                              // calls the function of on_gone(), once
  void end(int status, std::size_t bytes);  // calls the function of on_end(), once

 private:
  std::function<void()> notify_;
  std::mutex mutex_;
  std::optional<HttpResponse> response_;
  bool responded_ = false;
  bool gone_ = false;
  std::optional<std::pair<int, std::size_t>> ended_;  // status and bytes
  std::function<void()> on_gone_, on_quiet_;
  std::function<void(int, std::size_t)> on_end_;
};

}  // namespace nanochat
