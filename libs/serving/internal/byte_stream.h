#pragma once
// A connected socket, plain or with TLS. At most one read and one write may be pending at a time. Not thread-safe.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/system/error_code.hpp>

namespace boost::asio::ssl {
class context;
}

namespace nanochat {

class ByteStream {
 public:
  using Error = boost::system::error_code;
  virtual ~ByteStream() = default;
  virtual boost::asio::awaitable<Error> handshake() = 0;
  virtual boost::asio::awaitable<std::pair<Error, std::size_t>> read(char* data, std::size_t size) = 0;
  virtual boost::asio::awaitable<Error> write(std::string_view bytes) = 0;  // writes all bytes
  virtual boost::asio::awaitable<void> finish() = 0;  // call after the last write
  virtual void close() = 0;                           // closes at once; pending operations end with an error
};

std::unique_ptr<ByteStream> plain_stream(boost::asio::ip::tcp::socket socket);
std::unique_ptr<ByteStream> tls_stream(boost::asio::ip::tcp::socket socket, boost::asio::ssl::context& context);

}  // namespace nanochat
