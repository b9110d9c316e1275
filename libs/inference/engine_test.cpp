#include "inference/engine.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <future>
#include <limits>
#include <thread>

#include "core/errors.h"
#include "core/random.h"
#include "inference/generator.h"
#include "inference/testing_engine.h"
#include "model/gpt.h"
#include "model/testing.h"
#include "model/testing_config.h"

namespace nanochat {
namespace {

using testing::answers;
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

constexpr Architecture kOlder = Architecture::kNanochat2025_12, kNewest = Architecture::kNanochat2026_07;

// 90 tokens are padded to 128. The contexts of the newest architecture are longer than its short window of 128.
GptConfig small_config(Architecture architecture = kOlder) {
  return architecture == kNewest ? testing::newest_config(90, 200) : testing::grouped_config(90, 96);
}

// On one thread: the products are so small that a second only waits.
std::unique_ptr<Gpt> small_model(std::uint64_t seed = 3, at::ScalarType dtype = at::kFloat,
                                 Architecture architecture = kOlder) {
  at::set_num_threads(1);
  return std::make_unique<Gpt>(testing::random_model(small_config(architecture), dtype, seed));
}

// Whether steps overlap (EngineOptions::overlap). On a CPU they do in tests alone, where every test is run both ways.
bool overlapping = false;

class EngineSteps : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override { overlapping = GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Engine, EngineSteps, ::testing::Bool(),
                         [](const auto& tested) { return tested.param ? "Overlapping" : "Alone"; });

EngineOptions small_options() {
  EngineOptions options;
  options.overlap = overlapping;
  options.block_size = 8;
  options.kv_blocks = 200;
  options.max_running = 32;
  options.max_batch_tokens = 64;
  return options;
}

// Prompts of many_wishes() that are longer than the short window of the newest architecture.
std::uint64_t longest_prompt(Architecture architecture) { return architecture == kNewest ? 160 : 60; }

std::vector<Wish> wishes_for(Architecture architecture, std::uint64_t seed) {
  return many_wishes(seed, 90, longest_prompt(architecture));
}

// The answer of an engine that runs, and goes on running.
EngineAnswer ask(Engine& engine, const Wish& wish) {
  Receiver receiver(static_cast<std::size_t>(wish.n));
  submit(engine, wish, receiver);
  return receiver.wait();
}

std::vector<EngineAnswer> answers_together(const std::vector<Wish>& wishes, const EngineOptions& options,
                                           at::ScalarType dtype = at::kFloat, Architecture architecture = kOlder) {
  Engine engine(small_model(3, dtype, architecture), options);
  return answers(engine, wishes);
}

// Logprobs are compared for equality too: nothing but the request goes into an answer.
TEST_P(EngineSteps, AnswersAreTheSameAloneAndAmid31Others) {
  for (const auto& [dtype, architecture] : {std::pair{at::kFloat, kOlder}, std::pair{at::kBFloat16, kOlder},
                                            std::pair{at::kFloat, kNewest}, std::pair{at::kBFloat16, kNewest}}) {
    const std::vector<Wish> wishes = wishes_for(architecture, 1);
    const std::vector<EngineAnswer> together = answers_together(wishes, small_options(), dtype, architecture);
    for (std::size_t i = 0; i < wishes.size(); i += 3) {
      expect_same(answers_together({wishes[i]}, small_options(), dtype, architecture), {together[i]}, "alone");
    }
  }
}

TEST_P(EngineSteps, AnswersDoNotDependOnCacheChunksBlocksOrPreemption) {
  for (const auto& [seed, architecture] :
       {std::pair{1U, kOlder}, std::pair{2U, kOlder}, std::pair{3U, kOlder}, std::pair{1U, kNewest}}) {
    const std::vector<Wish> wishes = wishes_for(architecture, seed);
    const auto of = [&wishes = wishes, architecture = architecture](const EngineOptions& options) {
      return answers_together(wishes, options, at::kFloat, architecture);
    };
    const std::vector<EngineAnswer> expected = of(small_options());
    EngineOptions options = small_options();
    options.prefix_cache = false;
    expect_same(of(options), expected, "without a prefix cache");
    options = small_options();
    options.max_batch_tokens = 32;
    expect_same(of(options), expected, "small chunks");
    options.max_batch_tokens = 4096;
    expect_same(of(options), expected, "whole prompts");
    options.block_size = 16;
    expect_same(of(options), expected, "other blocks");
    options = small_options();
    options.kv_blocks = small_config(architecture).sequence_len / options.block_size + 2;  // for one context and two blocks
    expect_same(of(options), expected, "hardly any blocks");
    options.max_running = 3;
    expect_same(of(options), expected, "three at a time");
  }
}

TEST_P(EngineSteps, AnswersDoNotDependOnOverlap) {
  for (const std::uint64_t seed : {4U, 5U}) {
    const std::vector<Wish> wishes = many_wishes(seed);
    EngineOptions options = small_options();
    for (const std::int64_t blocks : {200, 14}) {
      options.kv_blocks = blocks;
      options.overlap = false;
      const std::vector<EngineAnswer> expected = answers_together(wishes, options);
      options.overlap = true;
      expect_same(answers_together(wishes, options), expected, "overlapping steps");
    }
  }
}

TEST_P(EngineSteps, AnswersDoNotDependOnSpeculation) {
  for (const auto& [dtype, architecture] :
       {std::pair{at::kFloat, kOlder}, std::pair{at::kBFloat16, kOlder}, std::pair{at::kFloat, kNewest}}) {
    const std::vector<Wish> wishes = testing::repeating_wishes(6, 90, longest_prompt(architecture));
    for (const std::int64_t blocks : {std::int64_t{200}, small_config(architecture).sequence_len / 8 + 2}) {
      EngineOptions options = small_options();
      options.kv_blocks = blocks;
      const std::vector<EngineAnswer> expected = answers_together(wishes, options, dtype, architecture);
      options.speculative = Speculative::kNgram;
      Engine engine(small_model(3, dtype, architecture), options);
      expect_same(answers(engine, wishes), expected, "speculative");
      EXPECT_GT(engine.stats().accepted_tokens, 0);
      EXPECT_GT(engine.stats().drafted_tokens, engine.stats().accepted_tokens);
      EXPECT_EQ(engine.stats().kv_blocks_used, 0);
    }
  }
}

// On a CPU slow, but the same engine as on a GPU.
TEST_P(EngineSteps, AnAnswerFromAnFp8CacheDoesNotDependOnHowItIsComputed) {
  for (const Architecture architecture : {kOlder, kNewest}) {
    const std::vector<Wish> wishes = testing::repeating_wishes(6, 90, longest_prompt(architecture));
    const auto of = [&](const EngineOptions& options) {
      return answers_together(wishes, options, at::kBFloat16, architecture);
    };
    EngineOptions options = small_options();
    options.fp8_cache = true;
    const std::vector<EngineAnswer> expected = of(options);
    expect_same(answers_together({wishes[4]}, options, at::kBFloat16, architecture), {expected[4]}, "alone");
    options.max_batch_tokens = 32;
    expect_same(of(options), expected, "small chunks");
    options.prefix_cache = false;
    options.kv_blocks = small_config(architecture).sequence_len / options.block_size + 2;
    expect_same(of(options), expected, "hardly any blocks");
    options.speculative = Speculative::kNgram;
    expect_same(of(options), expected, "speculative");

    // Not the numbers of a wider cache, but near them.
    constexpr double kTolerance = 0.5;  // keys and values have four significant bits
    double largest = 0.0;
    const std::vector<EngineAnswer> wide = of(small_options());
    for (std::size_t i = 0; i < wishes.size(); ++i) {
      const double difference = std::abs(wide[i].sequences[0].logprobs[0] - expected[i].sequences[0].logprobs[0]);
      if (wide[i].sequences[0].ids[0] == expected[i].sequences[0].ids[0]) largest = std::max(largest, difference);
    }
    EXPECT_GT(largest, 0.0);
    EXPECT_LT(largest, kTolerance);
  }
}

TEST_P(EngineSteps, SpeculationTakesFewerSteps) {
  const Wish wish{{1, 2, 3}, SamplingOptions{.temperature = 0.0, .logit_bias = {{5, 100.0}}}, 80, 1};
  const auto steps = [&](Speculative speculative) {
    EngineOptions options = small_options();
    options.speculative = speculative;
    Engine engine(small_model(), options);
    EXPECT_EQ(answers(engine, {wish})[0].sequences[0].ids, Ids(80, 5));
    return engine.stats().steps;
  };
  EXPECT_GE(steps(Speculative::kNone), 80);
  EXPECT_LT(steps(Speculative::kNgram), 20);
}

TEST_P(EngineSteps, GreedyEqualsTheGenerator) {
  Rng rng(4);
  const Ids prompt = random_prompt(30, rng);
  auto model = small_model();
  GenerationOptions options;
  options.max_tokens = 20;
  options.sampling.temperature = 0.0;
  const Generation expected = generate(*model, {prompt}, options).front();
  Engine engine(std::move(model), small_options());
  Wish wish{prompt, options.sampling, 20, 1};
  const EngineAnswer answer = answers(engine, {wish}).front();
  EXPECT_EQ(answer.sequences[0].ids, expected.ids);
  for (std::size_t i = 0; i < 20; ++i) EXPECT_NEAR(answer.sequences[0].logprobs[i], expected.logprobs[i], 1e-4);
  EXPECT_EQ(answer.sequences[0].reason, FinishReason::kLength);
  EXPECT_EQ(answer.usage.prompt_tokens, 30);
  EXPECT_EQ(answer.usage.completion_tokens, 20);
}

TEST_P(EngineSteps, ThePrefixCacheIsCountedAndCanBeForgotten) {
  Rng rng(5);
  const Ids prompt = random_prompt(35, rng);
  Engine engine(small_model(), small_options());
  engine.start();
  const auto ask = [&](const Ids& ids) {
    Receiver receiver;
    EngineRequest request = request_of({ids, {}, 2, 1});
    request.on_event = receiver.callback();
    engine.submit(std::move(request));
    return receiver.wait().usage.cached_tokens;
  };
  const auto invalidate = [&](std::function<bool(std::span<const std::int32_t>)> matches) {
    std::atomic<std::int64_t> forgotten = -1;
    engine.invalidate(std::move(matches), [&](std::int64_t n) { forgotten = n; });
    while (forgotten < 0) std::this_thread::yield();
    return forgotten.load();
  };
  EXPECT_EQ(ask(prompt), 0);
  EXPECT_EQ(ask(prompt), 32);
  EXPECT_EQ(ask({prompt.begin(), prompt.begin() + 32}), 24);  // one token at least is computed
  Ids other = prompt;
  other[20] = (other[20] + 1) % 90;
  EXPECT_EQ(ask(other), 16);
  EXPECT_EQ(invalidate([&](std::span<const std::int32_t> ids) { return ids.size() == 24 && ids[20] == prompt[20]; }), 2);
  EXPECT_EQ(ask(prompt), 16);
  EXPECT_EQ(ask(other), 32);
  EXPECT_GT(invalidate({}), 0);
  EXPECT_EQ(ask(prompt), 0);
  engine.drain();
  EXPECT_EQ(engine.stats().kv_blocks_used, 0);
  EXPECT_GT(engine.stats().cache_hits, 0);
}

TEST_P(EngineSteps, PromptLogprobsAreThoseOfAFullPass) {
  for (const auto& [architecture, length] : {std::pair{kOlder, std::int64_t{70}}, std::pair{kNewest, std::int64_t{190}}}) {
    Rng rng(6);
    const Ids prompt = random_prompt(static_cast<std::size_t>(length), rng);
    auto model = small_model(3, at::kFloat, architecture);
    at::Tensor ids = at::empty({1, length}, at::kInt);
    std::copy(prompt.begin(), prompt.end(), ids.data_ptr<std::int32_t>());
    const at::Tensor expected = model->forward(ids)[0].to(at::kDouble).log_softmax(-1);
    Engine engine(std::move(model), small_options());  // a budget of 64: several chunks
    Receiver receiver;
    EngineRequest request = request_of({prompt, {}, 0, 1});
    request.prompt_logprobs = true;
    request.top_logprobs = 3;
    request.on_event = receiver.callback();
    engine.submit(std::move(request));
    engine.start();
    const EngineAnswer& answer = receiver.wait();
    ASSERT_EQ(static_cast<std::int64_t>(answer.prompt.size()), length - 1);
    for (std::int64_t i = 0; i + 1 < length; ++i) {
      const auto& token = answer.prompt[static_cast<std::size_t>(i)];
      EXPECT_EQ(token.token.id, prompt[static_cast<std::size_t>(i + 1)]);
      EXPECT_NEAR(token.token.logprob, expected[i][token.token.id].item<double>(), 1e-4);
      ASSERT_EQ(token.top.size(), 3U);
      EXPECT_NEAR(token.top[0].logprob, expected[i].max().item<double>(), 1e-4);
      EXPECT_GE(token.top[0].logprob, token.top[1].logprob);
    }
    EXPECT_TRUE(answer.sequences[0].ids.empty());
    EXPECT_EQ(answer.sequences[0].reason, FinishReason::kLength);
  }
}

TEST_P(EngineSteps, StopTokensMinTokensAndIgnoreEos) {
  const Wish wish{{1, 2, 3}, SamplingOptions{.temperature = 0.0}, 10, 1};
  const Ids free = answers_together({wish}, small_options())[0].sequences[0].ids;
  const auto run = [&](auto&& change) {
    Engine engine(small_model(), small_options());
    Receiver receiver;
    EngineRequest request = request_of(wish);
    request.stop_tokens = {free[3]};
    change(request);
    request.on_event = receiver.callback();
    engine.submit(std::move(request));
    engine.start();
    return receiver.wait().sequences[0];
  };
  const auto first = static_cast<std::size_t>(std::find(free.begin(), free.end(), free[3]) - free.begin());
  const auto stopped = run([](EngineRequest&) {});
  EXPECT_EQ(stopped.ids, Ids(free.begin(), free.begin() + static_cast<std::ptrdiff_t>(first)));
  EXPECT_EQ(stopped.reason, FinishReason::kStop);
  EXPECT_EQ(stopped.stop_token, free[3]);
  EXPECT_EQ(run([](EngineRequest& request) { request.ignore_eos = true; }).ids, free);
  const auto later = run([](EngineRequest& request) { request.min_tokens = 8; });
  EXPECT_GE(later.ids.size(), 8U);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_NE(later.ids[i], free[3]);
}

TEST_P(EngineSteps, TheReceiverCanEndASequence) {
  Engine engine(small_model(), small_options());
  Receiver receiver(2);
  EngineRequest request = request_of({{1, 2, 3}, {}, 20, 2});
  request.on_event = [inner = receiver.callback()](const EngineEvent& event) {
    inner(event);
    return event.sequence == 0 || event.kind != EngineEventKind::kToken;
  };
  engine.submit(std::move(request));
  engine.start();
  const EngineAnswer& answer = receiver.wait();
  EXPECT_EQ(answer.sequences[0].ids.size(), 20U);
  EXPECT_EQ(answer.sequences[1].ids.size(), 1U);
  EXPECT_EQ(answer.sequences[1].reason, FinishReason::kStop);
  EXPECT_EQ(answer.usage.completion_tokens, 21);
}

TEST_P(EngineSteps, TopLogprobsAndLogitBias) {
  Engine engine(small_model(), small_options());
  Receiver receiver;
  EngineRequest request = request_of({{1, 2, 3}, SamplingOptions{.temperature = 0.0}, 5, 1});
  request.top_logprobs = 4;
  request.sampling.logit_bias = {{17, 100.0}};
  request.on_event = receiver.callback();
  engine.submit(std::move(request));
  engine.start();
  const auto& sequence = receiver.wait().sequences[0];
  EXPECT_EQ(sequence.ids, Ids(5, 17));
  for (const auto& top : sequence.top) {
    ASSERT_EQ(top.size(), 4U);
    EXPECT_NE(top[0].id, 17);  // of the unmodified distribution
  }
}

// ------------------------------------------------------------------------------------------------- cancelling, limits

TEST_P(EngineSteps, ACancelledRequestFreesItsBlocksWhereverItIs) {
  EngineOptions options = small_options();
  options.max_running = 2;
  options.prefix_cache = false;
  Engine engine(small_model(), options);
  std::vector<std::unique_ptr<Receiver>> receivers;
  std::vector<RequestId> ids;
  for (int i = 0; i < 4; ++i) {
    receivers.push_back(std::make_unique<Receiver>());
    EngineRequest request = request_of({{1, 2, 3}, {}, 90, 1});
    request.on_event = receivers.back()->callback();
    ids.push_back(engine.submit(std::move(request)).id);
  }
  engine.cancel(ids[2]);   // before anything ran
  engine.cancel(ids[0], 0);
  engine.cancel(12345);    // unknown
  engine.start();
  EXPECT_EQ(receivers[2]->wait().sequences[0].reason, FinishReason::kCancelled);
  EXPECT_EQ(receivers[0]->wait().sequences[0].reason, FinishReason::kCancelled);
  while (receivers[1]->received() == 0) std::this_thread::yield();
  engine.cancel(ids[1]);   // decoding
  const EngineAnswer& answer = receivers[1]->wait();
  EXPECT_TRUE(answer.sequences[0].reason == FinishReason::kCancelled || answer.sequences[0].ids.size() == 90);
  EXPECT_EQ(receivers[3]->wait().sequences[0].ids.size(), 90U);
  engine.drain();
  EXPECT_EQ(engine.stats().kv_blocks_used, 0);
  EXPECT_EQ(engine.stats().running, 0);
  EXPECT_EQ(engine.stats().queued, 0);
}

TEST_P(EngineSteps, CancellingDuringALongPromptEndsIt) {
  EngineOptions options = small_options();
  options.max_batch_tokens = 32;
  Engine engine(small_model(), options);
  Rng rng(1);
  Receiver long_one, short_one;
  EngineRequest request = request_of({random_prompt(90, rng), {}, 3, 1});
  request.on_event = long_one.callback();
  const RequestId id = engine.submit(std::move(request)).id;
  // Its second event of all cancels the long prompt, which then has seen 32 tokens a step at most.
  EngineRequest other = request_of({{5}, {}, 5, 1});
  other.on_event = [&](const EngineEvent& event) {
    engine.cancel(id);
    return short_one.callback()(event);
  };
  engine.submit(std::move(other));
  engine.start();
  EXPECT_EQ(short_one.wait().sequences[0].ids.size(), 5U);
  const EngineAnswer& answer = long_one.wait();
  EXPECT_EQ(answer.done, 1);
  engine.drain();
  EXPECT_EQ(engine.stats().kv_blocks_used, 0);
}

// A client that asks again as soon as it has its answer.
TEST_P(EngineSteps, HasAPlaceInTheQueueForWhoeverSawAnAnswerEnd) {
  EngineOptions options = small_options();
  options.max_queued = 1;
  Receiver second;
  std::promise<Refusal> told;
  Engine engine(small_model(), options);
  engine.start();
  EngineRequest first = request_of({{1, 2}, {}, 2, 1});
  first.on_event = [&](const EngineEvent& event) {
    if (event.kind != EngineEventKind::kDone) return true;
    EngineRequest next = request_of({{3}, {}, 2, 1});
    next.on_event = second.callback();
    told.set_value(engine.submit(std::move(next)).refusal);
    return true;
  };
  ASSERT_TRUE(engine.submit(std::move(first)));
  ASSERT_EQ(told.get_future().get(), Refusal::kNone);
  EXPECT_EQ(second.wait().sequences[0].ids.size(), 2U);
}

TEST_P(EngineSteps, RefusesWhatIsTooMuch) {
  EngineOptions options = small_options();
  options.max_queued = 2;
  Engine engine(small_model(), options);
  const auto submit = [&] { return engine.submit(request_of({{1, 2}, {}, 2, 1})); };
  EXPECT_TRUE(submit());
  EXPECT_TRUE(submit());
  EXPECT_EQ(submit().refusal, Refusal::kQueueFull);
  EXPECT_EQ(engine.stats().refused, 1);
  EXPECT_EQ(engine.stats().queued, 2);
  EXPECT_EQ(engine.stats().queued_tokens, 4);
  engine.start();
  engine.drain();
  EXPECT_EQ(submit().refusal, Refusal::kDraining);
  engine.stop();
  EXPECT_EQ(submit().refusal, Refusal::kStopped);
  EXPECT_EQ(engine.stats().finished, 2);
}

TEST_P(EngineSteps, StoppingEndsWhatIsLeft) {
  Receiver queued;
  {
    Engine engine(small_model(), small_options());
    EngineRequest request = request_of({{1, 2}, {}, 2, 1});
    request.on_event = queued.callback();
    engine.submit(std::move(request));
  }
  EXPECT_EQ(queued.wait().sequences[0].reason, FinishReason::kCancelled);
}

TEST_P(EngineSteps, NamesWhatIsWrongWithARequest) {
  Engine engine(small_model(), small_options());
  const auto submit = [&](auto&& change) {
    EngineRequest request = request_of({{1, 2}, {}, 2, 1});
    change(request);
    return engine.submit(std::move(request));
  };
  EXPECT_THAT([&] { submit([](EngineRequest& r) { r.prompt.clear(); }); },
              ThrowsMessage<DataError>(HasSubstr("the prompt is empty")));
  EXPECT_THAT([&] { submit([](EngineRequest& r) { r.prompt.assign(96, 1); }); },
              ThrowsMessage<DataError>(HasSubstr("has 96 tokens; the model's context of 96 leaves room for at most 95")));
  EXPECT_THAT([&] { submit([](EngineRequest& r) { r.prompt = {90}; }); },
              ThrowsMessage<DataError>(HasSubstr("token id 90 is outside the model's vocabulary of 90")));
  EXPECT_THAT([&] { submit([](EngineRequest& r) { r.n = 33; }); },
              ThrowsMessage<ConfigError>(HasSubstr("n: found 33, expected 1 to 32")));
  EXPECT_THAT([&] { submit([](EngineRequest& r) { r.tools = true; }); },
              ThrowsMessage<ConfigError>(HasSubstr("tools are asked for, but this engine has none")));
  EXPECT_THAT([&] { submit([](EngineRequest& r) { r.sampling.top_p = 2; }); },
              ThrowsMessage<ConfigError>(HasSubstr("top_p: found 2, expected a number above 0 and at most 1")));
  EXPECT_EQ(engine.stats().queued, 0);
}

TEST(Engine, KnowsItsModelBeforeItStarts) {
  const Engine engine(small_model(), small_options());
  const InferenceBackend& backend = engine;  // as serving sees it
  EXPECT_FALSE(backend.ready());
  EXPECT_EQ(backend.context_length(), 96);
  EXPECT_EQ(backend.vocab_size(), 90);
  EXPECT_EQ(backend.max_choices(), 32);
  EXPECT_EQ(backend.stats().requests, 0);
}

TEST_P(EngineSteps, OptionsAreChecked) {
  EngineOptions options = small_options();
  options.kv_blocks = 11;
  EXPECT_THAT([&] { Engine(small_model(), options); }, ThrowsMessage<ConfigError>(HasSubstr("takes 12 blocks of 8")));
  options = small_options();
  options.max_batch_tokens = 31;
  EXPECT_THAT([&] { Engine(small_model(), options); },
              ThrowsMessage<ConfigError>(HasSubstr("max_batch_tokens: found 31, expected at least 32 (max_running)")));
  options.kv_blocks = 0;
  options.max_batch_tokens = 64;
  EXPECT_EQ(Engine(small_model(), options).stats().kv_blocks_total, 32 * 12);
}

TEST_P(EngineSteps, ALogitThatIsNotANumberFailsItsRequestAlone) {
  auto model = small_model();
  for (Parameter& parameter : model->parameters()) {
    if (parameter.spec.group == OptimizerGroup::kEmbedding) parameter.value[50].fill_(std::numeric_limits<float>::quiet_NaN());
  }
  Engine engine(std::move(model), small_options());
  Wish bad{{1, 50}, {}, 5, 1}, good{{1, 2}, SamplingOptions{.temperature = 0.0, .logit_bias = {{50, -100.0}}}, 5, 1};
  const auto results = answers(engine, {bad, good});
  EXPECT_EQ(results[0].sequences[0].reason, FinishReason::kError);
  EXPECT_THAT(results[0].sequences[0].error, HasSubstr("generating token 1"));
  EXPECT_EQ(results[1].sequences[0].ids.size(), 5U);
}

TEST_P(EngineSteps, AStepThatFailsEndsWhatWasInItAndTheNextOnesRun) {
  const Wish wish{{1, 2, 3}, SamplingOptions{.temperature = 0.0}, 5, 1};
  auto model = small_model();
  std::atomic<bool> breaks = true;
  model->set_observer([&](const std::string&, const at::Tensor&) {
    if (breaks) throw std::runtime_error("out of paper\nand where it happened");
  });
  EngineOptions options = small_options();
  options.warm_up = false;  // the model breaks in its first step, not before
  Engine engine(std::move(model), options);
  engine.start();
  const EngineAnswer::Sequence failed = ask(engine, wish).sequences[0];
  EXPECT_EQ(failed.reason, FinishReason::kError);
  EXPECT_EQ(failed.error, "out of paper");
  EXPECT_EQ(failed.finishes, 1);
  breaks = false;
  const EngineAnswer::Sequence next = ask(engine, wish).sequences[0];
  engine.stop();
  EXPECT_EQ(engine.stats().failed, 1);
  EXPECT_EQ(engine.stats().finished, 1);
  EXPECT_EQ(engine.stats().kv_blocks_used, 0);
  Engine whole(small_model(), small_options());
  EXPECT_EQ(next.ids, answers(whole, {wish})[0].sequences[0].ids);
}

TEST_P(EngineSteps, NewWeightsTakeEffectBetweenSteps) {
  const Wish wish{{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, SamplingOptions{.temperature = 0.0}, 8, 1};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Engine engine(small_model(3, dtype), small_options());
    engine.start();
    const Ids before = ask(engine, wish).sequences[0].ids;
    engine.at_step([dtype](Gpt& model) {
      const Gpt other = testing::random_model(small_config(), dtype, 8);
      for (std::size_t i = 0; i < other.parameters().size(); ++i)
        model.parameters()[i].value.copy_(other.parameters()[i].value);
      model.refresh_compute();
    });
    engine.invalidate({});
    const Ids after = ask(engine, wish).sequences[0].ids;
    engine.stop();
    Engine fresh(small_model(8, dtype), small_options());
    EXPECT_EQ(after, answers(fresh, {wish})[0].sequences[0].ids) << dtype;
    EXPECT_NE(after, before) << dtype;
  }
}

// ------------------------------------------------------------------------------------------------- tools, constraints

// After each 7 the tokens 8 9 follow.
class EchoTool : public TokenTool {
 public:
  std::vector<std::int32_t> accept(std::int32_t token) override { return token == 7 ? Ids{8, 9} : Ids{}; }
};

TEST_P(EngineSteps, ToolsPutTokensIn) {
  EngineOptions options = small_options();
  options.make_tool = [] { return std::make_unique<EchoTool>(); };
  Engine engine(small_model(), options);
  Receiver receiver;
  EngineRequest request = request_of({{1, 2, 3}, {}, 60, 1});
  request.tools = true;
  request.sampling.temperature = 1.0;
  request.sampling.logit_bias = {{7, 5.0}};
  request.on_event = receiver.callback();
  engine.submit(std::move(request));
  engine.start();
  const auto& sequence = receiver.wait().sequences[0];
  ASSERT_EQ(sequence.ids.size(), 60U);
  int forced = 0;
  for (std::size_t i = 0; i + 2 < 60; ++i) {
    if (sequence.ids[i] != 7 || sequence.forced[i]) continue;
    EXPECT_EQ(sequence.ids[i + 1], 8);
    EXPECT_EQ(sequence.ids[i + 2], 9);
    EXPECT_TRUE(sequence.forced[i + 1] && sequence.forced[i + 2]);
    ++forced;
  }
  EXPECT_GT(forced, 3);
}

// An even number of 5s and then one 6.
class EvenConstraint : public TokenConstraint {
 public:
  std::span<const std::uint64_t> allowed(std::int64_t room) override {
    mask_[0] = (odd_ ? 0 : std::uint64_t{1} << 6) | (room >= (odd_ ? 2 : 3) ? std::uint64_t{1} << 5 : 0);
    return mask_;
  }
  void accept(std::int32_t token) override {
    EXPECT_TRUE(token == 5 || token == 6);
    ended_ = token == 6;
    odd_ = token == 5 && !odd_;
  }
  bool may_end() const override { return ended_; }
  bool must_end() const override { return ended_; }
  std::int64_t closing_length() override { return ended_ ? 0 : odd_ ? 2 : 1; }
  std::unique_ptr<TokenConstraint> clone() const override { return std::make_unique<EvenConstraint>(*this); }

