// Every file of configs/ against a count by hand.
#include "training/chain/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

const fs::path kConfigs = NANOCHAT_CONFIGS_DIR;

const StepPlan& step_of(const std::vector<StepPlan>& plans, const std::string& name) {
  for (const StepPlan& plan : plans) {
    if (plan.name == name) return plan;
  }
  throw std::logic_error("no step " + name);
}

// By hand: `tables` = 2 x vocabulary x width, `matrices` = 12 x depth x width squared; tokens of pretraining = 20 for each
// parameter, whole steps of 524,288; a checkpoint = 4 bytes a parameter, 8 more for each of the tables (AdamW), 4 for each
// of the matrices (Muon); operations = 6 a parameter outside the embedding, 12 x depth x width x context, a token.
struct Count {
  const char* file;
  std::int64_t tables, matrices, steps, tokens, attention;
  double flops_per_second;
  std::int64_t shard_bytes, sft_batch;
};

class Plans : public ::testing::TestWithParam<Count> {};

TEST_P(Plans, EqualAHandCount) {
  const Count& c = GetParam();
  const std::vector<StepPlan> plans = plan_chain(load_chain(kConfigs / c.file));
  const std::int64_t parameters = c.tables + c.matrices, checkpoint = 4 * parameters + 8 * c.tables + 4 * c.matrices;
  const double flops = 6.0 * static_cast<double>(parameters - c.tables / 2) + static_cast<double>(c.attention);
  const StepPlan& base = step_of(plans, "base");
  EXPECT_EQ(base.parameters, parameters);
  EXPECT_EQ(base.steps, c.steps);
  EXPECT_EQ(base.tokens, c.tokens);
  EXPECT_EQ(base.disk, 3 * checkpoint);
  EXPECT_NEAR(base.seconds, flops * static_cast<double>(c.tokens) / c.flops_per_second, 1.0);
  EXPECT_EQ(step_of(plans, "shards").disk, c.shard_bytes);
  const StepPlan& mid = step_of(plans, "mid");
  EXPECT_EQ(mid.steps, 808);  // 424,000,000 tokens in steps of 524,288
  EXPECT_EQ(mid.tokens, 423'624'704);
  EXPECT_EQ(mid.disk, checkpoint);
  const StepPlan& sft = step_of(plans, "sft");  // 32 conversations of 500 tokens: 8 rows of 2,048
  EXPECT_EQ(sft.steps, 701);
  EXPECT_EQ(sft.tokens, 701 * c.sft_batch);
  const StepPlan& rl = step_of(plans, "rl");  // 7,473 questions, 16 a step, 16 answers of at most 256 + 110 tokens
  EXPECT_EQ(rl.steps, 467);
  EXPECT_EQ(rl.tokens, 467 * 16 * 16 * 366);
  for (const StepPlan& plan : plans) {
    if (plan.parameters == 0) continue;
    EXPECT_EQ(plan.parameters, parameters) << plan.name;
    EXPECT_GT(plan.memory, 14 * c.matrices) << "weights 4 + 2, gradients 4, momentum 4";
  }
}

INSTANTIATE_TEST_SUITE_P(Configs, Plans,
                         ::testing::Values(Count{"d12_one_gpu.json", 100'663'296, 84'934'656, 7'080, 3'711'959'040, 226'492'416,
                                                 5.3e14, 8'320'000'000, 16'384},
                                           Count{"speedrun_d20.json", 167'772'160, 393'216'000, 21'400, 11'219'763'200,
                                                 629'145'600, 5.7e14, 24'960'000'000, 16'384},
                                           Count{"d32.json", 268'435'456, 1'610'612'736, 71'680, 37'580'963'840, 1'610'612'736,
                                                 5.7e14, 83'200'000'000, 16'384}),
                         [](const auto& instance) { return std::string(instance.param.file).substr(0, 3); });

TEST(AutomaticDeviceBatch, OfPretrainingAndOfLaterStages) {
  constexpr double kBytes = 20e9;
  Chain chain = load_chain(kConfigs / "d12_one_gpu.json");
  for (ChainStep& step : chain.steps) {
    if (step.command != "pretrain" && step.command != "midtrain") continue;
    step.options["device_batch_size"] = "auto";
    step.options["memory_limit"] = kBytes / 1e9;
  }
  const std::vector<StepPlan> plans = plan_chain(chain);
  for (const char* name : {"base", "mid"}) {
    EXPECT_LE(static_cast<double>(step_of(plans, name).memory), kBytes) << name;
    EXPECT_GT(static_cast<double>(step_of(plans, name).memory), 0.5 * kBytes) << name;
    EXPECT_EQ(step_of(plans, name).tokens, step_of(plan_chain(load_chain(kConfigs / "d12_one_gpu.json")), name).tokens) << name;
  }
}

// Of nanochat-2026-07: parameters, batch and steps from the table of the specification of its reference. The later stages have
// the same figures for all.
struct NewestCount {
  const char* file;
  std::int64_t parameters, matrices, batch, steps, sft_steps, shard_bytes;
};

