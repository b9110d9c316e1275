#pragma once
// Internal to serving: the exchange of one request on a connection, between its thread and those that answer.

#include <cstddef>
#include <functional>
#include <mutex>
#include <optional>

#include "serving/http_message.h"

namespace nanochat {

class ConnectionExchange : public HttpExchange {
 public:
  // `notify`: from any thread, tells the connection to look again.
  ConnectionExchange(HttpRequest request, std::function<void()> notify);

  void respond(HttpResponse response) override;
  void wake() override;
  void on_gone(std::function<void()> function) override;
  void on_quiet(std::function<void()> function) override;
  void on_end(std::function<void(int status, std::size_t bytes)> function) override;

  // The connection's side.
  std::optional<HttpResponse> take_response();
  void quiet();
  void gone();
  void end(int status, std::size_t bytes);

 private:
  std::function<void()> notify_;
  std::mutex mutex_;
  std::optional<HttpResponse> response_;
  bool responded_ = false;
  bool gone_ = false;
  std::function<void()> on_gone_, on_quiet_;
  std::function<void(int, std::size_t)> on_end_;
};

}  // namespace nanochat
