#include "inference/generator.h"

#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <limits>
#include <memory>
#include <set>

#include "core/errors.h"
#include "core/interrupt.h"
#include "model/testing.h"
#include "model/testing_config.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Prompts = std::vector<std::vector<std::int32_t>>;

// 90 tokens are padded to 128.
GptConfig small_config(std::int64_t n_kv_head = 2) { return testing::grouped_config(90, 48, n_kv_head); }

GenerationOptions greedy(std::int64_t max_tokens) {
  GenerationOptions options;
  options.max_tokens = max_tokens;
  options.sampling.temperature = 0.0;
  return options;
}

Prompts some_prompts() { return {{1, 2, 3}, {80, 81, 82, 83, 84, 85, 86}, {5}, {9, 8, 7}, {60, 61, 62, 3, 4, 5, 6}}; }

struct Recomputed {
  std::vector<std::int32_t> ids;
  std::vector<double> logprobs;
};

// Greedy continuation by a forward pass over everything for each token.
Recomputed recompute(Gpt& model, std::vector<std::int32_t> history, std::int64_t tokens) {
  Recomputed result;
  for (std::int64_t i = 0; i < tokens; ++i) {
    const at::Tensor logits = model.forward(at::tensor(history, at::kInt).unsqueeze(0)).select(1, -1)[0];
    const auto id = logits.argmax().item<std::int32_t>();
    result.ids.push_back(id);
    result.logprobs.push_back(logits.to(at::kDouble).log_softmax(0)[id].item<double>());
    history.push_back(id);
  }
  return result;
}

class Generate : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(Generate, GreedyEqualsRecomputationAloneAndInABatch) {
  Gpt model = testing::random_model(small_config(GetParam()), at::kFloat, 3);
  const Prompts prompts = some_prompts();
  const auto batch = generate(model, prompts, greedy(20));
  for (std::size_t r = 0; r < prompts.size(); ++r) {
    const Recomputed expected = recompute(model, prompts[r], 20);
    EXPECT_EQ(batch[r].ids, expected.ids) << "row " << r;
    EXPECT_EQ(batch[r].reason, FinishReason::kLength);
    ASSERT_EQ(batch[r].logprobs.size(), 20U);
    for (std::size_t i = 0; i < 20; ++i) EXPECT_NEAR(batch[r].logprobs[i], expected.logprobs[i], 1e-4);
    EXPECT_EQ(generate(model, {prompts[r]}, greedy(20))[0].ids, expected.ids) << "row " << r << " alone";
  }
}

INSTANTIATE_TEST_SUITE_P(KvHeads, Generate, ::testing::Values(4, 2, 1));

TEST(Generate, WorksInBf16) {
  Gpt model = testing::random_model(small_config(), at::kBFloat16, 3);
  const auto results = generate(model, some_prompts(), greedy(10));
  for (const Generation& result : results) EXPECT_EQ(result.ids.size(), 10U);
}

TEST(Generate, FewerRowsThanPromptsChangeNothing) {
  Gpt model = testing::random_model(small_config(), at::kFloat, 3);
  Prompts prompts = some_prompts();
  for (std::int32_t i = 0; i < 12; ++i) prompts.push_back({i, i + 1, i + 2, i + 3});
  GenerationOptions options = greedy(12);
  options.stop_tokens = {generate(model, prompts, options)[2].ids[4]};  // rows end at different times
  const auto all = generate(model, prompts, options);
  EXPECT_EQ(all[2].ids.size(), 4U);
  for (const std::int64_t rows : {1, 2, 5}) {
    options.max_running = rows;
    const auto some = generate(model, prompts, options);
    for (std::size_t r = 0; r < prompts.size(); ++r) {
      EXPECT_EQ(some[r].ids, all[r].ids) << rows << " rows, prompt " << r;
      EXPECT_EQ(some[r].reason, all[r].reason);
    }
  }
}

