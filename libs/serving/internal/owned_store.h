#pragma once
// Values that the server keeps for its clients, by id. Each value belongs to the API key that stored it: with another key it does
// not exist, and two keys may use the same id. The store is limited in number and bytes, and drops the least recently used value
// first. A value that was not used for the time to live is dropped too. Values are kept in memory. Thread-safe.
//
// A value has the members `std::string owner` and `std::size_t bytes() const`.

#include <chrono>
#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace nanochat {

template <class Value>
class OwnedStore {
 public:
  using Clock = std::chrono::steady_clock;

  // Without `time_to_live`, values do not expire.
  OwnedStore(std::size_t max_count, std::size_t max_bytes, std::optional<Clock::duration> time_to_live = std::nullopt)
      : max_count_(max_count), max_bytes_(max_bytes), time_to_live_(time_to_live) {}

  // Replaces the value that the owner has under this id. Returns false, and then the owner has none under this id, if the value
  // is larger than the whole store.
  bool put(const std::string& id, Value value, Clock::time_point now = Clock::now()) {
    const std::string key = key_of(id, value.owner);
    const std::size_t size = value.bytes() + 2 * key.size() + kEntryBytes;
    auto shared = std::make_shared<const Value>(std::move(value));
    Dropped dropped;  // values are destroyed after the lock: their destructors may do more than free memory
    const std::lock_guard lock(mutex_);
    if (const auto found = places_.find(key); found != places_.end()) drop(found, dropped);
    drop_expired(now, dropped);
    if (max_count_ == 0 || size > max_bytes_) return false;
    while (entries_.size() >= max_count_ || bytes_ + size > max_bytes_) drop(places_.find(entries_.back().key), dropped);
    entries_.push_front({key, std::move(shared), size, now});
    places_.emplace(key, entries_.begin());
    bytes_ += size;
    return true;
  }

  // Null if the owner has no such value. Finding a value is a use of it.
  std::shared_ptr<const Value> find(const std::string& id, const std::string& owner, Clock::time_point now = Clock::now()) {
    Dropped dropped;
    const std::lock_guard lock(mutex_);
    drop_expired(now, dropped);
    const auto found = places_.find(key_of(id, owner));
    if (found == places_.end()) return nullptr;
    found->second->used = now;
    entries_.splice(entries_.begin(), entries_, found->second);
    return found->second->value;
  }

  // Returns false if the owner has no such value.
  bool erase(const std::string& id, const std::string& owner, Clock::time_point now = Clock::now()) {
    Dropped dropped;
    const std::lock_guard lock(mutex_);
    drop_expired(now, dropped);
    const auto found = places_.find(key_of(id, owner));
    if (found == places_.end()) return false;
    drop(found, dropped);
    return true;
  }

  void clear() {
    Dropped dropped;
    const std::lock_guard lock(mutex_);
    while (!entries_.empty()) drop(places_.find(entries_.back().key), dropped);
  }

  // Of the values that have not expired.
  std::size_t count(Clock::time_point now = Clock::now()) {
    Dropped dropped;
    const std::lock_guard lock(mutex_);
    drop_expired(now, dropped);
    return entries_.size();
  }
  std::size_t bytes(Clock::time_point now = Clock::now()) {
    Dropped dropped;
    const std::lock_guard lock(mutex_);
    drop_expired(now, dropped);
    return bytes_;
  }

 private:
  static constexpr std::size_t kEntryBytes = 256;  // an estimate of the nodes of list and map
  struct Entry {
    std::string key;
    std::shared_ptr<const Value> value;
    std::size_t bytes = 0;
    Clock::time_point used;
  };
  using Place = typename std::list<Entry>::iterator;
  using Places = std::unordered_map<std::string, Place>;
  using Dropped = std::vector<std::shared_ptr<const Value>>;

  // API keys have no control characters.
  static std::string key_of(const std::string& id, const std::string& owner) { return owner + '\n' + id; }

  void drop(typename Places::iterator found, Dropped& dropped) {
    bytes_ -= found->second->bytes;
    dropped.push_back(std::move(found->second->value));
    entries_.erase(found->second);
    places_.erase(found);
  }
  void drop_expired(Clock::time_point now, Dropped& dropped) {
    if (!time_to_live_) return;
    while (!entries_.empty() && now - entries_.back().used >= *time_to_live_) drop(places_.find(entries_.back().key), dropped);
  }

  const std::size_t max_count_, max_bytes_;
  const std::optional<Clock::duration> time_to_live_;
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // the most recently used first
  Places places_;
  std::size_t bytes_ = 0;
};

}  // namespace nanochat
