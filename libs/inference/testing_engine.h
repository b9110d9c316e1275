#pragma once
// For tests only: answers of an engine, collected.

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

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

}  // namespace nanochat::testing
