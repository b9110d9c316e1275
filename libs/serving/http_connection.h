#pragma once
// Internal to serving: one connection, from its handshake to its end. Three coroutines on one thread: run() parses requests and
// writes responses, read_loop() always has a read pending, watch() ends what takes too long.

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>

#include "serving/byte_stream.h"
#include "serving/http_server.h"

namespace nanochat {

// What all connections of a server share.
struct ConnectionSettings {
  HttpLimits limits;
  HttpHandler handler;
  HttpErrorResponse error_response;
  boost::asio::thread_pool* workers = nullptr;
  std::atomic<bool> stopping{false};
};

class ConnectionExchange;
class HttpConnection;

// The connections of one thread that others want it to look at. A step of the engine gives tokens to many of them at about
// the same time, and a message each would cost more than what is written.
class WakeList : public std::enable_shared_from_this<WakeList> {
 public:
  explicit WakeList(boost::asio::any_io_executor executor) : executor_(std::move(executor)) {}
  void wake(std::weak_ptr<HttpConnection> connection);  // from any thread: it is signalled on its own

 private:
  void deliver();

  boost::asio::any_io_executor executor_;
  std::mutex mutex_;
  std::vector<std::weak_ptr<HttpConnection>> waiting_;
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(boost::asio::any_io_executor executor, std::unique_ptr<ByteStream> stream, std::string client,
                 std::shared_ptr<const ConnectionSettings> settings, std::shared_ptr<WakeList> wakes);
  void start();  // on its thread, as everything else
  void signal();  // something happened that run() may wait for
  void close();  // at once

 private:
  using Clock = std::chrono::steady_clock;
  template <class T>
  using Awaitable = boost::asio::awaitable<T>;
  struct Incoming {
    HttpRequest request;
    bool http10 = false;
    bool keep_alive = false;
    int error = 0;  // a status: what came is no request; -1: the client went away
    std::string reason;
  };

  Awaitable<void> run();
  Awaitable<void> read_loop();
  Awaitable<void> watch();
  Awaitable<Incoming> read_request();
  Awaitable<bool> answer(Incoming& incoming);  // false: the connection ends
  Awaitable<bool> write_whole(const Incoming& incoming, const HttpResponse& response);
  Awaitable<bool> write_stream(const Incoming& incoming, const HttpResponse& response, std::size_t& sent);
  Awaitable<bool> write(std::string_view bytes);
  Awaitable<void> finish();
  Awaitable<bool> event(std::optional<std::chrono::milliseconds> limit = {});  // false: the time passed
  void set_deadline(std::chrono::milliseconds time) { deadline_ = Clock::now() + time; }
  void no_deadline() { deadline_ = Clock::time_point::max(); }
  void consume(std::size_t bytes);

  boost::asio::any_io_executor executor_;
  std::unique_ptr<ByteStream> stream_;
  std::string client_;
  std::shared_ptr<const ConnectionSettings> settings_;
  std::shared_ptr<WakeList> wakes_;  // of its thread
  boost::asio::steady_timer event_, room_, watchdog_;
  Clock::time_point deadline_ = Clock::time_point::max();
  std::string input_;  // received, not yet parsed
  bool signalled_ = false;
  bool ended_ = false;  // the client sends no more
  bool reading_request_ = false;  // being late is answered, then
  bool late_ = false;
  bool closed_ = false;
};

}  // namespace nanochat
