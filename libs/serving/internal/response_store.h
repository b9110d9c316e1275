#pragma once
// The answers of POST /v1/responses that the server keeps, so that a later request can continue one by its id. Limited in number
// and bytes: the least recently used response is dropped first. Only the API key that created a response can use it. Responses
// are kept in memory and are lost when the server ends. Thread-safe.

#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

namespace nanochat {

struct StoredResponse {
  std::string owner;  // the API key; empty if the server needs none
  std::string body;  // the response object, for GET /v1/responses/{id}
  std::string items;  // JSON array: the input and output items of the conversation so far
};

class ResponseStore {
 public:
  ResponseStore(std::size_t max_count, std::size_t max_bytes) : max_count_(max_count), max_bytes_(max_bytes) {}

  // A response that is larger than the whole store is not kept.
  void put(const std::string& id, StoredResponse response);
  // Null if there is no such response of this owner.
  std::shared_ptr<const StoredResponse> find(const std::string& id, const std::string& owner);
  bool erase(const std::string& id, const std::string& owner);  // false if there is none

  std::size_t count() const;
  std::size_t bytes() const;

 private:
  struct Entry {
    std::string id;
    std::shared_ptr<const StoredResponse> response;
    std::size_t bytes = 0;
  };
  using Place = std::list<Entry>::iterator;
  std::unordered_map<std::string, Place>::iterator owned(const std::string& id, const std::string& owner);
  void drop(std::unordered_map<std::string, Place>::iterator found);

  const std::size_t max_count_, max_bytes_;
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // the most recently used first
  std::unordered_map<std::string, Place> places_;
  std::size_t bytes_ = 0;
};

}  // namespace nanochat
