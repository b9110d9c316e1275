// The engine on a GPU against itself and against the engine on a CPU. Skipped with a message where no GPU is.

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <future>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "core/errors.h"
#include "core/random.h"
#include "inference/engine.h"
#include "inference/testing_engine.h"
#include "inference/generator.h"
#include "model/gpt.h"
#include "model/testing.h"
#include "ops/device.h"
#include "ops/paged_attention.h"

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
using testing::Wish;

constexpr std::int64_t kVocab = 500;  // padded to 512

// Heads of 64, for which there are kernels.
GptConfig gpu_config() {
  GptConfig config;
  config.n_layer = 3;
  config.n_head = 4;
  config.n_kv_head = 2;
  config.n_embd = 256;
  config.intermediate_size = 512;
  config.vocab_size = kVocab;
  config.sequence_len = 160;
  return config;
}

void copy_weights(const Gpt& from, Gpt& to) {
  for (std::size_t i = 0; i < from.parameters().size(); ++i) to.parameters()[i].value.copy_(from.parameters()[i].value);
  to.refresh_compute();
}

std::unique_ptr<Gpt> model_on(at::Device device, at::ScalarType dtype = at::kFloat, std::uint64_t seed = 3) {
  auto model = std::make_unique<Gpt>(gpu_config(), dtype, device, Purpose::kInference);
  copy_weights(testing::random_model(gpu_config(), dtype, seed), *model);
  return model;
}

EngineOptions gpu_options() {
  EngineOptions options;
  options.kv_blocks = 600;
  options.max_running = 48;
  options.max_batch_tokens = 64;
  return options;
}

std::vector<EngineAnswer> gpu_answers(const std::vector<Wish>& wishes, const EngineOptions& options,
                                      at::ScalarType dtype = at::kFloat) {
  Engine engine(model_on(at::kCUDA, dtype), options);
  return answers(engine, wishes);
}

class EngineOnAGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (ops::cuda_devices() == 0) GTEST_SKIP() << (ops::cuda_built() ? "no GPU on this machine" : "a build without CUDA");
    at::set_num_threads(1);
  }
};

// In float32, bit for bit: logprobs, too.
TEST_F(EngineOnAGpu, AnswersAreTheSameHoweverTheyAreComputed) {
  for (const std::uint64_t seed : {1U, 2U}) {
    const std::vector<Wish> wishes = many_wishes(seed, kVocab);
    const std::vector<EngineAnswer> expected = gpu_answers(wishes, gpu_options());
    const auto same = [&](const char* what, auto&& change) {
      EngineOptions options = gpu_options();
      change(options);
      expect_same(gpu_answers(wishes, options), expected, what);
    };
    same("without graphs", [](EngineOptions& options) { options.graphs = false; });
    same("without a prefix cache", [](EngineOptions& options) { options.prefix_cache = false; });
    same("small chunks", [](EngineOptions& options) { options.max_batch_tokens = 48; });
    same("whole prompts", [](EngineOptions& options) { options.max_batch_tokens = 8192; });
    same("other blocks", [](EngineOptions& options) { options.block_size = 32; });
    same("hardly any blocks", [](EngineOptions& options) { options.kv_blocks = 11; });  // one context takes 10
    same("three at a time", [](EngineOptions& options) { options.max_running = 3; });
    for (std::size_t i = 0; i < wishes.size(); i += 5)
      expect_same(gpu_answers({wishes[i]}, gpu_options()), {expected[i]}, "alone");
  }
}

