#pragma once
// Internal to distributed: the key-value store through which the processes of a run find each other (c10d's TCPStore). Rank 0
// or the launcher hosts it. Every call returns within its time limit, whatever the other side does.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <c10/util/intrusive_ptr.h>

#include "distributed/failure.h"

namespace c10d {
class Store;
}

namespace nanochat::distributed {

// The options or variables that set address and port, for messages.
struct Said {
  const char *address, *port;
};

// Listens until destroyed.
class StoreServer {
 public:
  // Listens at `address` and `port` (0: any free port), or with `everywhere` at every address of this machine. Throws
  // ConfigError for a port in use or an address of another machine.
  StoreServer(const std::string& address, int port, bool everywhere, const Said& said);
  ~StoreServer();
  StoreServer(const StoreServer&) = delete;
  StoreServer& operator=(const StoreServer&) = delete;
  int port() const { return port_; }

 private:
  struct Server;  // keeps c10d's headers out of this one
  int port_ = 0;
  std::unique_ptr<Server> server_;
};

// The connection broke, or there was no answer in time.
class StoreLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// One connection, for one thread at a time. Do not use it after StoreLost.
class StoreClient {
 public:
  // Tries to connect until the deadline. If this takes long, it calls `waiting` once with the last error. Throws ConfigError if
  // the host name is unknown or another service answers, and DistributedError at the deadline.
  StoreClient(const std::string& address, int port, Clock::time_point deadline,
              const std::function<void(const std::string&)>& waiting = nullptr);
  ~StoreClient();
  StoreClient(const StoreClient&) = delete;
  StoreClient& operator=(const StoreClient&) = delete;

  void set_prefix(const std::string& prefix);  // for every key from now on
  void set_limit(Milliseconds limit) { limit_ = limit; }
  // Called while a call waits; if it returns true, the call throws StoreLost.
  void set_give_up(std::function<bool()> give_up) { give_up_ = std::move(give_up); }

  void set(const std::string& key, const std::string& value);
  std::optional<std::string> find(const std::string& key);
  std::vector<std::optional<std::string>> find_all(const std::vector<std::string>& keys);
  std::int64_t add(const std::string& key, std::int64_t amount);  // returns the sum
  std::string set_once(const std::string& key,
                       const std::string& value);  // returns the value, which the first caller has set
  bool wait(const std::string& key, Milliseconds at_most);  // returns true if the key exists
  void remove(const std::string& key);
  // One round of the watchdog: sets its own key and reads others.
  std::vector<std::optional<std::string>> exchange(const std::string& key, const std::string& value,
                                                   const std::vector<std::string>& keys);

  const std::string& local_address() const { return local_address_; }  // of this side of the connection
  const std::string& server_address() const { return server_address_; }  // as an IP address
  c10::intrusive_ptr<c10d::Store> c10d_store() const;

 private:
  void call(std::function<void(c10d::Store&)> work, Milliseconds extra = Milliseconds(0));

  struct Connection;
  std::unique_ptr<Connection> connection_;
  std::string local_address_, server_address_;
  Milliseconds limit_{60'000};
  std::function<bool()> give_up_;
};

// Silences c10d's warnings with stack traces on standard error; its errors are exceptions as well. Does nothing if
// TORCH_CPP_LOG_LEVEL is set.
void quiet_c10d();

std::string host_name();
bool is_host_name(const std::string& address);  // false for IP addresses such as 10.0.0.1 or fe80::1

}  // namespace nanochat::distributed
