#include "serving/http_server.h"

#include <atomic>
#include <deque>
#include <list>
#include <mutex>
#include <thread>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/log.h"
#include "serving/internal/http_connection.h"

namespace nanochat {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
constexpr auto kAsTuple = asio::as_tuple(asio::use_awaitable);

std::unique_ptr<asio::ssl::context> tls_context(const HttpServerOptions& options) {
  if (options.tls_certificate.empty() != options.tls_key.empty()) {
    throw ConfigError("TLS: found only one of certificate and key, expected both");
  }
  if (options.tls_certificate.empty()) return nullptr;
  auto context = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_server);
  ::SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  boost::system::error_code error;
  context->use_certificate_chain_file(options.tls_certificate.string(), error);
  if (error)
    throw ConfigError(fmt::format("{}: expected a certificate in PEM format: {}", options.tls_certificate.string(),
                                  error.message()));
  context->use_private_key_file(options.tls_key.string(), asio::ssl::context::pem, error);
  if (error) {
    throw ConfigError(fmt::format("{}: expected the private key of {} in PEM format: {}", options.tls_key.string(),
                                  options.tls_certificate.string(), error.message()));
  }
  return context;
}

}  // namespace

class HttpServer::Impl {
 public:
  Impl(const HttpServerOptions& options, HttpHandler handler, HttpErrorResponse error_response)
      : options_(options), tls_(tls_context(options)), workers_(static_cast<std::size_t>(options.worker_threads)),
        settings_(std::make_shared<ConnectionSettings>()) {
    settings_->limits = options.limits;
    settings_->handler = std::move(handler);
    settings_->error_response = std::move(error_response);
    settings_->workers = &workers_;
    for (int i = 0; i < options.io_threads; ++i) {
      contexts_.emplace_back(1);  // one thread each, so connections need no locks
      wakes_.push_back(std::make_shared<WakeList>(contexts_.back().get_executor()));
      deadline_timers_.emplace_back(contexts_.back());
    }
    acceptor_ = std::make_unique<tcp::acceptor>(contexts_[0]);
    retry_ = std::make_unique<asio::steady_timer>(contexts_[0]);
    listen();
  }
  ~Impl() { stop(std::chrono::milliseconds(0)); }

  void start() {
    asio::co_spawn(
        contexts_[0], [this] { return accept_loop(); }, asio::detached);
    for (std::size_t i = 0; i < contexts_.size(); ++i) {
      asio::co_spawn(
          contexts_[i], [this, i] { return check_deadlines(i); }, asio::detached);
    }
    for (asio::io_context& context : contexts_) {
      work_.push_back(asio::make_work_guard(context));
      threads_.emplace_back([&context] { context.run(); });
    }
  }

  int port() const { return port_; }

  std::size_t connections() const {
    const std::lock_guard lock(mutex_);
    return connections_.size();
  }

  void close_after_responses() { settings_->closing = true; }