// Each records its steps, on a GPU of its own where there are two, while the other allocates memory and waits for its copies.
TEST_F(EngineOnAGpu, EnginesOfOneProcessAnswerAtTheSameTime) {
  const std::vector<Wish> wishes = many_wishes(1, kVocab);
  const std::vector<EngineAnswer> expected = gpu_answers(wishes, gpu_options());
  constexpr int kRounds = 5;
  const auto answer = [&](int device) {
    std::vector<std::vector<EngineAnswer>> rounds;
    for (int round = 0; round < kRounds; ++round) {
      Engine engine(model_on(at::Device(at::kCUDA, static_cast<at::DeviceIndex>(device))), gpu_options());
      rounds.push_back(answers(engine, wishes));
    }
    return rounds;
  };
  auto other = std::async(std::launch::async, answer, ops::cuda_devices() > 1 ? 1 : 0);
  for (const std::vector<EngineAnswer>& got : answer(0)) expect_same(got, expected, "beside another engine");
  for (const std::vector<EngineAnswer>& got : other.get()) expect_same(got, expected, "beside another engine");
}

// Drafted tokens pass as rows of recorded steps, or as chunks of others.
TEST_F(EngineOnAGpu, AnswersDoNotDependOnSpeculation) {
  for (const std::uint64_t seed : {1U, 2U}) {
    const std::vector<Wish> wishes = testing::repeating_wishes(seed, kVocab);
    const std::vector<EngineAnswer> expected = gpu_answers(wishes, gpu_options());
    const auto same = [&](const char* what, auto&& change) {
      EngineOptions options = gpu_options();
      options.speculative = Speculative::kNgram;
      change(options);
      Engine engine(model_on(at::kCUDA), options);
      expect_same(answers(engine, wishes), expected, what);
      EXPECT_GT(engine.stats().accepted_tokens, 0) << what;
      EXPECT_EQ(engine.stats().kv_blocks_used, 0) << what;
    };
    same("speculative", [](EngineOptions&) {});
    same("speculative, without graphs", [](EngineOptions& options) { options.graphs = false; });
    same("speculative, hardly any blocks", [](EngineOptions& options) { options.kv_blocks = 11; });
    same("speculative, three at a time", [](EngineOptions& options) { options.max_running = 3; });
    same("speculative, small chunks", [](EngineOptions& options) { options.max_batch_tokens = 48; });
  }
}

TEST_F(EngineOnAGpu, AnswersAreThoseOfTheCpu) {
  constexpr double kTolerance = 1e-3;
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    const std::vector<Wish> wishes = many_wishes(seed, kVocab);
    Engine host(model_on(at::kCPU), gpu_options());
    const std::vector<EngineAnswer> expected = answers(host, wishes), got = gpu_answers(wishes, gpu_options());
    for (std::size_t i = 0; i < wishes.size(); ++i) {
      for (std::size_t s = 0; s < expected[i].sequences.size(); ++s) {
        const EngineAnswer::Sequence& one = got[i].sequences[s];
        ASSERT_EQ(one.ids, expected[i].sequences[s].ids) << "request " << i << " sequence " << s;
        for (std::size_t t = 0; t < one.logprobs.size(); ++t) {
          EXPECT_NEAR(one.logprobs[t], expected[i].sequences[s].logprobs[t], kTolerance);
        }
      }
    }
  }
}

// Value embeddings, smear, scales of the stream and windows shorter than the context.
GptConfig newest_config() {
  GptConfig config = gpu_config();
  config.architecture = Architecture::kNanochat2026_07;
  config.sequence_len = 200;
  config.window_pattern = "SL";
  config.qk_scale = 1.2;
  return config;
}

TEST_F(EngineOnAGpu, AnswersOfTheNewestArchitectureAreThoseOfTheCpu) {
  constexpr double kTolerance = 1e-3;
  const GptConfig config = newest_config();
  const std::vector<Wish> wishes = many_wishes(1, kVocab, /*longest=*/160);
  const auto answers_on = [&](at::Device device) {
    auto model = std::make_unique<Gpt>(config, at::kFloat, device, Purpose::kInference);
    copy_weights(testing::random_model(config, at::kFloat, 3), *model);
    Engine engine(std::move(model), gpu_options());
    return answers(engine, wishes);
  };
  const std::vector<EngineAnswer> expected = answers_on(at::kCPU), got = answers_on(at::kCUDA);
  for (std::size_t i = 0; i < wishes.size(); ++i) {
    for (std::size_t s = 0; s < expected[i].sequences.size(); ++s) {
      const EngineAnswer::Sequence &one = got[i].sequences[s], &other = expected[i].sequences[s];
      ASSERT_EQ(one.ids, other.ids) << "request " << i << " sequence " << s;
      for (std::size_t t = 0; t < one.logprobs.size(); ++t) EXPECT_NEAR(one.logprobs[t], other.logprobs[t], kTolerance);
    }
  }
}