 private:
  std::vector<std::uint64_t> mask_ = {0, 0};
  bool odd_ = false, ended_ = false;
};

TEST_P(EngineSteps, ConstraintsHoldForEverySequence) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Engine engine(small_model(), small_options());
    Receiver receiver(3);
    EngineRequest request = request_of({{1, 2, 3}, SamplingOptions{.temperature = 1.0, .seed = seed}, 6, 3});
    request.constraint = std::make_unique<EvenConstraint>();
    request.on_event = receiver.callback();
    engine.submit(std::move(request));
    engine.start();
    for (const auto& sequence : receiver.wait().sequences) {
      EXPECT_EQ(sequence.reason, FinishReason::kStop);
      ASSERT_FALSE(sequence.ids.empty());
      EXPECT_EQ(sequence.ids.size() % 2, 1U);
      EXPECT_EQ(sequence.ids.back(), 6);
      for (std::size_t i = 0; i + 1 < sequence.ids.size(); ++i) EXPECT_EQ(sequence.ids[i], 5);
    }
  }
  Engine engine(small_model(), small_options());
  EngineRequest request = request_of({{1}, {}, 0, 1});
  request.constraint = std::make_unique<EvenConstraint>();
  EXPECT_THAT([&] { engine.submit(std::move(request)); }, ThrowsMessage<ConfigError>(HasSubstr("takes 1 tokens")));
}

