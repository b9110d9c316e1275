#include "serving/internal/http_connection.h"

#include <algorithm>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <spdlog/fmt/fmt.h>

#include "serving/internal/connection_exchange.h"
#include "serving/internal/request_parser.h"

namespace nanochat {
namespace {

namespace asio = boost::asio;
constexpr auto kAsTuple = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t kLeastRead = 512, kMostRead = 16 << 10;  // bytes of the buffer of a read
constexpr std::size_t kReadAhead = 64 << 10;  // bytes of later requests to read while one is answered
constexpr std::size_t kLingerBytes = 16 << 20;  // limits of finish()
constexpr std::chrono::milliseconds kLingerTime{2000};

}  // namespace

void WakeList::wake(std::weak_ptr<HttpConnection> connection) {
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(connection));
    if (waiting_.size() > 1) return;  // the message to the thread has been posted
  }
  asio::post(executor_, [self = shared_from_this()] { self->deliver(); });
}

void WakeList::deliver() {
  std::vector<std::weak_ptr<HttpConnection>> woken;
  {
    const std::lock_guard lock(mutex_);
    woken.swap(waiting_);
  }
  for (const auto& weak : woken) {
    if (const auto connection = weak.lock()) connection->signal();
  }
}

HttpConnection::HttpConnection(const asio::any_io_executor& executor, std::unique_ptr<ByteStream> stream, std::string client,
                               std::shared_ptr<const ConnectionSettings> settings, std::shared_ptr<WakeList> wakes)
    : executor_(executor), stream_(std::move(stream)), client_(std::move(client)), settings_(std::move(settings)),
      wakes_(std::move(wakes)), event_(executor), room_(executor) {}

void HttpConnection::start() {
  // The only possible exception is running out of memory. It ends this connection and no other.
  const auto self = shared_from_this();
  const auto done = [self](const std::exception_ptr&) { self->close(); };
  asio::co_spawn(
      executor_, [self] { return self->run(); }, done);
}

void HttpConnection::signal() {
  signalled_ = true;
  event_.cancel();
}

void HttpConnection::close() {
  closed_ = ended_ = true;
  stream_->close();
  room_.cancel();
  signal();
}

asio::awaitable<bool> HttpConnection::event(std::optional<std::chrono::milliseconds> limit) {
  if (!signalled_) {
    if (limit) {
      event_.expires_after(*limit);
    } else {
      event_.expires_at(Clock::time_point::max());
    }
    co_await event_.async_wait(kAsTuple);
  }
  co_return std::exchange(signalled_, false);
}

void HttpConnection::consume(std::size_t bytes) {
  input_.erase(0, bytes);
  if (input_.empty() && input_.capacity() > kLeastRead) input_ = std::string();  // the room of a large body
  if (input_.size() < kReadAhead) room_.cancel();
}

// ------------------------------------------------------------------------------------------------- the two coroutines

asio::awaitable<void> HttpConnection::read_loop() {
  std::string bytes(kLeastRead, '\0');  // larger while reads fill it
  while (!closed_) {
    if (input_.size() >= kReadAhead) {
      room_.expires_at(Clock::time_point::max());
      co_await room_.async_wait(kAsTuple);
      continue;
    }
    const auto [error, n] = co_await stream_->read(bytes.data(), bytes.size());
    input_.append(bytes.data(), n);
    if (error) ended_ = true;
    signal();
    if (error) break;
    const std::size_t size = n == bytes.size() ? std::min(4 * n, kMostRead) : kLeastRead;
    if (size != bytes.size()) bytes = std::string(size, '\0');
  }
}

void HttpConnection::check_deadline() {
  if (closed_ || Clock::now() < deadline_) return;
  no_deadline();
  if (reading_request_ && !late_) {
    late_ = true;
    signal();
  } else {
    close();
  }
}

asio::awaitable<void> HttpConnection::run() {
  const auto self = shared_from_this();
  set_deadline(settings_->limits.header_time);
  const ByteStream::Error failed = co_await stream_->handshake();
  if (!failed) {
    asio::co_spawn(
        executor_, [self] { return self->read_loop(); }, [self](const std::exception_ptr&) {});
    while (!closed_) {
      set_deadline(settings_->limits.idle_time);
      while (input_.empty() && !ended_ && !settings_->stopping) co_await event();
      if (input_.empty()) break;
      Incoming incoming = co_await read_request();
      if (incoming.error < 0) break;
      if (incoming.error > 0) {
        const HttpResponse response = settings_->error_response(incoming.error, incoming.reason, incoming.request);
        co_await write_whole(incoming, response);
        break;
      }
      const bool more = co_await answer(incoming);
      if (!more) break;
    }
    co_await finish();
  }
  close();
}

// Closing a connection with unread input resets it, and the client might never see the response (RFC 9112 9.6). So this reads
// and discards input for a while.
asio::awaitable<void> HttpConnection::finish() {
  if (closed_ || ended_) co_return;
  const auto end = Clock::now() + kLingerTime;
  reading_request_ = false;
  deadline_ = end;
  co_await stream_->finish();
  std::size_t dropped = 0;
  while (!ended_ && dropped < kLingerBytes && Clock::now() < end) {
    dropped += input_.size();
    consume(input_.size());
    co_await event();
  }
}