TEST_F(EngineOnAGpu, InBFloat16AnswersAreBatchInvariantWhereThatIsAskedFor) {
  const std::vector<Wish> wishes = many_wishes(1, kVocab);
  EngineOptions options = gpu_options();
  options.batch_invariant = true;
  const std::vector<EngineAnswer> expected = gpu_answers(wishes, options, at::kBFloat16);
  for (std::size_t i = 0; i < wishes.size(); i += 3) {
    expect_same(gpu_answers({wishes[i]}, options, at::kBFloat16), {expected[i]}, "alone");
  }
  options.max_batch_tokens = 8192;
  expect_same(gpu_answers(wishes, options, at::kBFloat16), expected, "whole prompts");
  options.graphs = false;
  expect_same(gpu_answers(wishes, options, at::kBFloat16), expected, "without graphs");
}

TEST_F(EngineOnAGpu, InBFloat16AnswersCome) {
  const std::vector<Wish> wishes = many_wishes(2, kVocab);
  EngineOptions options = gpu_options();
  options.max_batch_tokens = 8192;
  const std::vector<EngineAnswer> got = gpu_answers(wishes, options, at::kBFloat16);
  for (std::size_t i = 0; i < wishes.size(); ++i) {
    for (const EngineAnswer::Sequence& sequence : got[i].sequences) {
      EXPECT_EQ(static_cast<std::int64_t>(sequence.ids.size()), wishes[i].max_tokens);
      EXPECT_EQ(sequence.reason, FinishReason::kLength);
      for (const double logprob : sequence.logprobs) EXPECT_TRUE(std::isfinite(logprob) && logprob < 0.0);
    }
  }
}

class Fp8CacheOnAGpu : public EngineOnAGpu {
 protected:
  void SetUp() override {
    EngineOnAGpu::SetUp();
    if (!IsSkipped() && !ops::has_fp8_cache(at::Device(at::kCUDA, 0))) GTEST_SKIP() << "a GPU of compute capability below 8.9";
  }
  static EngineOptions fp8_options() {
    EngineOptions options = gpu_options();
    options.fp8_cache = true;
    return options;
  }
};

TEST_F(Fp8CacheOnAGpu, AnswersAreBatchInvariantWhereThatIsAskedFor) {
  EngineOptions options = fp8_options();
  options.batch_invariant = true;
  const std::vector<Wish> wishes = testing::repeating_wishes(1, kVocab);
  const std::vector<EngineAnswer> expected = gpu_answers(wishes, options, at::kBFloat16);
  const auto same = [&](const char* what, auto&& change) {
    EngineOptions changed = options;
    change(changed);
    expect_same(gpu_answers(wishes, changed, at::kBFloat16), expected, what);
  };
  for (std::size_t i = 0; i < wishes.size(); i += 5) {
    expect_same(gpu_answers({wishes[i]}, options, at::kBFloat16), {expected[i]}, "alone");
  }
  same("whole prompts", [](EngineOptions& changed) { changed.max_batch_tokens = 8192; });
  same("without graphs", [](EngineOptions& changed) { changed.graphs = false; });
  same("without a prefix cache", [](EngineOptions& changed) { changed.prefix_cache = false; });
  same("hardly any blocks", [](EngineOptions& changed) { changed.kv_blocks = 11; });
  same("speculative", [](EngineOptions& changed) { changed.speculative = Speculative::kNgram; });
}

