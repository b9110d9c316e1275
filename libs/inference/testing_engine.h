#pragma once
// For tests only: requests of all kinds for an engine, and its answers, collected.

#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/random.h"
#include "inference/engine.h"

namespace nanochat::testing {

struct EngineAnswer {
  struct Sequence {
    std::vector<std::int32_t> ids;
    std::vector<double> logprobs;
    std::vector<std::vector<SampledToken>> top;
    std::vector<bool> forced;
    FinishReason reason = FinishReason::kError;
    std::int32_t stop_token = -1;
    std::string error;
    int finishes = 0;
  };
  std::vector<Sequence> sequences;
  std::vector<EngineEvent::PromptToken> prompt;
  EngineUsage usage;
  int done = 0;
};

// Fills an answer from events; wait() returns when the request is done. Must outlive it.
class Receiver {
 public:
  explicit Receiver(std::size_t n = 1) { answer_.sequences.resize(n); }

  EngineCallback callback() {
    return [this](const EngineEvent& event) {
      const std::scoped_lock lock(mutex_);
      auto& sequence = answer_.sequences.at(static_cast<std::size_t>(event.sequence));
      switch (event.kind) {
        case EngineEventKind::kPromptLogprobs: answer_.prompt.assign(event.prompt.begin(), event.prompt.end()); break;
        case EngineEventKind::kToken:
          sequence.ids.push_back(event.token.id);
          sequence.logprobs.push_back(event.token.logprob);
          sequence.top.emplace_back(event.top.begin(), event.top.end());
          sequence.forced.push_back(event.forced);
          break;
        case EngineEventKind::kFinish:
          sequence.reason = event.reason;
          sequence.stop_token = event.stop_token;
          sequence.error = event.error;
          ++sequence.finishes;
          break;
        case EngineEventKind::kDone:
          answer_.usage = event.usage;
          ++answer_.done;
          done_.notify_all();
      }
      return true;
    };
  }

  const EngineAnswer& wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return answer_.done > 0; });
    return answer_;
  }

  // Tokens that have come so far.
  std::size_t received() {
    const std::scoped_lock lock(mutex_);
    std::size_t total = 0;
    for (const auto& sequence : answer_.sequences) total += sequence.ids.size();
    return total;
  }

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  EngineAnswer answer_;
};

inline std::vector<std::int32_t> random_prompt(std::size_t length, Rng& rng, std::uint64_t vocab = 90) {
  std::vector<std::int32_t> prompt(length);
  for (std::int32_t& id : prompt) id = static_cast<std::int32_t>(rng.below(vocab));
  return prompt;
}

struct Wish {
  std::vector<std::int32_t> prompt;
  SamplingOptions sampling;
  std::int64_t max_tokens = 12;
  std::int64_t n = 1;
};

inline EngineRequest request_of(const Wish& wish) {
  EngineRequest request;
  request.prompt = wish.prompt;
  request.sampling = wish.sampling;
  request.max_tokens = wish.max_tokens;
  request.n = wish.n;
  return request;
}

// 32 wishes of all kinds: greedy and seeded, short and long, some with a beginning in common, some with n > 1.
// Prompts have up to `longest` tokens, and those with the common beginning 20 more.
inline std::vector<Wish> many_wishes(std::uint64_t seed, std::uint64_t vocab = 90, std::uint64_t longest = 60) {
  Rng rng(seed);
  const std::vector<std::int32_t> common = random_prompt(20, rng, vocab);
  std::vector<Wish> wishes;
  for (std::size_t i = 0; i < 32; ++i) {
    Wish wish;
    wish.prompt = random_prompt(1 + rng.below(longest), rng, vocab);
    if (i % 3 == 0) wish.prompt.insert(wish.prompt.begin(), common.begin(), common.end());
    wish.sampling.temperature = i % 2 == 0 ? 0.0 : 1.0;
    wish.sampling.seed = rng.next();
    if (i % 5 == 1) wish.sampling.top_p = 0.9;
    if (i % 7 == 3) wish.sampling.top_k = 7;
    if (i % 4 == 1) wish.sampling.repetition_penalty = 1.3;
    if (i % 4 == 3) wish.sampling.frequency_penalty = 0.7;
    wish.max_tokens = 1 + static_cast<std::int64_t>(rng.below(16));
    wish.n = i % 8 == 7 ? 3 : 1;
    wishes.push_back(std::move(wish));
  }
  return wishes;
}

// The same, but half of them write hardly anything but two tokens, and so repeat themselves.
inline std::vector<Wish> repeating_wishes(std::uint64_t seed, std::uint64_t vocab = 90, std::uint64_t longest = 60) {
  std::vector<Wish> wishes = many_wishes(seed, vocab, longest);
  for (std::size_t i = 0; i < wishes.size(); i += 2) {
    wishes[i].sampling.temperature = 1.0;
    wishes[i].sampling.logit_bias = {{5, 30.0}, {6, 30.0}};
    wishes[i].max_tokens = 30;
  }
  return wishes;
}

inline void submit(InferenceBackend& engine, const Wish& wish, Receiver& receiver) {
  EngineRequest request = request_of(wish);
  request.on_event = receiver.callback();
  if (!engine.submit(std::move(request))) throw std::logic_error("a request was refused: its answer would never come");
}

// The answers to wishes that are all there at once.
inline std::vector<EngineAnswer> answers(ServingEngine& engine, const std::vector<Wish>& wishes) {
  std::vector<std::unique_ptr<Receiver>> receivers;
  for (const Wish& wish : wishes) {
    receivers.push_back(std::make_unique<Receiver>(static_cast<std::size_t>(wish.n)));
    submit(engine, wish, *receivers.back());
  }
  engine.start();
  std::vector<EngineAnswer> results;
  for (const auto& receiver : receivers) results.push_back(receiver->wait());
  engine.stop();
  return results;
}

// Logprobs are compared for equality, too.
inline void expect_same(const std::vector<EngineAnswer>& got, const std::vector<EngineAnswer>& expected, const char* what) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    for (std::size_t s = 0; s < expected[i].sequences.size(); ++s) {
      EXPECT_EQ(got[i].sequences[s].ids, expected[i].sequences[s].ids) << what << ", request " << i << " sequence " << s;
      EXPECT_EQ(got[i].sequences[s].logprobs, expected[i].sequences[s].logprobs) << what << ", request " << i;
      EXPECT_EQ(got[i].sequences[s].finishes, 1);
      EXPECT_EQ(got[i].done, 1);
    }
  }
}

}  // namespace nanochat::testing