class NewestPlans : public ::testing::TestWithParam<NewestCount> {};

TEST_P(NewestPlans, EqualAHandCount) {
  const NewestCount& c = GetParam();
  const std::vector<StepPlan> plans = plan_chain(load_chain(kConfigs / c.file));
  const StepPlan& base = step_of(plans, "base");
  EXPECT_EQ(base.parameters, c.parameters);
  EXPECT_EQ(base.steps, c.steps);
  EXPECT_EQ(base.tokens, c.steps * c.batch);
  EXPECT_EQ(step_of(plans, "shards").disk, c.shard_bytes);
  EXPECT_GE(step_of(plans, "shards").tokens, base.tokens) << "no text is used twice";
  // Weights 4 bytes; two moments of AdamW, or the momentum of Muon and a small second moment.
  const auto checkpoint = static_cast<double>(4 * c.parameters + 8 * (c.parameters - c.matrices) + 4 * c.matrices);
  EXPECT_NEAR(static_cast<double>(base.disk), 3.0 * checkpoint, 0.002 * 3.0 * checkpoint);
  const StepPlan& sft = step_of(plans, "sft");  // 438,000,000 tokens in steps of the base model's batch
  EXPECT_EQ(sft.steps, c.sft_steps);
  EXPECT_EQ(sft.tokens, c.sft_steps * c.batch);
  EXPECT_EQ(step_of(plans, "rl").steps, 467);
}

INSTANTIATE_TEST_SUITE_P(
    Configs, NewestPlans,
    ::testing::Values(NewestCount{"d12.json", 286'261'730, 84'935'088, 524'288, 2520, 835, 2'760'000'000},
                      NewestCount{"d20.json", 896'533'746, 393'217'200, 1'048'576, 4980, 417, 11'040'000'000},
                      NewestCount{"d24_speedrun.json", 1'384'122'122, 679'478'976, 1'048'576, 5568, 417, 18'400'000'000}),
    [](const auto& instance) { return std::string(instance.param.file).substr(0, 3); });

TEST(Plan, OfTheToyWorld) {
  const std::vector<StepPlan> plans = plan_chain(load_chain(kConfigs / "toy.json"));
  const StepPlan& base = step_of(plans, "base");
  EXPECT_EQ(base.parameters, 2 * 2048 * 256 + 12 * 4 * 256 * 256);
  EXPECT_EQ(base.tokens, base.steps * 4096);
  EXPECT_EQ(step_of(plans, "corpus").disk, 12'000'000);
  EXPECT_EQ(step_of(plans, "shards").disk, 6'000'000);
  EXPECT_EQ(step_of(plans, "rl").parameters, base.parameters);
  EXPECT_LT(base.memory, std::int64_t{1} << 30);
}

TEST(Plan, OfSeveralProcesses) {
  const Chain chain = load_chain(kConfigs / "speedrun_d20.json");
  const std::vector<StepPlan> one = plan_chain(chain), eight = plan_chain(chain, {.ranks = 8});
  for (std::size_t i = 0; i < one.size(); ++i) {
    if (one[i].parameters == 0) {
      EXPECT_EQ(eight[i].sent, 0) << one[i].name;
      continue;
    }
    EXPECT_EQ(one[i].sent, 0) << one[i].name;
    EXPECT_EQ(eight[i].sent, step_traffic(GptConfig::from_depth(20, 65536, 2048), 8, 2).total()) << one[i].name;
    EXPECT_LT(eight[i].memory, one[i].memory) << one[i].name;
    EXPECT_GT(eight[i].seconds, one[i].seconds / 8 * 0.99) << one[i].name;
    EXPECT_EQ(eight[i].disk, one[i].disk) << one[i].name << ": the ranks' parts are the whole";
  }
  const StepPlan& base = step_of(eight, "base");
  EXPECT_EQ(base.steps, step_of(one, "base").steps);
  EXPECT_NEAR(base.seconds, step_of(one, "base").seconds / 8, 0.1 * base.seconds) << "eight micro-batches, one each";
}

TEST(Plan, FindsOptionsThatDoNotFit) {
  Chain chain{"x", "runs/x", {}, {{"base", "pretrain", {{"output_dir", "b"}, {"dept", 4}}, {}}}};
  EXPECT_THAT([&] { plan_chain(chain); }, ThrowsMessage<ConfigError>(HasSubstr("did you mean \"depth\"?")));
  chain.steps[0].options = {{"output_dir", "b"}, {"depth", 4}};
  EXPECT_THAT([&] { plan_chain(chain); }, ThrowsMessage<ConfigError>(HasSubstr("no step before it trains a tokenizer")));
  chain.steps = {{"sft", "sft", {{"base_model", "elsewhere"}}, {}}};
  EXPECT_THAT([&] { plan_chain(chain); },
              ThrowsMessage<ConfigError>(HasSubstr("no step before it makes its base_model elsewhere")));
}

}  // namespace
}  // namespace nanochat
