#include "serving/internal/byte_stream.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

namespace nanochat {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
constexpr auto kAsTuple = asio::as_tuple(asio::use_awaitable);

// The common part of plain and TLS streams. Derived classes add handshake() and finish().
template <class Stream>
class SocketStream : public ByteStream {
 public:
  template <class... Args>
  explicit SocketStream(Args&&... args) : stream_(std::forward<Args>(args)...) {}

  asio::awaitable<std::pair<Error, std::size_t>> read(char* data, std::size_t size) override {
    const auto [error, n] = co_await stream_.async_read_some(asio::buffer(data, size), kAsTuple);
    co_return std::pair<Error, std::size_t>(error, n);
  }
  asio::awaitable<Error> write(std::string_view bytes) override {
    const auto [error, n] = co_await asio::async_write(stream_, asio::buffer(bytes.data(), bytes.size()), kAsTuple);
    co_return error;
  }
  void close() override {
    Error ignored;
    stream_.lowest_layer().close(ignored);
  }

 protected:
  Stream stream_;
};

class PlainStream : public SocketStream<tcp::socket> {
 public:
  using SocketStream::SocketStream;
  asio::awaitable<Error> handshake() override { co_return Error(); }
  asio::awaitable<void> finish() override {
    Error ignored;
    stream_.shutdown(tcp::socket::shutdown_send, ignored);
    co_return;
  }
};

class TlsStream : public SocketStream<asio::ssl::stream<tcp::socket>> {
 public:
  using SocketStream::SocketStream;
  asio::awaitable<Error> handshake() override {
    const auto [error] = co_await stream_.async_handshake(asio::ssl::stream_base::server, kAsTuple);
    co_return error;
  }
  // Sends close_notify, so that the client can tell the end from a cut connection.
  asio::awaitable<void> finish() override { co_await stream_.async_shutdown(kAsTuple); }
};

}  // namespace

std::unique_ptr<ByteStream> plain_stream(tcp::socket socket) { return std::make_unique<PlainStream>(std::move(socket)); }

std::unique_ptr<ByteStream> tls_stream(tcp::socket socket, asio::ssl::context& context) {
  return std::make_unique<TlsStream>(std::move(socket), context);
}

}  // namespace nanochat
