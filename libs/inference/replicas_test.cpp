#include "inference/replicas.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "core/errors.h"
#include "inference/internal/prefix_record.h"
#include "inference/testing_engine.h"
#include "model/gpt.h"
#include "model/testing.h"
#include "model/testing_config.h"

namespace nanochat {
namespace {

using testing::EngineAnswer;
using testing::expect_same;
using ::testing::HasSubstr;
using testing::many_wishes;
using testing::random_prompt;
using testing::Receiver;
using testing::request_of;
using testing::submit;
using ::testing::ThrowsMessage;
using testing::Wish;
using Ids = std::vector<std::int32_t>;

EngineOptions small_options() {
  EngineOptions options;
  options.block_size = 8;
  options.kv_blocks = 200;
  options.max_running = 4;
  options.max_batch_tokens = 64;
  return options;
}

std::unique_ptr<Engine> small_engine(const EngineOptions& options, std::int64_t sequence_len = 96) {
  at::set_num_threads(1);
  return std::make_unique<Engine>(
      std::make_unique<Gpt>(testing::random_model(testing::grouped_config(90, sequence_len), at::kFloat, 3)), options);
}

std::unique_ptr<Replicas> small_replicas(std::size_t count, const EngineOptions& options = small_options()) {
  std::vector<std::unique_ptr<Engine>> engines;
  while (engines.size() < count) engines.push_back(small_engine(Replicas::engine_options(options)));
  return std::make_unique<Replicas>(std::move(engines), options);
}

// Requests that each replica has been given.
std::vector<std::int64_t> given(const Replicas& replicas) {
  std::vector<std::int64_t> requests;
  for (const EngineStats& stats : replicas.stats().replicas) requests.push_back(stats.requests);
  return requests;
}

EngineAnswer ask(InferenceBackend& backend, const Ids& prompt) {
  Receiver receiver;
  submit(backend, {prompt, SamplingOptions{.temperature = 0.0}, 4, 1}, receiver);
  return receiver.wait();
}

TEST(PrefixRecord, MatchesFullBlocksFromTheStart) {
  PrefixRecord record(/*block_size=*/4, /*blocks=*/10);
  EXPECT_EQ(record.match(Ids{1, 2, 3, 4}), 0);
  record.add(Ids{1, 2, 3, 4, 5, 6, 7, 8, 9});
  EXPECT_EQ(record.match(Ids{1, 2, 3, 4, 5, 6, 7, 8, 9}), 8);
  EXPECT_EQ(record.match(Ids{1, 2, 3, 4, 5, 6, 7}), 4);
  EXPECT_EQ(record.match(Ids{1, 2, 3, 4, 0, 6, 7, 8}), 4);
  EXPECT_EQ(record.match(Ids{5, 6, 7, 8}), 0);
  record.clear();
  EXPECT_EQ(record.match(Ids{1, 2, 3, 4}), 0);
}

TEST(PrefixRecord, ForgetsTheOldest) {
  PrefixRecord record(/*block_size=*/1, /*blocks=*/5);
  for (std::int32_t id = 0; id < 100; ++id) record.add(Ids{id});
  EXPECT_EQ(record.match(Ids{0}), 0);
  for (std::int32_t id = 95; id < 100; ++id) EXPECT_EQ(record.match(Ids{id}), 1);
}

TEST(Replicas, AnswersAreThoseOfOneEngine) {
  std::vector<Wish> wishes = many_wishes(1);
  EngineOptions options = small_options();
  Engine one(std::make_unique<Gpt>(testing::random_model(testing::grouped_config(90, 96), at::kFloat, 3)), options);
  const std::unique_ptr<Replicas> three = small_replicas(3, options);
  expect_same(testing::answers(*three, wishes), testing::answers(one, wishes), "three replicas");
  const EngineStats stats = three->stats();
  EXPECT_EQ(stats.requests, 32);
  EXPECT_EQ(stats.finished, 32);
  EXPECT_EQ(stats.kv_blocks_used, 0);
  ASSERT_EQ(stats.replicas.size(), 3U);
  for (const EngineStats& replica : stats.replicas) EXPECT_GT(replica.requests, 3);
}

TEST(Replicas, APromptGoesWhereItsPrefixIsCached) {
  const std::unique_ptr<Replicas> replicas = small_replicas(2);
  Rng rng(1);
  const Ids first = random_prompt(40, rng), second = random_prompt(40, rng);
  Receiver one, other;
  submit(*replicas, {first, {}, 5, 1}, one);
  submit(*replicas, {second, {}, 5, 1}, other);
  replicas->start();
  one.wait();
  other.wait();
  EXPECT_EQ(given(*replicas), (std::vector<std::int64_t>{1, 1}));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ask(*replicas, second).usage.cached_tokens, 32);
  EXPECT_EQ(given(*replicas), (std::vector<std::int64_t>{1, 4}));
  EXPECT_EQ(ask(*replicas, first).usage.cached_tokens, 32);
  EXPECT_EQ(given(*replicas), (std::vector<std::int64_t>{2, 4}));
}

TEST(Replicas, APopularPrefixDoesNotFillOneReplica) {
  const std::unique_ptr<Replicas> replicas = small_replicas(2);
  Rng rng(2);
  const Ids prompt = random_prompt(40, rng);
  std::vector<std::unique_ptr<Receiver>> receivers;
  for (int i = 0; i < 8; ++i) {
    receivers.push_back(std::make_unique<Receiver>());
    submit(*replicas, {prompt, {}, 10, 1}, *receivers.back());
  }
  EXPECT_EQ(given(*replicas), (std::vector<std::int64_t>{4, 4}));
  replicas->start();
  for (const auto& receiver : receivers) receiver->wait();
}

TEST(Replicas, WaitInOneQueueAndRefuseWhatIsTooMuch) {
  EngineOptions options = small_options();
  options.max_running = 1;
  options.max_queued = 2;
  const std::unique_ptr<Replicas> replicas = small_replicas(2, options);
  std::vector<std::unique_ptr<Receiver>> receivers;
  const auto submit_one = [&] {
    receivers.push_back(std::make_unique<Receiver>());
    EngineRequest request = request_of({{1, 2, 3}, {}, 5, 1});
    request.on_event = receivers.back()->callback();
    return replicas->submit(std::move(request));
  };
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(submit_one());
  EXPECT_EQ(submit_one().refusal, Refusal::kQueueFull);
  receivers.pop_back();
  EXPECT_EQ(given(*replicas), (std::vector<std::int64_t>{1, 1}));
  EXPECT_EQ(replicas->stats().queued, 4);
  EXPECT_EQ(replicas->stats().refused, 1);
  replicas->start();
  for (const auto& receiver : receivers) EXPECT_EQ(receiver->wait().sequences[0].ids.size(), 5U);
  replicas->drain();
  EXPECT_EQ(submit_one().refusal, Refusal::kDraining);
  replicas->stop();
  EXPECT_EQ(submit_one().refusal, Refusal::kStopped);
  EXPECT_EQ(replicas->stats().finished, 4);
}

TEST(Replicas, DrainFinishesTheWholeQueue) {
  EngineOptions options = small_options();
  options.max_running = 1;
  const std::unique_ptr<Replicas> replicas = small_replicas(2, options);
  std::vector<std::unique_ptr<Receiver>> receivers;
  for (int i = 0; i < 9; ++i) {
    receivers.push_back(std::make_unique<Receiver>());
    submit(*replicas, {{1, 2, 3}, {}, 5, 1}, *receivers.back());
  }
  replicas->start();
  replicas->drain();
  for (const auto& receiver : receivers) EXPECT_EQ(receiver->wait().sequences[0].ids.size(), 5U);
}

TEST(Replicas, CancelledRequestsEndWhereverTheyAre) {
  EngineOptions options = small_options();
  options.max_running = 1;
  const std::unique_ptr<Replicas> replicas = small_replicas(2, options);
  std::vector<std::unique_ptr<Receiver>> receivers;
  std::vector<RequestId> ids;
  for (int i = 0; i < 5; ++i) {
    receivers.push_back(std::make_unique<Receiver>());
    EngineRequest request = request_of({{1, 2, 3}, {}, 80, 1});
    request.on_event = receivers.back()->callback();
    ids.push_back(replicas->submit(std::move(request)).id);
  }
  replicas->cancel(ids[3]);  // in the queue
  replicas->cancel(ids[1]);  // with an engine
  replicas->cancel(12345);   // unknown
  replicas->start();
  for (const std::size_t cancelled : {1U, 3U}) {
    EXPECT_EQ(receivers[cancelled]->wait().sequences[0].reason, FinishReason::kCancelled);
  }
  for (const std::size_t other : {0U, 2U, 4U}) EXPECT_EQ(receivers[other]->wait().sequences[0].ids.size(), 80U);
  replicas->drain();
  EXPECT_EQ(replicas->stats().kv_blocks_used, 0);
  EXPECT_EQ(replicas->stats().queued, 0);
}

TEST(Replicas, StoppingEndsWhatIsLeft) {
  EngineOptions options = small_options();
  options.max_running = 1;
  std::vector<std::unique_ptr<Receiver>> receivers;
  {
    const std::unique_ptr<Replicas> replicas = small_replicas(2, options);
    for (int i = 0; i < 6; ++i) {
      receivers.push_back(std::make_unique<Receiver>());
      submit(*replicas, {{1, 2, 3}, {}, 5, 1}, *receivers.back());
    }
  }
  for (const auto& receiver : receivers) EXPECT_EQ(receiver->wait().sequences[0].reason, FinishReason::kCancelled);
}

TEST(Replicas, InvalidateReachesEveryReplica) {
  const std::unique_ptr<Replicas> replicas = small_replicas(2);
  Rng rng(3);
  const Ids prompt = random_prompt(40, rng);
  Receiver one, other;
  submit(*replicas, {prompt, {}, 5, 1}, one);
  submit(*replicas, {random_prompt(40, rng), {}, 5, 1}, other);
  replicas->start();
  one.wait();
  other.wait();
  std::promise<std::int64_t> forgotten;
  replicas->invalidate({}, [&](std::int64_t blocks) { forgotten.set_value(blocks); });
  EXPECT_GE(forgotten.get_future().get(), 5 + 5);  // full blocks of both
  EXPECT_EQ(ask(*replicas, prompt).usage.cached_tokens, 0);
}

TEST(Replicas, RefuseInvalidRequestsAndEngines) {
  const std::unique_ptr<Replicas> replicas = small_replicas(2);
  EXPECT_THAT(
      [&] {
        replicas->submit(request_of({{}, {}, 2, 1}));
      },
      ThrowsMessage<DataError>(HasSubstr("the prompt is empty")));
  EXPECT_EQ(replicas->stats().requests, 0);
  EXPECT_EQ(replicas->context_length(), 96);
  EXPECT_EQ(replicas->vocab_size(), 90);
  EXPECT_EQ(replicas->max_choices(), small_options().max_running);
  EXPECT_FALSE(replicas->ready());
  std::vector<std::unique_ptr<Engine>> engines;
  EXPECT_THAT([&] { Replicas(std::move(engines), small_options()); }, ThrowsMessage<ConfigError>(HasSubstr("found no engine")));
  engines.clear();
  engines.push_back(small_engine(small_options()));
  engines.push_back(small_engine(small_options(), 48));
  EXPECT_THAT([&] { Replicas(std::move(engines), small_options()); },
              ThrowsMessage<ConfigError>(HasSubstr("contexts of 96 and 48 tokens")));
}

// Many threads at once: what the sanitizers watch.
TEST(Replicas, ServeManyThreads) {
  const std::unique_ptr<Replicas> replicas = small_replicas(3);
  replicas->start();
  std::vector<std::thread> clients;
  std::atomic<int> answered = 0;
  for (std::uint64_t c = 0; c < 6; ++c) {
    clients.emplace_back([&, c] {
      Rng rng(c);
      for (int i = 0; i < 8; ++i) {
        Receiver receiver(2);
        EngineRequest request = request_of({random_prompt(1 + rng.below(40), rng), {}, 10, 2});
        request.on_event = receiver.callback();
        const Submission submission = replicas->submit(std::move(request));
        ASSERT_TRUE(submission);
        if (rng.below(3) == 0) replicas->cancel(submission.id);
        replicas->stats();
        answered += receiver.wait().done;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  replicas->drain();
  EXPECT_EQ(answered, 48);
  EXPECT_EQ(replicas->stats().kv_blocks_used, 0);
  EXPECT_EQ(replicas->stats().requests, 48);
}

}  // namespace
}  // namespace nanochat