// After each 7 the tokens 8 7 follow: the last token is the one that was drawn, but it is not at its position.
class MirrorTool : public TokenTool {
 public:
  std::vector<std::int32_t> accept(std::int32_t token) override { return token == 7 ? Ids{8, 7} : Ids{}; }
};

// What ends a sequence or changes its context may come within a draft.
TEST_P(EngineSteps, SpeculationKeepsEveryFieldOfARequest) {
  const std::vector<std::pair<const char*, std::function<void(EngineRequest&)>>> kinds = {
      {"free", [](EngineRequest&) {}},
      {"greedy", [](EngineRequest& request) { request.sampling.temperature = 0.0; }},
      {"several", [](EngineRequest& request) { request.n = 3; }},
      {"a stop token",
       [](EngineRequest& request) {
         request.stop_tokens = {6};
         request.sampling.logit_bias = {{5, 30.0}, {6, 24.0}};
       }},
      {"a stop token, later",
       [](EngineRequest& request) {
         request.stop_tokens = {6};
         request.min_tokens = 25;
       }},
      {"penalties",
       [](EngineRequest& request) {
         request.sampling.repetition_penalty = 1.2;
         request.sampling.frequency_penalty = 0.3;
         request.sampling.presence_penalty = -0.5;
       }},
      {"logprobs",
       [](EngineRequest& request) {
         request.top_logprobs = 3;
         request.prompt_logprobs = true;
       }},
      {"a tool",
       [](EngineRequest& request) {
         request.tools = true;
         request.sampling.logit_bias.emplace_back(7, 30.0);
       }},
      {"a constraint",
       [](EngineRequest& request) {
         request.constraint = std::make_unique<EvenConstraint>();
         request.sampling.logit_bias = {{5, 30.0}, {6, 27.0}};
       }},
      {"a receiver that has enough",
       [](EngineRequest& request) {
         request.on_event = [inner = request.on_event, count = 0](const EngineEvent& event) mutable {
           inner(event);
           return event.kind != EngineEventKind::kToken || ++count < 17;
         };
       }},
  };
  for (const auto& [name, change] : kinds) {
    std::int64_t accepted = 0;
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
      const auto answer = [&, &change = change](Speculative speculative, EngineStats& stats) {
        EngineOptions options = small_options();
        options.speculative = speculative;
        options.make_tool = [] { return std::make_unique<MirrorTool>(); };
        Engine engine(small_model(), options);
        Receiver receiver(3);
        EngineRequest request = request_of({{1, 5, 6, 5, 2}, {}, 50, 1});
        request.sampling = {.temperature = 1.0, .logit_bias = {{5, 30.0}, {6, 29.0}}, .seed = seed};
        request.on_event = receiver.callback();
        change(request);
        engine.submit(std::move(request));
        engine.start();
        const EngineAnswer result = receiver.wait();
        engine.stop();
        stats = engine.stats();
        return result;
      };
      EngineStats without, with;
      const EngineAnswer expected = answer(Speculative::kNone, without), got = answer(Speculative::kNgram, with);
      EXPECT_EQ(without.drafted_tokens, 0);
      accepted += with.accepted_tokens;
      EXPECT_EQ(with.kv_blocks_used, 0) << name;
      for (std::size_t s = 0; s < expected.sequences.size(); ++s) {
        const EngineAnswer::Sequence &one = got.sequences[s], &other = expected.sequences[s];
        EXPECT_EQ(one.ids, other.ids) << name << ", seed " << seed;
        EXPECT_EQ(one.logprobs, other.logprobs) << name;
        EXPECT_EQ(one.forced, other.forced) << name;
        EXPECT_EQ(one.reason, other.reason) << name;
        EXPECT_EQ(one.stop_token, other.stop_token) << name;
        EXPECT_EQ(one.finishes, other.finishes) << name;
        ASSERT_EQ(one.top.size(), other.top.size()) << name;
        for (std::size_t t = 0; t < one.top.size(); ++t) {
          ASSERT_EQ(one.top[t].size(), other.top[t].size());
          for (std::size_t i = 0; i < one.top[t].size(); ++i) EXPECT_EQ(one.top[t][i].logprob, other.top[t][i].logprob) << name;
        }
      }
      ASSERT_EQ(got.prompt.size(), expected.prompt.size()) << name;
      for (std::size_t i = 0; i < got.prompt.size(); ++i)
        EXPECT_EQ(got.prompt[i].token.logprob, expected.prompt[i].token.logprob);
      EXPECT_EQ(got.usage.completion_tokens, expected.usage.completion_tokens) << name;
    }
    EXPECT_GT(accepted, 0) << name;
  }
}

// Many threads at once: what the sanitizers watch.
TEST_P(EngineSteps, ServesManyThreads) {
  EngineOptions options = small_options();
  options.kv_blocks = 30;
  Engine engine(small_model(), options);
  engine.start();
  std::vector<std::thread> clients;
  std::atomic<int> answered = 0;
  for (std::uint64_t c = 0; c < 6; ++c) {
    clients.emplace_back([&, c] {
      Rng rng(c);
      for (int i = 0; i < 8; ++i) {
        Receiver receiver(2);
        EngineRequest request = request_of({random_prompt(1 + rng.below(40), rng), {}, 10, 2});
        request.on_event = receiver.callback();
        const Submission submission = engine.submit(std::move(request));
        ASSERT_TRUE(submission);
        if (rng.below(3) == 0) engine.cancel(submission.id);
        engine.stats();
        answered += receiver.wait().done;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  engine.drain();
  EXPECT_EQ(answered, 48);
  EXPECT_EQ(engine.stats().kv_blocks_used, 0);
  EXPECT_EQ(engine.stats().requests, 48);
}

}  // namespace
}  // namespace nanochat
