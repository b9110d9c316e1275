#include "distributed/store.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <thread>

#include <c10/util/Exception.h>
#include <c10/util/Logging.h>
#include <spdlog/fmt/fmt.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "distributed/communicator.h"

namespace nanochat::distributed {
namespace {

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  Socket(Socket&& other) noexcept : fd_(other.release()) {}
  Socket& operator=(Socket&&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

struct Addresses {
  explicit Addresses(const std::string& host, int port, int flags = 0) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = flags | AI_NUMERICSERV;
    error = ::getaddrinfo(host.empty() ? nullptr : host.c_str(), std::to_string(port).c_str(), &hints, &list);
  }
  ~Addresses() {
    if (list != nullptr) ::freeaddrinfo(list);
  }
  Addresses(const Addresses&) = delete;
  Addresses& operator=(const Addresses&) = delete;
  std::string why() const { return error == EAI_SYSTEM ? std::strerror(errno) : ::gai_strerror(error); }

  addrinfo* list = nullptr;
  int error = 0;
};

std::string numeric(const sockaddr* address, socklen_t size) {
  std::array<char, NI_MAXHOST> host{};
  const int error = ::getnameinfo(address, size, host.data(), host.size(), nullptr, 0, NI_NUMERICHOST);
  return error == 0 ? host.data() : "";
}

Milliseconds until(Clock::time_point deadline) {
  return std::max(Milliseconds(0), std::chrono::duration_cast<Milliseconds>(deadline - Clock::now()));
}

// Without a descriptor, and with `error`, when that is not possible.
Socket listen_at(const addrinfo& place, int& error) {
  Socket socket(::socket(place.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int yes = 1, no = 0;
  if (socket.get() >= 0) {
    ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (place.ai_family == AF_INET6) ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    if (::bind(socket.get(), place.ai_addr, place.ai_addrlen) == 0 && ::listen(socket.get(), 4096) == 0) return socket;
  }
  error = errno;
  return Socket(-1);
}

int port_of(int fd) {
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size);
  return ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                           : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
}

// An empty text when connected, else what failed.
std::string connect_to(const addrinfo& address, Milliseconds at_most, std::string& local) {
  const Socket socket(::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket.get() < 0) return std::strerror(errno);
  int error = ::connect(socket.get(), address.ai_addr, address.ai_addrlen) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    pollfd waiting{.fd = socket.get(), .events = POLLOUT, .revents = 0};
    const int ready = ::poll(&waiting, 1, static_cast<int>(at_most.count()));
    if (ready == 0) return "no answer";
    socklen_t size = sizeof error;
    if (ready < 0 || ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
  }
  if (error != 0) return std::strerror(error);
  sockaddr_storage mine{};
  socklen_t size = sizeof mine;
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&mine), &size) == 0) {
    local = numeric(reinterpret_cast<sockaddr*>(&mine), size);
  }
  return "";
}

}  // namespace

std::string host_name() {
  std::array<char, HOST_NAME_MAX + 1> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "this machine";
}

bool is_host_name(const std::string& address) {
  const Addresses number(address, 0, AI_NUMERICHOST);
  return number.error != 0;
}

void quiet_c10d() {
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = c10::GLOG_FATAL;
}

struct StoreServer::Server {
  c10::intrusive_ptr<c10d::Store> store;
};
struct StoreClient::Connection {
  c10::intrusive_ptr<c10d::Store> root, store;  // without and with the prefix
};

