#include "model/layout.h"

#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/testing_config.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

std::vector<TensorSpec> all_tensors(const GptConfig& config) {
  std::vector<TensorSpec> tensors;
  for_each_tensor(config, [&](const TensorSpec& tensor) { tensors.push_back(tensor); });
  return tensors;
}

TEST(Layout, NamesShapesAndOrderAreTransformersAndTheReferences) {
  const std::vector<TensorSpec> tensors = all_tensors(testing::grouped_config(100, 32));  // 4 heads of 16 over 2
  ASSERT_THAT(tensors, SizeIs(2 + 2 * 6));
  const auto expect = [&](std::size_t i, const char* name, const char* reference, std::int64_t rows, std::int64_t columns) {
    EXPECT_EQ(tensors[i].name(), name);
    EXPECT_EQ(tensors[i].reference_name(), reference);
    EXPECT_THAT(tensors[i].shape, ElementsAre(rows, columns)) << name;
    EXPECT_EQ(tensors[i].numel(), rows * columns);
  };
  expect(0, "model.embed_tokens.weight", "transformer.wte.weight", 128, 64);
  expect(1, "model.layers.0.self_attn.q_proj.weight", "transformer.h.0.attn.c_q.weight", 64, 64);
  expect(2, "model.layers.0.self_attn.k_proj.weight", "transformer.h.0.attn.c_k.weight", 32, 64);
  expect(3, "model.layers.0.self_attn.v_proj.weight", "transformer.h.0.attn.c_v.weight", 32, 64);
  expect(4, "model.layers.0.self_attn.o_proj.weight", "transformer.h.0.attn.c_proj.weight", 64, 64);
  expect(5, "model.layers.0.mlp.fc1.weight", "transformer.h.0.mlp.c_fc.weight", 96, 64);
  expect(6, "model.layers.0.mlp.fc2.weight", "transformer.h.0.mlp.c_proj.weight", 64, 96);
  expect(7, "model.layers.1.self_attn.q_proj.weight", "transformer.h.1.attn.c_q.weight", 64, 64);
  expect(13, "lm_head.weight", "lm_head.weight", 128, 64);
}

TEST(Layout, TheNewestArchitectureHasTheTensorsOfTheReference) {
  const GptConfig config = testing::newest_config(100, 256);
  std::vector<std::string> names;
  std::map<std::string, TensorSpec> by_name;
  for (const TensorSpec& tensor : all_tensors(config)) {
    names.push_back(tensor.reference_name());
    by_name[names.back()] = tensor;
  }
  ASSERT_THAT(names, SizeIs(4 + 2 + 5 * 6 + 3 + 1 + 3));
  EXPECT_THAT(std::vector<std::string>(names.begin(), names.begin() + 6),
              ElementsAre("resid_lambdas", "x0_lambdas", "smear_lambda", "backout_lambda", "transformer.wte.weight",
                          "transformer.h.0.attn.c_q.weight"));
  EXPECT_THAT(std::vector<std::string>(names.end() - 5, names.end()),
              ElementsAre("lm_head.weight", "smear_gate.weight", "value_embeds.0.weight", "value_embeds.2.weight",
                          "value_embeds.4.weight"));
  EXPECT_THAT(by_name.at("resid_lambdas").shape, ElementsAre(5));
  EXPECT_THAT(by_name.at("transformer.h.2.attn.ve_gate.weight").shape, ElementsAre(2, 12));
  EXPECT_FALSE(by_name.contains("transformer.h.1.attn.ve_gate.weight"));
  EXPECT_THAT(by_name.at("value_embeds.4.weight").shape, ElementsAre(128, 32));
  EXPECT_EQ(by_name.at("value_embeds.4.weight").name(), "model.value_embeds.4.weight");
  EXPECT_EQ(by_name.at("value_embeds.4.weight").layer, 4);
}

TEST(Layout, WindowsFollowThePatternAndTheLastLayerIsLong) {
  const auto windows = [](const char* pattern, std::int64_t layers, std::int64_t sequence_len) {
    GptConfig config = testing::newest_config(100, sequence_len);
    config.window_pattern = pattern;
    config.n_layer = layers;
    std::vector<std::int64_t> result;
    for (std::int64_t layer = 0; layer < layers; ++layer) result.push_back(plan_layer(config, layer).window.value());
    return result;
  };
  EXPECT_THAT(windows("SSSL", 6, 2048), ElementsAre(512, 512, 512, 2048, 512, 2048));
  EXPECT_THAT(windows("SSL", 4, 256), ElementsAre(128, 128, 256, 256));
  EXPECT_THAT(windows("s", 2, 513), ElementsAre(256, 513)) << "a quarter rounds up to whole tiles";
  EXPECT_THAT(windows("LLLLS", 1, 384), ElementsAre(384));
  EXPECT_FALSE(plan_layer(testing::grouped_config(100, 32), 0).window.has_value());
}

TEST(Layout, TensorsThatShareAWeightTileItsRows) {
  std::map<std::pair<std::int64_t, WeightSlot>, std::int64_t> next_row;
  for (const TensorSpec& tensor : all_tensors(testing::grouped_config(100, 32))) {
    std::int64_t& row = next_row[{tensor.layer, tensor.slot}];
    EXPECT_EQ(tensor.first_row, row) << tensor.name();
    row += tensor.shape[0];
  }
  EXPECT_EQ((next_row[{1, WeightSlot::kQkv}]), 64 + 2 * 32);
  EXPECT_THAT(next_row, SizeIs(2 + 2 * 4));
}

TEST(Layout, AVisitorMayStopEarly) {
  GptConfig config = testing::grouped_config(100, 32);
  config.n_layer = std::int64_t{1} << 40;  // of a damaged file
  int visited = 0;
  EXPECT_THROW(for_each_tensor(config,
                               [&](const TensorSpec&) {
                                 if (++visited == 20) throw std::runtime_error("enough");
                               }),
               std::runtime_error);
  EXPECT_EQ(visited, 20);
}

}  // namespace
}  // namespace nanochat
