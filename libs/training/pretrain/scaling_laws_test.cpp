#include "training/pretrain/scaling_laws.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/testing.h"
#include "model/layout.h"
#include "optim/schedule.h"

namespace nanochat {
namespace {

using nlohmann::json;

GptConfig model_of(std::int64_t depth, const json& arguments, std::int64_t vocab_size) {
  GptConfig config = GptConfig::from_depth(depth, vocab_size, arguments.at("max_seq_len"), Architecture::kNanochat2026_07);
  const std::int64_t head_dim = arguments.at("head_dim"), base = depth * arguments.at("aspect_ratio").get<std::int64_t>();
  config.n_head = config.n_kv_head = (base + head_dim - 1) / head_dim;
  config.n_embd = config.n_head * head_dim;
  config.intermediate_size = 4 * config.n_embd;
  config.window_pattern = arguments.at("window_pattern");
  return config;
}

// Sizes, laws and schedules of base_train at 92d63d4, for 20 sets of arguments.
TEST(ScalingLaws, AreThoseOfTheReference) {
  NANOCHAT_SHARED_OR_SKIP(fixture, "parity/head_goldens/schedules.json");
  std::ifstream stream(fixture);
  const json cases = json::parse(stream);
  EXPECT_EQ(cases.size(), 20U);
  for (const json& expected : cases) {
    const json& arguments = expected.at("arguments");
    const std::string name = arguments.dump();
    const std::int64_t vocab_size = expected.at("vocab_size");
    const GptConfig model = model_of(arguments.at("depth"), arguments, vocab_size);
    EXPECT_EQ(model.n_embd, expected.at("config").at("n_embd").get<std::int64_t>()) << name;
    EXPECT_EQ(model.n_head, expected.at("config").at("n_head").get<std::int64_t>()) << name;
    std::vector<std::int64_t> windows;
    for (std::int64_t layer = 0; layer < model.n_layer; ++layer) windows.push_back(plan_layer(model, layer).window.value());
    EXPECT_EQ(windows, expected.at("left_windows").get<std::vector<std::int64_t>>()) << name;
    std::map<OptimizerGroup, std::int64_t> counts;
    for_each_tensor(model, [&](const TensorSpec& tensor) { counts[tensor.group] += tensor.numel(); });
    const json& parameters = expected.at("parameters");
    EXPECT_EQ(counts[OptimizerGroup::kEmbedding], parameters.at("wte").get<std::int64_t>()) << name;
    EXPECT_EQ(counts[OptimizerGroup::kValueEmbedding], parameters.at("value_embeds").get<std::int64_t>()) << name;
    EXPECT_EQ(counts[OptimizerGroup::kHead], parameters.at("lm_head").get<std::int64_t>()) << name;
    EXPECT_EQ(counts[OptimizerGroup::kMatrix], parameters.at("transformer_matrices").get<std::int64_t>()) << name;
    EXPECT_EQ(model.parameter_count(), parameters.at("total").get<std::int64_t>()) << name;
    EXPECT_EQ(model.flops_per_token(), expected.at("flops_per_token").get<double>()) << name;

    const ScalingPlan plan = plan_scaling(model, model_of(12, arguments, vocab_size),
                                          {.target_param_data_ratio = arguments.at("target_param_data_ratio"),
                                           .target_flops = arguments.at("target_flops"),
                                           .num_iterations = arguments.at("num_iterations"),
                                           .total_batch_size = arguments.at("total_batch_size"),
                                           .weight_decay = arguments.at("weight_decay")});
    EXPECT_EQ(scaling_parameters(model), expected.at("scaling_params").get<std::int64_t>()) << name;
    EXPECT_EQ(plan.target_tokens, expected.at("target_tokens").get<std::int64_t>()) << name;
    EXPECT_EQ(plan.total_batch_size, expected.at("total_batch_size").get<std::int64_t>()) << name;
    EXPECT_EQ(plan.num_iterations, expected.at("num_iterations").get<std::int64_t>()) << name;
    EXPECT_NEAR(plan.lr_scale, expected.at("batch_lr_scale").get<double>(), 1e-12) << name;
    EXPECT_NEAR(plan.weight_decay, expected.at("weight_decay_scaled").get<double>(), 1e-12) << name;

    const LearningRateSchedule rates{.num_iterations = plan.num_iterations,
                                     .warmup_steps = arguments.at("warmup_steps"),
                                     .warmdown_ratio = arguments.at("warmdown_ratio"),
                                     .final_lr_frac = arguments.at("final_lr_frac")};
    const NorMuonSchedule muon{.num_iterations = plan.num_iterations,
                               .warmdown_ratio = arguments.at("warmdown_ratio"),
                               .weight_decay = plan.weight_decay};
    for (const json& point : expected.at("schedule")) {
      const std::int64_t step = point.at("step");
      EXPECT_NEAR(rates.multiplier(step), point.at("lr_multiplier").get<double>(), 1e-12) << name << " at step " << step;
      EXPECT_NEAR(muon.momentum(step), point.at("muon_momentum").get<double>(), 1e-12) << name << " at step " << step;
      EXPECT_NEAR(muon.decay(step), point.at("muon_weight_decay").get<double>(), 1e-12) << name << " at step " << step;
    }
  }
}

}  // namespace
}  // namespace nanochat