// Of one model, engines with caches of both types: each records steps of its own, and answers as it does alone.
TEST_F(Fp8CacheOnAGpu, EnginesWithCachesOfBothTypesShareAModel) {
  Rng rng(9);
  std::vector<std::vector<std::int32_t>> prompts;
  for (int p = 0; p < 12; ++p) prompts.push_back(random_prompt(1 + rng.below(100), rng, kVocab));
  GenerationOptions wide;
  wide.max_tokens = 12;
  wide.sampling.temperature = 0.0;
  GenerationOptions narrow = wide;
  narrow.fp8_cache = true;
  const auto same = [&](Gpt& model, const GenerationOptions& options, const std::vector<Generation>& expected) {
    const std::vector<Generation> got = generate(model, prompts, options);
    for (std::size_t row = 0; row < got.size(); ++row) EXPECT_EQ(got[row].ids, expected[row].ids) << row;
  };
  auto model = model_on(at::kCUDA, at::kBFloat16);
  const std::vector<Generation> in_bfloat16 = generate(*model_on(at::kCUDA, at::kBFloat16), prompts, wide);
  const std::vector<Generation> in_fp8 = generate(*model_on(at::kCUDA, at::kBFloat16), prompts, narrow);
  for (int i = 0; i < 3; ++i) {
    same(*model, wide, in_bfloat16);
    same(*model, narrow, in_fp8);
  }
}

// Decodes, prompts and drafted tokens have different kernels.
TEST_F(Fp8CacheOnAGpu, LogprobsAreNearThoseOfABFloat16CacheAndOfThePrompt) {
  constexpr double kTolerance = 0.5;  // keys and values have four significant bits
  constexpr double kSameCache = 0.2;  // activations are rounded at different places, and so are keys and values then
  for (const GptConfig& config : {gpu_config(), newest_config()}) {
    Rng rng(6);
    const std::vector<std::int32_t> prompt = random_prompt(100, rng, kVocab);
    const auto ask = [&](bool fp8, const std::vector<std::int32_t>& text, std::int64_t tokens) {
      auto model = std::make_unique<Gpt>(config, at::kBFloat16, at::kCUDA, Purpose::kInference);
      copy_weights(testing::random_model(config, at::kBFloat16, 3), *model);
      EngineOptions options = gpu_options();
      options.fp8_cache = fp8;
      Engine engine(std::move(model), options);
      engine.start();
      Receiver receiver;
      EngineRequest request = request_of({text, SamplingOptions{.temperature = 1.0}, tokens, 1});
      request.prompt_logprobs = true;
      request.on_event = receiver.callback();
      engine.submit(std::move(request));
      return receiver.wait();
    };
    const EngineAnswer answer = ask(true, prompt, 40);
    const EngineAnswer::Sequence& sequence = answer.sequences[0];
    ASSERT_EQ(sequence.ids.size(), 40U) << sequence.error;
    std::vector<std::int32_t> whole = prompt;
    whole.insert(whole.end(), sequence.ids.begin(), sequence.ids.end());
    const EngineAnswer read = ask(true, whole, 1), wide = ask(false, whole, 1);
    double difference = 0.0;
    for (std::size_t i = 0; i < sequence.ids.size(); ++i) {
      const std::size_t at = prompt.size() - 1 + i;
      EXPECT_NEAR(sequence.logprobs[i], read.prompt[at].token.logprob, kSameCache) << i;
      EXPECT_NEAR(sequence.logprobs[i], wide.prompt[at].token.logprob, kTolerance) << i;
      difference += std::abs(read.prompt[at].token.logprob - wide.prompt[at].token.logprob);
    }
    EXPECT_GT(difference, 0.0) << "the cache is not in 8 bits";
  }
}