StoreServer::StoreServer(const std::string& address, int port, bool everywhere, const Said& said) {
  quiet_c10d();
  int error = 0;
  // "::" takes connections over IPv4 too; a machine without IPv6 has "0.0.0.0".
  for (const std::string& one : everywhere ? std::vector<std::string>{"::", "0.0.0.0"} : std::vector{address}) {
    const Addresses addresses(one, port, AI_PASSIVE);
    if (addresses.error != 0) {
      throw ConfigError(fmt::format("{} {} cannot be found: {}", said.address, address, addresses.why()));
    }
    for (const addrinfo* place = addresses.list; place != nullptr && error != EADDRINUSE; place = place->ai_next) {
      Socket socket = listen_at(*place, error);
      if (socket.get() < 0) continue;
      port_ = port_of(socket.get());
      c10d::TCPStoreOptions options;
      options.port = static_cast<std::uint16_t>(port_);
      options.isServer = true;
      options.waitWorkers = false;
      options.timeout = Milliseconds(10'000);
      options.masterListenFd = socket.release();
      const std::string host = numeric(place->ai_addr, place->ai_addrlen);
      const std::string reached = host == "::" ? "::1" : host == "0.0.0.0" ? "127.0.0.1" : host;
      server_ = std::make_unique<Server>(Server{c10::make_intrusive<c10d::TCPStore>(reached, options)});
      return;
    }
  }
  if (error == EADDRINUSE) {
    throw ConfigError(fmt::format("{} {} is taken by another program on {}; choose another", said.port, port, host_name()));
  }
  if (error == EADDRNOTAVAIL) {
    throw ConfigError(fmt::format("{} {} is no address of {}, where rank 0 runs; give one of that machine", said.address,
                                  address, host_name()));
  }
  throw ConfigError(fmt::format("cannot listen at {} {}, {} {}: {}", said.address, address, said.port, port,
                                std::strerror(error)));
}

StoreServer::~StoreServer() = default;

StoreClient::StoreClient(const std::string& address, int port, Clock::time_point deadline,
                         const std::function<void(const std::string&)>& waiting) {
  quiet_c10d();
  constexpr Milliseconds kOneTry(2000), kSpeakAfter(5000), kFindWithin(10'000), kHandshake(10'000);
  const Clock::time_point start = Clock::now();
  bool spoke = false;
  for (Milliseconds pause(50);; pause = std::min(pause * 2, Milliseconds(1000))) {
    const Addresses addresses(address, port);
    std::string why = "no host of this name is found: " + addresses.why();
    if (addresses.error == 0) {
      for (const addrinfo* one = addresses.list; one != nullptr; one = one->ai_next) {
        why = connect_to(*one, std::min(kOneTry, until(deadline) + Milliseconds(1)), local_address_);
        if (why.empty()) {
          server_address_ = numeric(one->ai_addr, one->ai_addrlen);
          break;
        }
      }
      if (why.empty()) break;
    } else if (Clock::now() - start > kFindWithin || Clock::now() + pause >= deadline) {
      throw ConfigError(fmt::format("MASTER_ADDR {}: {}", address, why));
    }
    if (Clock::now() + pause >= deadline) {
      throw DistributedError(ExitCode::kOther,
                             fmt::format("rank 0 cannot be reached at {}:{} (MASTER_ADDR, MASTER_PORT) within {:.0f} s: {}",
                                         address, port, std::chrono::duration<double>(deadline - start).count(), why));
    }
    if (!spoke && waiting && Clock::now() - start > kSpeakAfter) {
      spoke = true;
      waiting(fmt::format("waiting for rank 0 at {}:{}: {}", address, port, why));
    }
    std::this_thread::sleep_for(pause);
  }
  const Milliseconds limit = std::min(kHandshake, until(deadline) + Milliseconds(1000));
  // A write to a process that is gone is then an error of c10d, which names it, and not the silent end of this one.
  std::signal(SIGPIPE, SIG_IGN);
  const auto store = std::make_shared<c10::intrusive_ptr<c10d::Store>>();
  bool answered = false;
  try {
    answered = bounded(limit + Milliseconds(1000), [store, host = server_address_, port, limit] {
      c10d::TCPStoreOptions options;
      options.port = static_cast<std::uint16_t>(port);
      options.waitWorkers = false;
      options.timeout = limit;
      *store = c10::make_intrusive<c10d::TCPStore>(host, options);
    });
  } catch (const std::exception&) {  // it closed the connection, or spoke another protocol
  }
  if (!answered) {
    throw ConfigError(fmt::format(
        "what answers at {}:{} (MASTER_ADDR, MASTER_PORT) is not rank 0 of a run; choose another port", address, port));
  }
  connection_ = std::make_unique<Connection>(Connection{*store, *store});
}

StoreClient::~StoreClient() = default;

void StoreClient::set_prefix(const std::string& prefix) {
  connection_->store = c10::make_intrusive<c10d::PrefixStore>(prefix, connection_->root);
}

c10::intrusive_ptr<c10d::Store> StoreClient::c10d_store() const { return connection_->store; }

void StoreClient::call(std::function<void(c10d::Store&)> work, Milliseconds extra) {
  bool answered = false;
  try {
    answered = bounded(
        limit_ + extra, [store = connection_->store, work = std::move(work)] { work(*store); }, give_up_);
  } catch (const c10::DistStoreError&) {
    throw;  // a wait that came to its end
  } catch (const std::exception&) {
    throw StoreLost("the connection broke");
  }
  if (!answered) throw StoreLost(fmt::format("no answer for {:.1f} s", std::chrono::duration<double>(limit_).count()));
}

void StoreClient::set(const std::string& key, const std::string& value) {
  call([=](c10d::Store& store) { store.set(key, value); });
}

std::vector<std::optional<std::string>> StoreClient::find_all(const std::vector<std::string>& keys) {
  const auto found = std::make_shared<std::vector<std::optional<std::string>>>(keys.size());
  call([=](c10d::Store& store) {
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (store.check({keys[i]})) (*found)[i] = store.get_to_str(keys[i]);
    }
  });
  return *found;
}

std::optional<std::string> StoreClient::find(const std::string& key) { return find_all({key}).front(); }

std::int64_t StoreClient::add(const std::string& key, std::int64_t amount) {
  const auto sum = std::make_shared<std::int64_t>(0);
  call([=](c10d::Store& store) { *sum = store.add(key, amount); });
  return *sum;
}

std::string StoreClient::set_once(const std::string& key, const std::string& value) {
  const auto standing = std::make_shared<std::string>();
  call([=](c10d::Store& store) { *standing = store.compareSet(key, std::string(), value); });
  return *standing;
}

bool StoreClient::wait(const std::string& key, Milliseconds at_most) {
  try {
    call([=](c10d::Store& store) { store.wait({key}, at_most); }, at_most);
    return true;
  } catch (const c10::DistStoreError&) {
    return false;
  }
}

void StoreClient::remove(const std::string& key) {
  call([=](c10d::Store& store) { store.deleteKey(key); });
}

std::vector<std::optional<std::string>> StoreClient::exchange(const std::string& key, const std::string& value,
                                                              const std::vector<std::string>& keys) {
  const auto found = std::make_shared<std::vector<std::optional<std::string>>>(keys.size());
  call([=](c10d::Store& store) {
    store.set(key, value);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (store.check({keys[i]})) (*found)[i] = store.get_to_str(keys[i]);
    }
  });
  return *found;
}

}  // namespace nanochat::distributed