// -------------------------------------------------------------------------------------------------------------- requests

asio::awaitable<HttpConnection::Incoming> HttpConnection::read_request() {
  const HttpLimits& limits = settings_->limits;
  Incoming incoming;
  RequestParser parser(limits.header_bytes, limits.body_bytes);
  const auto begun = Clock::now();
  reading_request_ = true;
  late_ = false;
  set_deadline(limits.header_time);
  bool expectation_met = false;
  while (true) {
    const RequestParser::State state = parser.parse(input_);
    consume(parser.consumed());
    if (state == RequestParser::State::kError) {
      incoming.error = parser.error();
      incoming.reason = parser.reason();
      break;
    }
    if (state == RequestParser::State::kDone) break;
    if (state == RequestParser::State::kBody) {
      if (parser.expects_continue() && !expectation_met && input_.empty()) {
        const bool written = co_await write("HTTP/1.1 100 Continue\r\n\r\n");
        if (!written) ended_ = true;
      }
      expectation_met = true;
      deadline_ = std::min(Clock::now() + limits.body_time, begun + limits.request_time);
    }
    if (ended_) {
      incoming.error = -1;
      break;
    }
    co_await event();
    if (late_) {
      incoming.error = 408;
      incoming.reason = "the request did not arrive in time";
      break;
    }
  }
  reading_request_ = false;
  no_deadline();
  incoming.http10 = parser.http10();
  incoming.keep_alive = incoming.error == 0 && parser.keep_alive();
  incoming.request = parser.take();
  incoming.request.client = client_;
  co_return incoming;
}

// ------------------------------------------------------------------------------------------------------------- responses

asio::awaitable<bool> HttpConnection::answer(Incoming& incoming) {
  const bool has_body = !incoming.request.body.empty();
  const std::weak_ptr<HttpConnection> weak = weak_from_this();
  const auto exchange = std::make_shared<ConnectionExchange>(std::move(incoming.request),
                                                             [weak, wakes = wakes_] { wakes->wake(weak); });
  if (has_body) {
    asio::post(*settings_->workers, [settings = settings_, exchange] { settings->handler(exchange); });
  } else {
    settings_->handler(exchange);
  }
  incoming.request.method = exchange->request().method;

  std::optional<HttpResponse> response;
  while (true) {
    response = exchange->take_response();
    if (response || ended_) break;
    const bool signalled = co_await event(settings_->limits.keep_alive_time);
    if (!signalled) exchange->quiet();
  }
  bool written = false;
  std::size_t sent = 0;
  if (response) {
    incoming.keep_alive = incoming.keep_alive && !settings_->closing && !(response->stream && incoming.http10);
    if (response->stream && incoming.request.method != "HEAD") {
      written = co_await write_stream(incoming, *response, sent);
    } else {
      written = co_await write_whole(incoming, *response);
      sent = response->body.size();
    }
  }
  const int status = written ? response->status : 499;  // nginx's status for a client that disconnected
  if (!written) exchange->gone();
  exchange->end(status, sent);
  const bool more = written && incoming.keep_alive;
  co_return more;
}

asio::awaitable<bool> HttpConnection::write(std::string_view bytes) {
  const bool reading = std::exchange(reading_request_, false);
  set_deadline(settings_->limits.write_time);
  const ByteStream::Error failed = co_await stream_->write(bytes);
  no_deadline();
  reading_request_ = reading;
  co_return !failed && !closed_;
}

asio::awaitable<bool> HttpConnection::write_whole(const Incoming& incoming, const HttpResponse& response) {
  const bool no_body = response.status == 204;
  const std::string framing = no_body ? std::string() : fmt::format("Content-Length: {}\r\n", response.body.size());
  std::string bytes = response_head(response, framing, incoming.keep_alive);
  if (!no_body && incoming.request.method != "HEAD") bytes += response.body;
  const bool written = co_await write(bytes);
  co_return written;
}

asio::awaitable<bool> HttpConnection::write_stream(const Incoming& incoming, const HttpResponse& response, std::size_t& sent) {
  const bool chunked = !incoming.http10;
  std::string out = response_head(response, chunked ? "Transfer-Encoding: chunked\r\n" : "", incoming.keep_alive);
  bool more = true;
  while (more) {
    if (ended_) co_return false;
    std::string piece;
    more = response.stream->read(piece);
    if (piece.empty() && more && out.empty()) {
      const bool signalled = co_await event(settings_->limits.keep_alive_time);
      if (signalled) continue;
      piece = response.stream->keep_alive();
    }
    if (!piece.empty()) {
      sent += piece.size();
      out += chunked ? fmt::format("{:x}\r\n{}\r\n", piece.size(), piece) : piece;
    }
    if (!more && chunked) out += "0\r\n\r\n";
    if (out.empty()) continue;
    const bool written = co_await write(out);
    if (!written) co_return false;
    out.clear();
  }
  co_return true;
}

}  // namespace nanochat
