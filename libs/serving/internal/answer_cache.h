#pragma once
// A cache of whole answers, for requests that get the same answer each time: with temperature 0, or with a seed. Answers are kept
// as the parts that protocols write (answer_format.h), so that a stream and a whole answer have the same entry. An entry belongs
// to the API key of its request; the least recently used one goes first. Thread-safe.
//
//   if (const auto key = answer_key(path, body, plan)) {
//     if (const auto known = cache->find(*key, owner)) return known->response(*plan.format, plan.stream);
//     plan.keep = ...;  // the session calls it with the complete answer
//   }

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serving/internal/answer_format.h"
#include "serving/internal/owned_store.h"

namespace nanochat {

struct AnswerPlan;

struct CachedAnswer {
  std::string owner = {};  // the API key; empty if the server needs none
  std::vector<ChoicePart> choices = {};  // each whole
  AnswerOutcome outcome = {};  // of the request that computed it
  std::size_t bytes() const;
  // The response with this answer, whole or as a stream of which all is known. Calls of functions get new ids, because clients
  // put several answers into one conversation.
  HttpResponse response(AnswerFormat& format, bool stream) const;
};

struct AnswerCacheStats {
  std::uint64_t hits = 0, misses = 0;  // of requests that may be answered from the cache
  std::size_t answers = 0, bytes = 0;
};

class AnswerCache {
 public:
  explicit AnswerCache(std::size_t max_bytes) : max_bytes_(max_bytes), store_(SIZE_MAX, max_bytes) {}

  bool enabled() const { return max_bytes_ > 0; }
  // Null: the answer is not there. Counts a hit or a miss.
  std::shared_ptr<const CachedAnswer> find(const std::string& key, const std::string& owner);
  void put(const std::string& key, CachedAnswer answer) { store_.put(key, std::move(answer)); }
  void clear() { store_.clear(); }
  AnswerCacheStats stats();

 private:
  const std::size_t max_bytes_;  // 0: nothing is kept
  OwnedStore<CachedAnswer> store_;
  std::atomic<std::uint64_t> hits_{0}, misses_{0};
};

// Identifies the model with its checkpoint, the path, and the request without the fields that do not change the answer: stream,
// stream_options and user. Nullopt: the answer may be another one each time, or belongs to a session.
std::optional<std::string> answer_key(std::string_view path, std::string_view body, const AnswerPlan& plan);

}  // namespace nanochat
