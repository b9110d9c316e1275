#pragma once
// The stream of a request whose model is being loaded. Its head is sent when a keep-alive is due, so that neither the client nor
// a proxy gives up; then it has only keep-alives, until an answer or an error follows. Thread-safe.

#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "serving/http_message.h"
#include "serving/internal/answer_format.h"

namespace nanochat {

class LoadingStream : public HttpBodyStream, public std::enable_shared_from_this<LoadingStream> {
 public:
  // Sends the head when the exchange is quiet for too long, as long as the model is being loaded.
  void wait(HttpExchange& exchange);
  // The model has been loaded, or cannot be. Returns whether the head of the stream has been sent; it is not sent afterwards.
  bool end_wait();
  // If the head has been sent, one of these gives the rest of the stream: an answer that is read, or events, which are not empty.
  void follow(std::shared_ptr<HttpBodyStream> answer, HttpExchange& exchange);
  void end(std::string events, HttpExchange& exchange);

  bool read(std::string& out) override;
  std::string_view keep_alive() const override { return kKeepAlive; }

 private:
  void begin(HttpExchange& exchange);

  std::mutex mutex_;
  bool waiting_ = true, begun_ = false;
  std::shared_ptr<HttpBodyStream> answer_;
  std::string rest_;
};

}  // namespace nanochat
