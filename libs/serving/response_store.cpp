#include "serving/internal/response_store.h"

#include <utility>

namespace nanochat {

void ResponseStore::put(const std::string& id, StoredResponse response) {
  // The id is stored twice; the rest is an estimate of the nodes of list and map.
  const std::size_t size = response.owner.size() + response.body.size() + response.items.size() + 2 * id.size() + 256;
  if (max_count_ == 0 || size > max_bytes_) return;
  auto shared = std::make_shared<const StoredResponse>(std::move(response));
  const std::lock_guard lock(mutex_);
  if (const auto found = places_.find(id); found != places_.end()) drop(found);
  while (entries_.size() >= max_count_ || bytes_ + size > max_bytes_) drop(places_.find(entries_.back().id));
  entries_.push_front({id, std::move(shared), size});
  places_.emplace(id, entries_.begin());
  bytes_ += size;
}

std::shared_ptr<const StoredResponse> ResponseStore::find(const std::string& id, const std::string& owner) {
  const std::lock_guard lock(mutex_);
  const auto found = owned(id, owner);
  if (found == places_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->response;
}

bool ResponseStore::erase(const std::string& id, const std::string& owner) {
  const std::lock_guard lock(mutex_);
  const auto found = owned(id, owner);
  if (found == places_.end()) return false;
  drop(found);
  return true;
}

std::size_t ResponseStore::count() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

std::size_t ResponseStore::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

std::unordered_map<std::string, ResponseStore::Place>::iterator ResponseStore::owned(const std::string& id,
                                                                                     const std::string& owner) {
  const auto found = places_.find(id);
  return found != places_.end() && found->second->response->owner == owner ? found : places_.end();
}

void ResponseStore::drop(std::unordered_map<std::string, Place>::iterator found) {
  bytes_ -= found->second->bytes;
  entries_.erase(found->second);
  places_.erase(found);
}

}  // namespace nanochat