  void stop(std::chrono::milliseconds grace) {
    if (std::exchange(stopped_, true)) return;
    settings_->closing = settings_->stopping = true;
    if (!threads_.empty()) {
      asio::post(contexts_[0], [this] {
        acceptor_->close();
        retry_->cancel();
      });
      for_each_connection([](HttpConnection& connection) { connection.signal(); });
      const auto end = std::chrono::steady_clock::now() + grace;
      while (connections() > 0 && std::chrono::steady_clock::now() < end) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
      for_each_connection([](HttpConnection& connection) { connection.close(); });
      ended_ = true;
      for (std::size_t i = 0; i < contexts_.size(); ++i) asio::post(contexts_[i], [this, i] { deadline_timers_[i].cancel(); });
    }
    workers_.join();
    work_.clear();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  struct Entry {
    std::weak_ptr<HttpConnection> connection;
    asio::io_context* context;
  };

  void listen() {
    boost::system::error_code error;
    tcp::resolver resolver(contexts_[0]);
    const auto addresses = resolver.resolve(options_.host, std::to_string(options_.port), tcp::resolver::passive, error);
    if (error || addresses.empty()) {
      throw ConfigError(fmt::format("host: found \"{}\" ({}), expected an address or a name of this machine", options_.host,
                                    error ? error.message() : "it has no address"));
    }
    const tcp::endpoint endpoint = *addresses.begin();
    acceptor_->open(endpoint.protocol(), error);
    if (!error) acceptor_->set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_->bind(endpoint, error);
    if (!error) acceptor_->listen(asio::socket_base::max_listen_connections, error);
    if (error) throw IoError(fmt::format("cannot listen on {} port {}: {}", options_.host, options_.port, error.message()));
    port_ = acceptor_->local_endpoint().port();
  }

  asio::awaitable<void> accept_loop() {
    std::size_t next = 0;
    while (acceptor_->is_open()) {
      const std::size_t thread = next++ % contexts_.size();
      asio::io_context& context = contexts_[thread];
      bool full = connections() >= static_cast<std::size_t>(options_.max_connections);
      if (!full) {
        auto [error, socket] = co_await acceptor_->async_accept(context, kAsTuple);
        if (!error) {
          accept(std::move(socket), thread);
          continue;
        }
        if (error == asio::error::operation_aborted) break;
        full = true;  // probably no file descriptor is left
        log_warn("cannot accept a connection: {}", error.message());
      }
      retry_->expires_after(std::chrono::milliseconds(20));
      co_await retry_->async_wait(kAsTuple);
    }
  }

  asio::awaitable<void> check_deadlines(std::size_t thread) {
    while (!ended_) {
      deadline_timers_[thread].expires_after(HttpConnection::kDeadlineCheck);
      co_await deadline_timers_[thread].async_wait(kAsTuple);
      std::vector<std::shared_ptr<HttpConnection>> connections;  // released without the lock: the last one takes it
      {
        const std::lock_guard lock(mutex_);
        for (const Entry& entry : connections_) {
          if (entry.context != &contexts_[thread]) continue;
          if (auto connection = entry.connection.lock()) connections.push_back(std::move(connection));
        }
      }
      for (const auto& connection : connections) connection->check_deadline();
    }
  }

  void accept(tcp::socket socket, std::size_t thread) {
    asio::io_context& context = contexts_[thread];
    boost::system::error_code error;
    const tcp::endpoint peer = socket.remote_endpoint(error);
    if (error) return;
    socket.set_option(tcp::no_delay(true), error);  // sends each token at once
    auto stream = tls_ ? tls_stream(std::move(socket), *tls_) : plain_stream(std::move(socket));
    const auto entry = [&] {
      const std::lock_guard lock(mutex_);
      return connections_.insert(connections_.end(), Entry{{}, &context});
    }();
    // The deleter removes the entry from the list when the last coroutine of the connection has ended.
    const std::shared_ptr<HttpConnection> connection(new HttpConnection(context.get_executor(), std::move(stream),
                                                                        peer.address().to_string(), settings_, wakes_[thread]),
                                                     [this, entry](HttpConnection* gone) {
                                                       delete gone;
                                                       const std::lock_guard lock(mutex_);
                                                       connections_.erase(entry);
                                                     });
    {
      const std::lock_guard lock(mutex_);
      entry->connection = connection;
    }
    asio::post(context, [connection] { connection->start(); });
  }

  // Calls `function` for each connection, on the thread of the connection.
  template <class Function>
  void for_each_connection(Function function) {
    const std::lock_guard lock(mutex_);
    for (const Entry& entry : connections_) {
      asio::post(*entry.context, [weak = entry.connection, function] {
        if (const auto connection = weak.lock()) function(*connection);
      });
    }
  }

  HttpServerOptions options_;
  std::unique_ptr<asio::ssl::context> tls_;
  asio::thread_pool workers_;
  std::shared_ptr<ConnectionSettings> settings_;
  mutable std::mutex mutex_;
  std::list<Entry> connections_;
  std::deque<asio::io_context> contexts_;
  std::vector<std::shared_ptr<WakeList>> wakes_;  // of each context
  std::deque<asio::steady_timer> deadline_timers_;  // of each context
  std::atomic<bool> ended_{false};                  // all connections were closed
  std::unique_ptr<tcp::acceptor> acceptor_;
  std::unique_ptr<asio::steady_timer> retry_;
  std::vector<asio::executor_work_guard<asio::io_context::executor_type>> work_;
  std::vector<std::thread> threads_;
  int port_ = 0;
  bool stopped_ = false;
};

HttpServer::HttpServer(const HttpServerOptions& options, HttpHandler handler, HttpErrorResponse error_response)
    : impl_(std::make_unique<Impl>(options, std::move(handler), std::move(error_response))) {}
HttpServer::~HttpServer() = default;
void HttpServer::start() { impl_->start(); }
int HttpServer::port() const { return impl_->port(); }
std::size_t HttpServer::connections() const { return impl_->connections(); }
void HttpServer::close_after_responses() { impl_->close_after_responses(); }
void HttpServer::stop(std::chrono::milliseconds grace) { impl_->stop(grace); }

}  // namespace nanochat
