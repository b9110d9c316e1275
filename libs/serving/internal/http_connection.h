#pragma once
// One HTTP connection, from its handshake to its end. It has two coroutines on one I/O thread: run() parses requests and writes
// responses, and read_loop() always has a read pending so that a client that disconnects is noticed. The server calls
// check_deadline() for the time limits. All functions must be called on that thread; other threads use WakeList.
//
// A server may have ten thousand connections that wait, so such a connection holds no large buffer.

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

#include "serving/http_server.h"
#include "serving/internal/byte_stream.h"

namespace nanochat {

// Shared by all connections of a server.
struct ConnectionSettings {
  HttpLimits limits;
  HttpHandler handler;
  HttpErrorResponse error_response;
  boost::asio::thread_pool* workers = nullptr;
  std::atomic<bool> closing{false};  // each response is the last one of its connection
  std::atomic<bool> stopping{false};  // and a connection that waits for a request ends
};

class ConnectionExchange;
class HttpConnection;

// The connections of one I/O thread that have something to do. A step of the engine gives tokens to many connections at about
// the same time. With this list they share one message to the thread; one message per connection would cost more than writing
// the tokens.
class WakeList : public std::enable_shared_from_this<WakeList> {
 public:
  explicit WakeList(boost::asio::any_io_executor executor) : executor_(std::move(executor)) {}
  void wake(std::weak_ptr<HttpConnection> connection);  // thread-safe; calls connection->signal() on its thread

 private:
  void deliver();

  boost::asio::any_io_executor executor_;
  std::mutex mutex_;
  std::vector<std::weak_ptr<HttpConnection>> waiting_;
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(const boost::asio::any_io_executor& executor, std::unique_ptr<ByteStream> stream, std::string client,
                 std::shared_ptr<const ConnectionSettings> settings, std::shared_ptr<WakeList> wakes);
  void start();  // starts the coroutines
  void signal();  // wakes run(), which may be waiting for an event
  void close();  // closes the connection at once
  // Ends what has taken too long. To be called every kDeadlineCheck: deadlines change all the time, and one timer for all
  // connections is cheaper than one for each.
  void check_deadline();
  static constexpr std::chrono::milliseconds kDeadlineCheck{200};

 private:
  using Clock = std::chrono::steady_clock;
  template <class T>
  using Awaitable = boost::asio::awaitable<T>;
  struct Incoming {
    HttpRequest request;
    bool http10 = false;
    bool keep_alive = false;
    int error = 0;  // HTTP status if this is not a valid request; -1: the client disconnected
    std::string reason;
  };

  Awaitable<void> run();
  Awaitable<void> read_loop();
  Awaitable<Incoming> read_request();
  Awaitable<bool> answer(Incoming& incoming);  // returns false if the connection ends
  Awaitable<bool> write_whole(const Incoming& incoming, const HttpResponse& response);
  Awaitable<bool> write_stream(const Incoming& incoming, const HttpResponse& response, std::size_t& sent);
  Awaitable<bool> write(std::string_view bytes);
  Awaitable<void> finish();
  // Waits for signal(). Returns false if it has not come within `limit`.
  Awaitable<bool> event(std::optional<std::chrono::milliseconds> limit = {});
  void set_deadline(std::chrono::milliseconds time) { deadline_ = Clock::now() + time; }
  void no_deadline() { deadline_ = Clock::time_point::max(); }
  void consume(std::size_t bytes);

  boost::asio::any_io_executor executor_;
  std::unique_ptr<ByteStream> stream_;
  std::string client_;
  std::shared_ptr<const ConnectionSettings> settings_;
  std::shared_ptr<WakeList> wakes_;
  boost::asio::steady_timer event_, room_;
  Clock::time_point deadline_ = Clock::time_point::max();
  std::string input_;  // received, but not yet parsed
  bool signalled_ = false;
  bool ended_ = false;  // the client sends nothing more
  bool reading_request_ = false;  // when the deadline passes, send status 408 instead of closing
  bool late_ = false;
  bool closed_ = false;
};

}  // namespace nanochat
