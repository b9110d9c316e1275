#include "serving/internal/connection_exchange.h"

#include <utility>

namespace nanochat {

ConnectionExchange::ConnectionExchange(HttpRequest request, std::function<void()> notify)
    : HttpExchange(std::move(request)), notify_(std::move(notify)) {}

void ConnectionExchange::respond(HttpResponse response) {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(responded_, true)) return;
    response.headers.insert(response.headers.end(), added_headers().begin(), added_headers().end());
    response_ = std::move(response);
  }
  notify_();
}

void ConnectionExchange::wake() { notify_(); }

void ConnectionExchange::on_gone(std::function<void()> function) {
  {
    const std::lock_guard lock(mutex_);
    if (!gone_) {
      if (!ended_) on_gone_ = std::move(function);
      return;
    }
  }
  function();
}

void ConnectionExchange::on_quiet(std::function<void()> function) {
  const std::lock_guard lock(mutex_);
  if (!ended_) on_quiet_ = std::move(function);
}

void ConnectionExchange::on_end(std::function<void(int, std::size_t)> function) {
  {
    const std::lock_guard lock(mutex_);
    if (!ended_) {
      on_end_ = std::move(function);
      return;
    }
  }
  function(ended_->first, ended_->second);  // the client left before the handler began
}

std::optional<HttpResponse> ConnectionExchange::take_response() {
  const std::lock_guard lock(mutex_);
  return std::exchange(response_, std::nullopt);
}

void ConnectionExchange::quiet() {
  std::function<void()> function;
  {
    const std::lock_guard lock(mutex_);
    function = on_quiet_;
  }
  if (function) function();
}

void ConnectionExchange::gone() {
  std::function<void()> function;
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(gone_, true)) return;
    responded_ = true;  // a later response is dropped
    function = std::exchange(on_gone_, nullptr);
  }
  if (function) function();
}

void ConnectionExchange::end(int status, std::size_t bytes) {
  std::function<void(int, std::size_t)> function;
  {
    const std::lock_guard lock(mutex_);
    ended_.emplace(status, bytes);
    function = std::exchange(on_end_, nullptr);
    on_gone_ = on_quiet_ = nullptr;  // breaks cycles: they may own an owner of this exchange, so none is kept after this
  }
  if (function) function(status, bytes);
}

}  // namespace nanochat
