#pragma once
// Decides whether a request that generates text may begin: limits of concurrency and rate, of the server and of each API key.
// Rates are token buckets: a key that was idle may use up the amount of one minute at once. Thread-safe.
//
//   const auto place = admission.admit(key);  // throws ApiError (429)
//   ...                                       // the request counts as running until `place` is destroyed
//   place->charge(tokens);

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "serving/answer_limits.h"

namespace nanochat {

class AnswerAdmission {
  struct State;
  struct Key;

 public:
  using Clock = std::chrono::steady_clock;

  // The place of one running request.
  class Place {
   public:
    Place(std::shared_ptr<State> state, Key* key) : state_(std::move(state)), key_(key) {}
    ~Place();
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    // Counts the tokens of the request against the key's rate. The size of an answer is known at its end, so a key may exceed
    // the rate by the requests that are running; it then waits longer.
    void charge(std::int64_t tokens);

   private:
    const std::shared_ptr<State> state_;
    Key* const key_;
  };

  explicit AnswerAdmission(const AnswerLimits& limits);

  // Throws ApiError (429) that names the limit. Its header Retry-After says when a rate allows the next request.
  std::unique_ptr<Place> admit(const std::string& key, Clock::time_point now = Clock::now());

 private:
  const std::shared_ptr<State> state_;
};

}  // namespace nanochat
