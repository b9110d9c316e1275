// The server over the loopback, by raw sockets: what clients do that no client library would.
#include "serving/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <thread>

#include <gmock/gmock.h>

#include "core/errors.h"
#include "core/testing.h"
#include "serving/api_error.h"
#include "serving/internal/connection_exchange.h"

namespace nanochat {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using namespace std::chrono_literals;

class Client {
 public:
  explicit Client(int port, int receive_buffer = 0) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer > 0) ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  ~Client() { close(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  // False when the server has closed.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }
  // Until `end` has come, the server closes, or `limit` passes.
  std::string receive(std::string_view end = {}, std::chrono::milliseconds limit = 5000ms) {
    const auto until = std::chrono::steady_clock::now() + limit;
    std::string bytes = std::exchange(left_, {});
    while (end.empty() || bytes.find(end) == std::string::npos) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
      pollfd input{fd_, POLLIN, 0};
      if (left <= 0ms || ::poll(&input, 1, static_cast<int>(left.count())) <= 0) break;
      char buffer[65536];
      const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
      if (n <= 0) {
        closed_ = true;
        break;
      }
      bytes.append(buffer, static_cast<std::size_t>(n));
    }
    if (!end.empty()) {
      if (const std::size_t found = bytes.find(end); found != std::string::npos) {
        left_ = bytes.substr(found + end.size());
        bytes.resize(found + end.size());
      }
    }
    return bytes;
  }
  bool closed() const { return closed_; }
  int fd() const { return fd_; }

 private:
  int fd_;
  std::string left_;
  bool closed_ = false;
};

// Counts up for ever, or to the end that a test sets.
class Counting : public HttpBodyStream {
 public:
  explicit Counting(int end) : end_(end) {}
  bool read(std::string& out) override {
    for (int piece = 0; piece < 1000 && sent_ < limit && sent_ < end_; ++piece) out += std::to_string(sent_++) + " ";
    return sent_ < end_;
  }
  std::string_view keep_alive() const override { return ": wait\n\n"; }
  std::atomic<int> limit{1 << 30};