// Decodes and prompts have different kernels.
TEST_F(EngineOnAGpu, InBFloat16LogprobsOfAnAnswerAreThoseOfAPromptThatHasIt) {
  constexpr double kTolerance = 0.1;  // activations are rounded to 8 bits at different places
  for (const GptConfig& config : {gpu_config(), newest_config()}) {
    auto model = std::make_unique<Gpt>(config, at::kBFloat16, at::kCUDA, Purpose::kInference);
    copy_weights(testing::random_model(config, at::kBFloat16, 3), *model);
    Engine engine(std::move(model), gpu_options());
    engine.start();
    Rng rng(6);
    const std::vector<std::int32_t> prompt = random_prompt(100, rng, kVocab);
    const auto ask = [&](EngineRequest request) {
      Receiver receiver;
      request.on_event = receiver.callback();
      engine.submit(std::move(request));
      return receiver.wait();
    };
    const EngineAnswer answer = ask(request_of({prompt, SamplingOptions{.temperature = 1.0}, 40, 1}));
    const EngineAnswer::Sequence& sequence = answer.sequences[0];
    ASSERT_EQ(sequence.ids.size(), 40U) << sequence.error;
    std::vector<std::int32_t> whole = prompt;
    whole.insert(whole.end(), sequence.ids.begin(), sequence.ids.end());
    EngineRequest again = request_of({whole, SamplingOptions{.temperature = 0.0}, 1, 1});
    again.prompt_logprobs = true;
    const EngineAnswer read = ask(std::move(again));
    ASSERT_EQ(read.prompt.size(), whole.size() - 1);
    for (std::size_t i = 0; i < sequence.ids.size(); ++i) {
      EXPECT_NEAR(sequence.logprobs[i], read.prompt[prompt.size() - 1 + i].token.logprob, kTolerance)
          << (config.is_2026() ? "2026, token " : "2025, token ") << i;
    }
  }
}

TEST_F(EngineOnAGpu, TopLogprobsAndPromptLogprobsAreThoseOfTheCpu) {
  const auto ask = [](at::Device device) {
    Engine engine(model_on(device), gpu_options());
    Rng rng(6);
    Receiver receiver;
    EngineRequest request = request_of({random_prompt(100, rng, kVocab), SamplingOptions{.temperature = 0.0}, 5, 1});
    request.prompt_logprobs = true;
    request.top_logprobs = 4;
    request.on_event = receiver.callback();
    engine.submit(std::move(request));
    engine.start();
    return receiver.wait();
  };
  const EngineAnswer expected = ask(at::kCPU), got = ask(at::kCUDA);
  ASSERT_EQ(got.prompt.size(), 99U);
  const auto near = [](const std::vector<SampledToken>& a, const std::vector<SampledToken>& b) {
    ASSERT_EQ(a.size(), 4U);
    for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(a[i].logprob, b[i].logprob, 1e-3);
  };
  for (std::size_t i = 0; i < 99; ++i) {
    EXPECT_EQ(got.prompt[i].token.id, expected.prompt[i].token.id);
    EXPECT_NEAR(got.prompt[i].token.logprob, expected.prompt[i].token.logprob, 1e-3);
    near(got.prompt[i].top, expected.prompt[i].top);
  }
  EXPECT_EQ(got.sequences[0].ids, expected.sequences[0].ids);
  for (std::size_t i = 0; i < 5; ++i) near(got.sequences[0].top[i], expected.sequences[0].top[i]);
}

TEST_F(EngineOnAGpu, NewWeightsTakeEffectBetweenSteps) {
  const Wish wish{{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, SamplingOptions{.temperature = 0.0}, 8, 1};
  const auto ask = [&](Engine& engine) {
    Receiver receiver;
    submit(engine, wish, receiver);
    return receiver.wait().sequences[0].ids;
  };
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Engine engine(model_on(at::kCUDA, dtype), gpu_options());
    engine.start();
    const auto before = ask(engine);
    engine.at_step([dtype](Gpt& model) { copy_weights(testing::random_model(gpu_config(), dtype, 8), model); });
    engine.invalidate({});
    const auto after = ask(engine);
    engine.stop();
    Engine fresh(model_on(at::kCUDA, dtype, 8), gpu_options());
    fresh.start();
    EXPECT_EQ(after, ask(fresh)) << dtype;
    EXPECT_NE(after, before) << dtype;
  }
}