TEST(Generate, SamplesOfARowDoNotDependOnTheOthers) {
  Gpt model = testing::random_model(small_config(), at::kFloat, 3);
  GenerationOptions options;
  options.max_tokens = 15;
  options.sampling.temperature = 1.0;
  options.sampling.seed = 9;
  const auto batch = generate(model, {{1, 2, 3}, {1, 2, 3}, {50, 51}}, options);
  EXPECT_EQ(batch[0].ids, generate(model, {{1, 2, 3}}, options)[0].ids);
  EXPECT_EQ(batch[1].ids, generate(model, {{70}, {1, 2, 3}}, options)[1].ids);
  EXPECT_NE(batch[0].ids, batch[1].ids);  // the same prompt, another row
  EXPECT_EQ(batch[2].ids, generate(model, {{1, 2, 3}, {1, 2, 3}, {50, 51}}, options)[2].ids);
  for (const Generation& result : batch) {
    for (const std::int32_t id : result.ids) EXPECT_LT(id, model.config().vocab_size);  // padding is never drawn
  }
}

TEST(Generate, EndsAtAStopTokenUnlessToldNotTo) {
  Gpt model = testing::random_model(small_config(), at::kFloat, 3);
  const auto free = generate(model, {{1, 2, 3}}, greedy(20))[0];
  const std::int32_t stop = free.ids[6];
  const auto first = static_cast<std::size_t>(std::find(free.ids.begin(), free.ids.end(), stop) - free.ids.begin());
  GenerationOptions options = greedy(20);
  options.stop_tokens = {89, stop};
  const auto stopped = generate(model, {{1, 2, 3}}, options)[0];
  EXPECT_EQ(stopped.ids, std::vector<std::int32_t>(free.ids.begin(), free.ids.begin() + static_cast<long>(first)));
  EXPECT_EQ(stopped.logprobs.size(), stopped.ids.size());
  EXPECT_EQ(stopped.reason, FinishReason::kStop);
  options.ignore_eos = true;
  EXPECT_EQ(generate(model, {{1, 2, 3}}, options)[0].ids, free.ids);
}

TEST(Generate, StopsAtTheEndOfTheContext) {
  Gpt model = testing::random_model(small_config(), at::kFloat, 3);
  const std::vector<std::int32_t> prompt(45, 7);
  const auto results = generate(model, {prompt, {1}}, greedy(1000));
  EXPECT_EQ(results[0].ids.size(), 3U);
  EXPECT_EQ(results[1].ids.size(), 47U);
  EXPECT_EQ(results[0].reason, FinishReason::kLength);
  EXPECT_EQ(results[1].ids, recompute(model, {1}, 47).ids);
}

TEST(Generate, CallsBackInOrderAndStopsTheRowThatSaysSo) {
  Gpt model = testing::random_model(small_config(), at::kFloat, 3);
  const auto free = generate(model, some_prompts(), greedy(10));
  std::vector<std::vector<std::int32_t>> seen(5);
  const auto results = generate(model, some_prompts(), greedy(10), [&](std::size_t row, std::int32_t id) {
    seen[row].push_back(id);
    return row != 3 || seen[3].size() < 4;
  });
  for (std::size_t r = 0; r < 5; ++r) {
    EXPECT_EQ(results[r].ids, seen[r]);
    EXPECT_EQ(results[r].reason, r == 3 ? FinishReason::kCancelled : FinishReason::kLength);
    EXPECT_EQ(seen[r].size(), r == 3 ? 4U : 10U);
    EXPECT_TRUE(std::equal(seen[r].begin(), seen[r].end(), free[r].ids.begin()));
  }
}

TEST(Generate, AnInterruptEndsEveryRow) {
  Gpt model = testing::random_model(small_config(), at::kFloat, 3);
  install_interrupt_handlers();
  GenerationOptions options = greedy(10);
  options.max_running = 1;
  const auto results = generate(model, {{1, 2, 3}, {4, 5, 6}}, options, [](std::size_t, std::int32_t) {
    if (!interrupt_requested()) std::raise(SIGINT);
    return true;
  });
  clear_interrupt();
  EXPECT_FALSE(interrupt_requested());
  EXPECT_EQ(results[0].ids.size(), 1U);
  EXPECT_EQ(results[1].ids.size(), 0U);
  EXPECT_EQ(results[0].reason, FinishReason::kCancelled);
  EXPECT_EQ(results[1].reason, FinishReason::kCancelled);
}

