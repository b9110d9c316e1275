#pragma once
// Internal to distributed: the key-value store at which the processes of a run meet, c10d's TCPStore. Rank 0 or the
// launcher holds it. No call waits longer than it is told to, whatever the other side does.

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

// Where address and port were given, for messages.
struct Said {
  const char *address, *port;
};

// Listens until destroyed.
class StoreServer {
 public:
  // At `address` and `port`; 0: a free one. everywhere: at every address of this machine. Throws ConfigError for a
  // taken port or an address of another machine.
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

// The connection broke, or nothing came back in time.
class StoreLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// One connection. Calls from one thread at a time; after StoreLost, none.
class StoreClient {
 public:
  // Tries until the deadline; `waiting` is called once when that takes long, with what has failed so far. Throws
  // ConfigError when no host of this name is found or something else answers, DistributedError at the deadline.
  StoreClient(const std::string& address, int port, Clock::time_point deadline,
              const std::function<void(const std::string&)>& waiting = nullptr);
  ~StoreClient();
  StoreClient(const StoreClient&) = delete;
  StoreClient& operator=(const StoreClient&) = delete;

  void set_prefix(const std::string& prefix);  // of every key from now on
  void set_limit(Milliseconds limit) { limit_ = limit; }
  // Asked while a call waits; true ends it with StoreLost.
  void set_give_up(std::function<bool()> give_up) { give_up_ = std::move(give_up); }

  void set(const std::string& key, const std::string& value);
  std::optional<std::string> find(const std::string& key);
  std::vector<std::optional<std::string>> find_all(const std::vector<std::string>& keys);
  std::int64_t add(const std::string& key, std::int64_t amount);  // the sum
  std::string set_once(const std::string& key,
                       const std::string& value);           // what stands there, from whoever came first
  bool wait(const std::string& key, Milliseconds at_most);  // is it there?
  void remove(const std::string& key);
  // One round of a watch: sets a key of its own, and finds others.
  std::vector<std::optional<std::string>> exchange(const std::string& key, const std::string& value,
                                                   const std::vector<std::string>& keys);

  const std::string& local_address() const { return local_address_; }  // of this end, by which the server was reached
  const std::string& server_address() const { return server_address_; }  // as a number
  c10::intrusive_ptr<c10d::Store> c10d_store() const;

 private:
  void call(std::function<void(c10d::Store&)> work, Milliseconds extra = Milliseconds(0));

  struct Connection;
  std::unique_ptr<Connection> connection_;
  std::string local_address_, server_address_;
  Milliseconds limit_{60'000};
  std::function<bool()> give_up_;
};

// c10d writes warnings with stack traces to standard error; errors come as exceptions anyway. TORCH_CPP_LOG_LEVEL,
// where set, stays.
void quiet_c10d();

std::string host_name();
bool is_host_name(const std::string& address);  // and no number, such as 10.0.0.1 or fe80::1

}  // namespace nanochat::distributed