// Engines one after the other take over what was recorded, if their caches are alike.
TEST_F(EngineOnAGpu, OneModelGeneratesAgainAndAgain) {
  auto model = model_on(at::kCUDA), host = model_on(at::kCPU);
  GenerationOptions options;
  options.max_tokens = 12;
  options.sampling.temperature = 1.0;
  Rng rng(9);
  for (int i = 0; i < 6; ++i) {
    std::vector<std::vector<std::int32_t>> prompts;
    for (int p = 0; p < 1 + 5 * i; ++p) prompts.push_back(random_prompt(1 + rng.below(100), rng, kVocab));
    options.sampling.seed = rng.next();
    for (int again = 0; again < 2; ++again) {
      const std::vector<Generation> got = generate(*model, prompts, options), expected = generate(*host, prompts, options);
      ASSERT_EQ(got.size(), expected.size());
      for (std::size_t row = 0; row < got.size(); ++row) EXPECT_EQ(got[row].ids, expected[row].ids) << i << " " << row;
    }
    copy_weights(testing::random_model(gpu_config(), at::kFloat, static_cast<std::uint64_t>(20 + i)), *model);
    copy_weights(testing::random_model(gpu_config(), at::kFloat, static_cast<std::uint64_t>(20 + i)), *host);
  }
}

// After each 7 the tokens 8 9 follow.
class EchoTool : public TokenTool {
 public:
  std::vector<std::int32_t> accept(std::int32_t token) override {
    return token == 7 ? std::vector<std::int32_t>{8, 9} : std::vector<std::int32_t>{};
  }
};

TEST_F(EngineOnAGpu, ToolsAmidOthersGiveTheAnswersOfTheCpu) {
  const auto run = [](at::Device device) {
    EngineOptions options = gpu_options();
    options.make_tool = [] { return std::make_unique<EchoTool>(); };
    Engine engine(model_on(device), options);
    std::vector<std::unique_ptr<Receiver>> receivers;
    for (std::uint64_t i = 0; i < 20; ++i) {
      receivers.push_back(std::make_unique<Receiver>());
      EngineRequest request = request_of(
          {{1, 2, static_cast<std::int32_t>(i)}, SamplingOptions{.temperature = 1.0, .seed = i}, 40, 1});
      request.tools = i % 2 == 0;
      if (request.tools) request.sampling.logit_bias = {{7, 12.0}};
      request.on_event = receivers.back()->callback();
      engine.submit(std::move(request));
    }
    engine.start();
    std::vector<EngineAnswer> results;
    for (const auto& receiver : receivers) results.push_back(receiver->wait());
    engine.drain();
    EXPECT_EQ(engine.stats().kv_blocks_used, 0);
    return results;
  };
  const std::vector<EngineAnswer> expected = run(at::kCPU), got = run(at::kCUDA);
  std::size_t forced = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].sequences[0].ids, expected[i].sequences[0].ids) << i;
    EXPECT_EQ(got[i].sequences[0].forced, expected[i].sequences[0].forced) << i;
    for (const bool one : got[i].sequences[0].forced) forced += one ? 1 : 0;
  }
  EXPECT_GT(forced, 10U);
}

// The tokens 5 and 6 in turn.
class TurnConstraint : public TokenConstraint {
 public:
  std::span<const std::uint64_t> allowed(std::int64_t) override {
    mask_.assign((kVocab + 63) / 64, 0);
    mask_[0] = std::uint64_t{1} << (six_ ? 6 : 5);
    return mask_;
  }
  void accept(std::int32_t token) override {
    EXPECT_EQ(token, six_ ? 6 : 5);
    six_ = !six_;
  }
  bool may_end() const override { return true; }
  bool must_end() const override { return false; }
  std::int64_t closing_length() override { return 0; }
  std::unique_ptr<TokenConstraint> clone() const override { return std::make_unique<TurnConstraint>(*this); }