TEST(Generate, TimesAddUp) {
  Gpt model = testing::random_model(small_config(), at::kFloat, 3);
  const auto results = generate(model, {{1, 2, 3}}, greedy(10));
  EXPECT_GT(results[0].prefill_seconds, 0.0);
  EXPECT_GT(results[0].decode_seconds, 0.0);
  EXPECT_EQ(generate(model, {{1, 2, 3}}, greedy(1))[0].decode_seconds, 0.0);
}

TEST(Generate, NothingAskedIsNothingDone) {
  Gpt model = testing::random_model(small_config(), at::kFloat, 3);
  EXPECT_TRUE(generate(model, {}, greedy(5)).empty());
  const auto results = generate(model, {{1}, {2}}, greedy(0));
  ASSERT_EQ(results.size(), 2U);
  EXPECT_TRUE(results[0].ids.empty());
}

TEST(Generate, RepetitionPenaltyKnowsPromptAndContinuation) {
  Gpt model = testing::random_model(small_config(), at::kFloat, 3);
  GenerationOptions options = greedy(30);
  options.sampling.repetition_penalty = 100.0;  // positive logits of seen tokens all but vanish
  const auto ids = generate(model, {{1, 2, 3}}, options)[0].ids;
  EXPECT_EQ(std::set<std::int32_t>(ids.begin(), ids.end()).size(), ids.size());
  for (const std::int32_t id : ids) EXPECT_TRUE(id < 1 || id > 3) << id;
}

// <|assistant_start|> is followed by a call of the calculator, what that gives by "!" and the end.
class GenerateWithTools : public ::testing::Test {
 protected:
  GenerateWithTools() {
    config_.vocab_size = tokenizer_.vocab_size();
    config_.n_embd = 64;
    config_.intermediate_size = 64;
    const auto special = [&](std::string_view name) { return tokenizer_.require_special(name); };
    model_ = std::make_unique<Gpt>(testing::scripted_model(config_, {special(kAssistantStart), special(kPythonStart), '6', '*',
                                                                     '7', special(kPythonEnd)}));
    // What the model says after a result, and after a call that has none.
    after_ = std::make_unique<Gpt>(testing::scripted_model(config_, {special(kAssistantStart), special(kPythonStart), '6', '*',
                                                                     '7', special(kPythonEnd), '!', special(kAssistantEnd)}));
    options_ = greedy(20);
    options_.stop_tokens = {special(kAssistantEnd)};
    options_.tools = &tokenizer_;
    prompt_ = {special(kBos), special(kAssistantStart)};
  }
  std::string text(const Generation& result) const { return tokenizer_.decode(result.ids); }

  GptConfig config_ = small_config();
  ByteBpeTokenizer tokenizer_{testing::small_bpe_definition()};
  std::unique_ptr<Gpt> model_, after_;
  GenerationOptions options_;
  std::vector<std::int32_t> prompt_;
};

TEST_F(GenerateWithTools, ForcesTheResultAndSaysWhichTokensWereForced) {
  const Generation result = generate(*model_, {prompt_}, options_)[0];
  const std::string call = "<|python_start|>6*7<|python_end|><|output_start|>42<|output_end|>";
  EXPECT_TRUE(text(result).starts_with(call)) << text(result);
  EXPECT_EQ(result.ids.size(), 20U);
  EXPECT_EQ(result.forced.size(), 20U);
  EXPECT_EQ(result.logprobs.size(), 20U);
  for (std::size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(result.forced[i], i >= 5 && i < 9 ? 1 : 0) << i;
    EXPECT_EQ(result.logprobs[i] == 0.0, i >= 5 && i < 9) << i;
  }
}

