#include "serving/internal/loading_stream.h"

#include <utility>

namespace nanochat {

void LoadingStream::wait(HttpExchange& exchange) {
  // The exchange calls this function itself, and drops it at its end.
  exchange.on_quiet([self = shared_from_this(), &exchange] { self->begin(exchange); });
}

void LoadingStream::begin(HttpExchange& exchange) {
  const std::lock_guard lock(mutex_);
  if (waiting_ && !std::exchange(begun_, true)) exchange.respond(event_stream(shared_from_this()));
}

bool LoadingStream::end_wait() {
  const std::lock_guard lock(mutex_);
  waiting_ = false;
  return begun_;
}

void LoadingStream::follow(std::shared_ptr<HttpBodyStream> answer, HttpExchange& exchange) {
  {
    const std::lock_guard lock(mutex_);
    answer_ = std::move(answer);
  }
  exchange.wake();
}

void LoadingStream::end(std::string events, HttpExchange& exchange) {
  {
    const std::lock_guard lock(mutex_);
    rest_ = std::move(events);
  }
  exchange.wake();
}

bool LoadingStream::read(std::string& out) {
  std::shared_ptr<HttpBodyStream> answer;
  {
    const std::lock_guard lock(mutex_);
    answer = answer_;
    out += rest_;
    if (answer == nullptr) return rest_.empty();
  }
  return answer->read(out);
}

}  // namespace nanochat