 private:
  std::vector<std::uint64_t> mask_;
  bool six_ = false;
};

TEST_F(EngineOnAGpu, ConstraintsHoldAmidOthers) {
  Engine engine(model_on(at::kCUDA), gpu_options());
  std::vector<std::unique_ptr<Receiver>> receivers;
  for (std::uint64_t i = 0; i < 12; ++i) {
    receivers.push_back(std::make_unique<Receiver>());
    EngineRequest request = request_of({{1, 2, 3}, SamplingOptions{.temperature = 1.0, .seed = i}, 30, 1});
    if (i % 2 == 0) request.constraint = std::make_unique<TurnConstraint>();
    request.on_event = receivers.back()->callback();
    engine.submit(std::move(request));
  }
  engine.start();
  for (std::size_t i = 0; i < receivers.size(); ++i) {
    const EngineAnswer& answer = receivers[i]->wait();
    ASSERT_EQ(answer.sequences[0].ids.size(), 30U);
    for (std::size_t t = 0; t < 30 && i % 2 == 0; ++t) EXPECT_EQ(answer.sequences[0].ids[t], t % 2 == 0 ? 5 : 6);
  }
}

TEST_F(EngineOnAGpu, ALogitThatIsNotANumberFailsItsRequestAlone) {
  auto model = model_on(at::kCUDA);
  for (Parameter& parameter : model->parameters()) {
    if (parameter.spec.group == OptimizerGroup::kEmbedding) parameter.value[50].fill_(std::numeric_limits<float>::quiet_NaN());
  }
  Engine engine(std::move(model), gpu_options());
  const Wish bad{{1, 50}, {}, 5, 1}, good{{1, 2}, SamplingOptions{.temperature = 0.0, .logit_bias = {{50, -100.0}}}, 5, 1};
  const std::vector<EngineAnswer> results = answers(engine, {bad, good, good});
  EXPECT_EQ(results[0].sequences[0].reason, FinishReason::kError);
  EXPECT_THAT(results[0].sequences[0].error, HasSubstr("generating token 1"));
  EXPECT_EQ(results[1].sequences[0].ids.size(), 5U);
  EXPECT_EQ(results[2].sequences[0].ids, results[1].sequences[0].ids);
}

TEST_F(EngineOnAGpu, CancelsAndEndsLeaveNoBlockBehind) {
  EngineOptions options = gpu_options();
  options.kv_blocks = 60;
  options.prefix_cache = false;
  Engine engine(model_on(at::kCUDA), options);
  engine.start();
  Rng rng(3);
  std::vector<std::unique_ptr<Receiver>> receivers;
  for (int i = 0; i < 60; ++i) {
    const auto n = static_cast<std::int64_t>(1 + rng.below(3));
    receivers.push_back(std::make_unique<Receiver>(static_cast<std::size_t>(n)));
    EngineRequest request = request_of({random_prompt(1 + rng.below(90), rng, kVocab), {}, 30, n});
    request.stop_tokens = {static_cast<std::int32_t>(rng.below(kVocab)), static_cast<std::int32_t>(rng.below(kVocab))};
    request.on_event = receivers.back()->callback();
    const Submission submission = engine.submit(std::move(request));
    ASSERT_TRUE(submission);
    if (rng.below(4) == 0) engine.cancel(submission.id);
    if (rng.below(4) == 0 && i > 0) receivers[rng.below(static_cast<std::uint64_t>(i))]->wait();
  }
  for (const auto& receiver : receivers) EXPECT_EQ(receiver->wait().done, 1);
  engine.drain();
  EXPECT_EQ(engine.stats().kv_blocks_used, 0);
  EXPECT_EQ(engine.stats().running, 0);
  EXPECT_EQ(engine.stats().requests, 60);
}

}  // namespace
}  // namespace nanochat