TEST_F(GenerateWithTools, CountsForcedTokensAndSpeaksOfThemInTurn) {
  options_.max_tokens = 7;
  std::vector<std::int32_t> seen;
  const Generation cut = generate(*model_, {prompt_}, options_, [&](std::size_t, std::int32_t id) {
    seen.push_back(id);
    return true;
  })[0];
  EXPECT_EQ(text(cut), "<|python_start|>6*7<|python_end|><|output_start|>4");
  EXPECT_EQ(cut.reason, FinishReason::kLength);
  EXPECT_EQ(seen, cut.ids);
}

TEST_F(GenerateWithTools, OtherRowsGoOnByThemselves) {
  const std::vector<std::int32_t> other = {tokenizer_.bos_id(), tokenizer_.require_special(kPythonEnd)};
  const auto results = generate(*after_, {prompt_, other, prompt_}, options_);
  EXPECT_EQ(text(results[1]), "!");
  EXPECT_EQ(results[1].forced, std::vector<std::uint8_t>{0});
  EXPECT_EQ(results[0].ids, results[2].ids);
  EXPECT_NE(text(results[0]).find("<|output_start|>42<|output_end|>"), std::string::npos);
}

TEST_F(GenerateWithTools, WithoutToolsTheModelGoesOn) {
  options_.tools = nullptr;
  const Generation result = generate(*after_, {prompt_}, options_)[0];
  EXPECT_EQ(text(result), "<|python_start|>6*7<|python_end|>!");
  EXPECT_EQ(result.forced, std::vector<std::uint8_t>(6, 0));
  EXPECT_EQ(result.reason, FinishReason::kStop);
}

TEST(Generate, NamesThePromptThatDoesNotFit) {
  Gpt model = testing::random_model(small_config(), at::kFloat, 3);
  const auto run = [&](const Prompts& prompts) { return [&model, prompts] { generate(model, prompts, greedy(5)); }; };
  EXPECT_THAT(run({{1}, {}}), ThrowsMessage<DataError>(HasSubstr("prompt 2 is empty")));
  EXPECT_THAT(run({std::vector<std::int32_t>(48, 1)}),
              ThrowsMessage<DataError>(HasSubstr("prompt 1 has 48 tokens; the model's context of 48")));
  EXPECT_THAT(run({{1}, {2}, {3, 90}}), ThrowsMessage<DataError>(HasSubstr("prompt 3: token id 90")));
  EXPECT_THAT(run({{-1}}), ThrowsMessage<DataError>(HasSubstr("token id -1")));
}

TEST(Generate, NamesTheTokenWhereALogitIsNan) {
  Gpt model = testing::random_model(small_config(), at::kFloat, 3);
  const auto free = generate(model, {{1, 2, 3}}, greedy(6))[0].ids;
  // The embedding of the third token drawn: its own turn, after it was drawn, is the first to meet the NaN.
  const std::int64_t poison = free[2];
  ASSERT_TRUE(std::find(free.begin(), free.begin() + 2, poison) == free.begin() + 2);
  model.parameters().front().value[poison].fill_(std::numeric_limits<double>::quiet_NaN());
  EXPECT_THAT(
      [&] {
        generate(model, {{1, 2, 3}}, greedy(6));
      },
      ThrowsMessage<NumericalError>(HasSubstr("generating token 4 of prompt 1: the logit of token 0 is")));
}

TEST(GenerationOptions, AreChecked) {
  Gpt model = testing::random_model(small_config(), at::kFloat, 3);
  GenerationOptions options = greedy(-1);
  EXPECT_THROW(generate(model, {{1}}, options), ConfigError);
  options = greedy(1);
  options.max_running = 0;
  EXPECT_THROW(options.validate(), ConfigError);
  options = greedy(1);
  options.sampling.top_p = 0.0;
  EXPECT_THROW(options.validate(), ConfigError);
}

}  // namespace
}  // namespace nanochat