 private:
  int sent_ = 0, end_;
};

// The body names what was understood of the request.
HttpResponse error_response(int status, std::string_view reason, const HttpRequest& request) {
  return {.status = status, .body = std::string(reason) + " [" + request.method + " " + request.path + "]"};
}

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest() {
    options_.port = 0;
    options_.limits.header_bytes = 4096;
    options_.limits.body_bytes = 1 << 20;
    options_.limits.keep_alive_time = 100ms;
  }
  void start() {
    server_ = std::make_unique<HttpServer>(
        options_, [this](std::shared_ptr<HttpExchange> exchange) { answer(exchange); }, error_response);
    server_->start();
  }
  int port() {
    if (!server_) start();
    return server_->port();
  }
  void answer(const std::shared_ptr<HttpExchange>& exchange) {
    const HttpRequest& request = exchange->request();
    if (request.path == "/stream") {
      exchange->respond({.content_type = "text/plain", .stream = std::make_shared<Counting>(3)});
    } else if (request.path == "/endless") {
      exchange->respond({.content_type = "text/plain", .stream = std::make_shared<Counting>(1 << 30)});
      exchange->on_gone([this] { ++gone_; });
    } else if (request.path == "/idle") {
      auto stream = std::make_shared<Counting>(3);
      stream->limit = 1;
      exchange->respond({.content_type = "text/plain", .stream = stream});
      exchange->on_gone([this] { ++gone_; });
    } else if (request.path == "/woken") {
      const std::lock_guard lock(mutex_);
      woken_ = std::make_shared<Counting>(3);
      woken_->limit = 1;
      exchange->on_quiet([this] { ++quiet_; });
      exchange->on_end([this](int status, std::size_t bytes) { ended_ = status * 1000 + static_cast<int>(bytes); });
      exchange->respond({.content_type = "text/plain", .stream = woken_});
      waiting_.push_back(exchange);
    } else if (request.path == "/never") {
      exchange->on_gone([this] { ++gone_; });
      exchange->on_quiet([this] { ++quiet_; });
      const std::lock_guard lock(mutex_);
      waiting_.push_back(exchange);
    } else {
      exchange->respond({.body = request.method + " " + request.path + " " + std::to_string(request.body.size())});
    }
  }
  static bool soon(const std::function<bool()>& condition) {
    for (int i = 0; i < 500; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(10ms);
    }
    return false;
  }
  // The next request is served, whatever became of those before.
  void expect_alive() {
    Client client(port());
    client.send("GET /alive HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    EXPECT_THAT(client.receive(), EndsWith("GET /alive 0"));
  }

  HttpServerOptions options_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<HttpExchange>> waiting_;
  std::shared_ptr<Counting> woken_;
  std::atomic<int> gone_{0}, quiet_{0}, ended_{0};
  std::unique_ptr<HttpServer> server_;  // ends first
};

TEST_F(HttpServerTest, KeepsAConnectionAliveAndAnswersInOrder) {
  Client client(port());
  client.send(
      "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nPOST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
      "HEAD /3 HTTP/1.1\r\nHost: x\r\n\r\nGET /4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string all = client.receive();
  EXPECT_TRUE(client.closed());
  EXPECT_THAT(all, HasSubstr("\r\n\r\nGET /1 0HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(all, HasSubstr("\r\n\r\nPOST /2 3HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(all, HasSubstr("Content-Length: 9\r\nConnection: keep-alive\r\n\r\nHTTP/1.1 200 OK\r\n"));  // HEAD: no body
  EXPECT_THAT(all, EndsWith("Connection: close\r\n\r\nGET /4 0"));
}

TEST_F(HttpServerTest, SpeaksHttp10) {
  Client client(port());
  client.send("GET /stream HTTP/1.0\r\n\r\n");
  const std::string all = client.receive();
  EXPECT_TRUE(client.closed());
  EXPECT_THAT(all, EndsWith("\r\n\r\n0 1 2 "));
  EXPECT_EQ(all.find("chunked"), std::string::npos);
}

TEST_F(HttpServerTest, StreamsInChunks) {
  Client client(port());
  client.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(client.receive("0\r\n\r\n"),
              EndsWith("Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n6\r\n0 1 2 \r\n0\r\n\r\n"));
  client.send("GET /again HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(client.receive("GET /again 0"), StartsWith("HTTP/1.1 200 OK"));
}

TEST_F(HttpServerTest, SendsCommentsWhileNothingComes) {
  Client client(port());
  client.send("GET /idle HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(client.receive(": wait\n\n\r\n8\r\n: wait\n\n"), HasSubstr("2\r\n0 \r\n"));
}

TEST_F(HttpServerTest, GoesOnWhenItIsWokenAndSaysWhenItEnds) {
  options_.limits.keep_alive_time = 60s;
  Client client(port());
  client.send("GET /woken HTTP/1.0\r\n\r\n");
  EXPECT_THAT(client.receive("\r\n\r\n0 "), EndsWith("\r\n\r\n0 "));
  EXPECT_EQ(ended_, 0);
  {
    const std::lock_guard lock(mutex_);
    woken_->limit = 3;
    waiting_.front()->wake();
  }
  EXPECT_EQ(client.receive(), "1 2 ");
  EXPECT_TRUE(soon([&] { return ended_ != 0; }));
  EXPECT_EQ(ended_, 200 * 1000 + 6);
  EXPECT_EQ(quiet_, 0);
}

TEST_F(HttpServerTest, SaysWhenAResponseIsLongInComing) {
  Client client(port());
  client.send("GET /never HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(soon([&] { return quiet_ > 0; }));
}

TEST_F(HttpServerTest, AsksForABodyThatWaitsToBeAskedFor) {
  Client client(port());
  client.send("POST /b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
  EXPECT_EQ(client.receive("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("abc");
  EXPECT_THAT(client.receive("POST /b 3"), HasSubstr("200 OK"));
  client.send("POST /b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n");
  EXPECT_THAT(client.receive(), StartsWith("HTTP/1.1 413 "));  // and not 100
}

TEST_F(HttpServerTest, RefusesALargeBodyAndServesTheNext) {
  Client client(port());
  client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n");
  const std::string piece(1 << 20, 'x');
  for (int i = 0; i < 100 && client.send(piece); ++i) {
  }
  const std::string answer = client.receive();
  if (!answer.empty()) {  // a reset may have come before
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 413 Content Too Large"));
  }
  expect_alive();
  Client polite(port());  // one that stops sending sees the answer
  polite.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n" + piece);
  EXPECT_THAT(polite.receive(), HasSubstr("body: found more than 1048576 bytes"));
}

TEST_F(HttpServerTest, RefusesAmbiguousFramingAndCloses) {
  Client client(port());
  client.send(
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled "
      "HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string all = client.receive();
  EXPECT_THAT(all, StartsWith("HTTP/1.1 400 Bad Request"));
  EXPECT_EQ(all.find("smuggled"), std::string::npos);
  EXPECT_TRUE(client.closed());
  expect_alive();
}

TEST_F(HttpServerTest, SurvivesWhatIsNotHttp) {
  for (const std::string& bytes :
       {std::string("\x16\x03\x01\x02", 4), std::string(100'000, 'A'), std::string(64, '\0'), std::string("GET\r\n\r\n")}) {
    Client client(port());
    client.send(bytes + "\r\n\r\n");
    EXPECT_THAT(client.receive(), StartsWith("HTTP/1.1 4"));
  }
  expect_alive();
}

TEST_F(HttpServerTest, NoticesAClientThatLeaves) {
  for (const char* path : {"/never", "/idle", "/endless"}) {
    gone_ = 0;
    {
      Client client(port());
      client.send(std::string("GET ") + path + " HTTP/1.1\r\nHost: x\r\n\r\n");
      if (path != std::string("/never")) client.receive("\r\n\r\n");
      std::this_thread::sleep_for(20ms);
    }
    EXPECT_TRUE(soon([&] { return gone_ == 1; })) << path;
  }
  expect_alive();
  EXPECT_TRUE(soon([&] { return server_->connections() == 0; }));
}

// Or the exchange would keep itself, and the request would count as active for ever.
TEST(ConnectionExchange, AClientMayLeaveBeforeTheHandlerBegins) {
  const auto exchange = std::make_shared<ConnectionExchange>(HttpRequest(), [] {});
  exchange->gone();
  exchange->end(499, 7);
  int status = 0;
  std::size_t bytes = 0;
  bool gone = false;
  exchange->on_end([&, exchange](int s, std::size_t b) { status = s, bytes = b; });
  exchange->on_gone([&, exchange] { gone = true; });
  EXPECT_EQ(status, 499);
  EXPECT_EQ(bytes, 7u);
  EXPECT_TRUE(gone);
  EXPECT_EQ(exchange.use_count(), 1) << "it keeps itself";
}

TEST_F(HttpServerTest, EndsWhatTakesTooLong) {
  options_.limits.header_time = 300ms;
  options_.limits.body_time = 300ms;
  options_.limits.idle_time = 300ms;
  options_.limits.write_time = 300ms;
  Client slow(port());
  slow.send("GET / HT");
  EXPECT_THAT(slow.receive(), StartsWith("HTTP/1.1 408 "));
  Client body(port());
  body.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab");
  const std::string late = body.receive();
  EXPECT_THAT(late, StartsWith("HTTP/1.1 408 "));
  EXPECT_THAT(late, EndsWith("[POST /]"));  // its headers had come
  Client idle(port());
  EXPECT_EQ(idle.receive(), "");
  EXPECT_TRUE(idle.closed());
  Client unread(port(), 4096);
  unread.send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(soon([&] { return gone_ == 1; }));
}

TEST_F(HttpServerTest, LetsResponsesEndWhenItStops) {
  Client client(port());
  client.send("GET /never HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(soon([&] {
    const std::lock_guard lock(mutex_);
    return waiting_.size() == 1;
  }));
  std::thread stopping([&] { server_->stop(5000ms); });
  std::this_thread::sleep_for(50ms);
  waiting_[0]->respond({.body = "late"});
  EXPECT_THAT(client.receive(), EndsWith("Connection: close\r\n\r\nlate"));
  client.close();
  stopping.join();
}

TEST_F(HttpServerTest, ClosesConnectionsAfterTheirResponses) {
  Client open(port()), next(port());
  open.send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(open.receive("GET /1 0"), HasSubstr("Connection: keep-alive"));
  server_->close_after_responses();
  for (Client* client : {&open, &next}) {  // one that was kept alive, and one without a request so far
    client->send("GET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_THAT(client->receive(), EndsWith("Connection: close\r\n\r\nGET /2 0"));
    EXPECT_TRUE(client->closed());
  }
  expect_alive();
}

TEST_F(HttpServerTest, WaitsBeyondItsConnections) {
  options_.max_connections = 2;
  Client one(port()), two(port());
  EXPECT_TRUE(soon([&] { return server_->connections() == 2; }));
  Client three(port());
  three.send("GET /3 HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(three.receive("GET /3 0", 200ms), "");
  one.close();
  EXPECT_THAT(three.receive("GET /3 0"), HasSubstr("200 OK"));
}

TEST_F(HttpServerTest, SpeaksTls) {
  const testing::TemporaryDirectory folder;
  options_.tls_certificate = folder / "cert.pem";
  options_.tls_key = folder / "key.pem";
  const std::string make =
      "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost -keyout '" +
      options_.tls_key.string() + "' -out '" + options_.tls_certificate.string() + "' 2> /dev/null";
  if (std::system(make.c_str()) != 0) GTEST_SKIP() << "no program openssl to make a certificate";
  const std::unique_ptr<SSL_CTX, decltype(&::SSL_CTX_free)> context(::SSL_CTX_new(::TLS_client_method()), ::SSL_CTX_free);
  ASSERT_EQ(::SSL_CTX_load_verify_locations(context.get(), options_.tls_certificate.c_str(), nullptr), 1);
  ::SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  for (int i = 0; i < 2; ++i) {
    Client client(port());
    const std::unique_ptr<SSL, decltype(&::SSL_free)> tls(::SSL_new(context.get()), ::SSL_free);
    ::SSL_set_fd(tls.get(), client.fd());
    ASSERT_EQ(::SSL_connect(tls.get()), 1);
    EXPECT_GE(::SSL_version(tls.get()), TLS1_2_VERSION);
    const std::string request = "GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    ASSERT_EQ(::SSL_write(tls.get(), request.data(), static_cast<int>(request.size())), static_cast<int>(request.size()));
    std::string answer;
    char buffer[4096];
    for (int n; (n = ::SSL_read(tls.get(), buffer, sizeof buffer)) > 0;) answer.append(buffer, static_cast<std::size_t>(n));
    EXPECT_THAT(answer, EndsWith("6\r\n0 1 2 \r\n0\r\n\r\n"));
    EXPECT_EQ(::SSL_get_shutdown(tls.get()) & SSL_RECEIVED_SHUTDOWN, SSL_RECEIVED_SHUTDOWN);  // an end, not a cut
    Client plain(port());  // and between the two, one that does not speak it
    plain.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_EQ(plain.receive().find("200 OK"), std::string::npos);
    EXPECT_TRUE(plain.closed());
  }
}

TEST_F(HttpServerTest, SaysWhatItCannotListenOn) {
  HttpServerOptions same = options_;
  same.port = port();
  const auto make = [](const HttpServerOptions& options) {
    HttpServer(
        options, [](std::shared_ptr<HttpExchange>) {}, error_response);
  };
  EXPECT_THROW(make(same), IoError);
  same.port = 0;
  same.tls_certificate = "/nonexistent";
  EXPECT_THROW(make(same), ConfigError);
  same.tls_key = "/nonexistent";
  EXPECT_THROW(make(same), ConfigError);
}

}  // namespace
}  // namespace nanochat
