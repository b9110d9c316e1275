#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(GptConfig, DepthDialGivesTheReferencesShapes) {
  const GptConfig d20 = GptConfig::from_depth(20, 65536, 2048);
  EXPECT_EQ(d20.n_embd, 1280);
  EXPECT_EQ(d20.n_head, 10);
  EXPECT_EQ(d20.head_dim(), 128);
  EXPECT_EQ(d20.intermediate_size, 5120);
  EXPECT_EQ(d20.parameter_count(), 560'988'160);  // as the reference prints for its d20 speedrun
  EXPECT_NEAR(d20.flops_per_token(), 3.491758e9, 1e4);

  const GptConfig d4 = GptConfig::from_depth(4, 4096, 256);
  EXPECT_EQ(d4.n_embd, 256);
  EXPECT_EQ(d4.n_head, 4);
  EXPECT_EQ(d4.head_dim(), 64);
}

TEST(GptConfig, EveryDepthGivesAValidModel) {
  for (std::int64_t depth = 1; depth <= 40; ++depth) {
    const GptConfig config = GptConfig::from_depth(depth, 50257, 128);
    EXPECT_NO_THROW(config.validate()) << depth;
    EXPECT_EQ(config.n_embd, 64 * depth);
    EXPECT_EQ(config.n_head * config.head_dim(), config.n_embd);
  }
}

TEST(GptConfig, VocabularyIsPaddedTo64) {
  EXPECT_EQ(GptConfig::from_depth(4, 1000, 64).padded_vocab_size(), 1024);
  EXPECT_EQ(GptConfig::from_depth(4, 1024, 64).padded_vocab_size(), 1024);
}

TEST(GptConfig, CountsGroupedHeads) {
  GptConfig config = GptConfig::from_depth(4, 1024, 128);
  config.n_embd = 128;
  config.n_head = 4;
  config.n_kv_head = 2;
  config.intermediate_size = 512;
  // Per layer: q 128*128, k and v 64*128 each, o 128*128, MLP 2*128*512; two tables of 1024*128.
  EXPECT_EQ(config.parameter_count(), 4 * (2 * 128 * 128 + 2 * 64 * 128 + 2 * 128 * 512) + 2 * 1024 * 128);
  EXPECT_EQ(config.qkv_size(), 256);
}

TEST(GptConfig, NamesTheFieldThatDoesNotFit) {
  const auto broken = [](auto change) {
    GptConfig config = GptConfig::from_depth(4, 1024, 128);
    change(config);
    return [config] { config.validate(); };
  };
  EXPECT_THAT(broken([](GptConfig& c) { c.n_head = 3; }),
              ThrowsMessage<ConfigError>(HasSubstr("n_embd 256 is not a multiple of n_head 3")));
  EXPECT_THAT(broken([](GptConfig& c) { c.n_kv_head = 3; }),
              ThrowsMessage<ConfigError>(HasSubstr("n_head 4 is not a multiple of n_kv_head 3")));
  EXPECT_THAT(broken([](GptConfig& c) { c.vocab_size = 0; }), ThrowsMessage<ConfigError>(HasSubstr("vocab_size is 0")));
  EXPECT_THAT(broken([](GptConfig& c) { c.n_layer = -1; }), ThrowsMessage<ConfigError>(HasSubstr("n_layer is -1")));
  EXPECT_THAT(broken([](GptConfig& c) { c.n_head = c.n_kv_head = 256; }),
              ThrowsMessage<ConfigError>(HasSubstr("head size 1 is odd")));
  EXPECT_THAT(broken([](GptConfig& c) { c.softcap = -1; }), ThrowsMessage<ConfigError>(HasSubstr("softcap is -1")));
  EXPECT_THAT(broken([](GptConfig& c) { c.rope_base = 1; }), ThrowsMessage<ConfigError>(HasSubstr("rope_base is 1,")));
  EXPECT_THAT(broken([](GptConfig& c) { c.rms_norm_eps = -1; }), ThrowsMessage<ConfigError>(HasSubstr("rms_norm_eps is -1")));
  EXPECT_THAT(broken([](GptConfig& c) { c.vocab_size = std::int64_t{1} << 40; }),
              ThrowsMessage<ConfigError>(HasSubstr("a model dimension of 1099511627776 is beyond the limit of ")));
}

TEST(GptConfig, DepthDialOfTheNewestArchitecture) {
  const auto of_depth = [](std::int64_t depth) {
    return GptConfig::from_depth(depth, 32768, 2048, Architecture::kNanochat2026_07);
  };
  const GptConfig d12 = of_depth(12);
  EXPECT_EQ(d12.n_embd, 768);
  EXPECT_EQ(d12.n_head, 6);
  EXPECT_EQ(d12.parameter_count(), 286'261'730);
  EXPECT_EQ(of_depth(20).parameter_count(), 896'533'746);
  EXPECT_EQ(of_depth(5).n_embd, 384) << "rounded up to whole heads";
  EXPECT_EQ(of_depth(5).n_head, 3);
  EXPECT_EQ(of_depth(2).flops_per_token(), 31457496.0);  // head_goldens/schedules.json
  for (std::int64_t depth = 1; depth <= 30; ++depth) EXPECT_NO_THROW(of_depth(depth).validate()) << depth;
}

TEST(GptConfig, NamesArchitectures) {
  for (const Architecture architecture : {Architecture::kNanochat2025_12, Architecture::kNanochat2026_07}) {
    EXPECT_EQ(architecture_of_name(architecture_name(architecture)), architecture);
  }
  EXPECT_EQ(architecture_of_name("nanochat"), std::nullopt);
  GptConfig config = GptConfig::from_depth(4, 1024, 128);
  config.window_pattern = "SSSL";
  EXPECT_THROW(config.validate(), ConfigError) << "no windows in the older one";
  config = GptConfig::from_depth(4, 1024, 128, Architecture::kNanochat2026_07);
  config.window_pattern = "";
  EXPECT_THROW(config.validate(), ConfigError);
  config.window_pattern = "SX";
  EXPECT_THROW(config.validate(), ConfigError);
}

TEST(GptConfig, ComparesEveryField) {
  const GptConfig config = GptConfig::from_depth(4, 1024, 128);
  EXPECT_EQ(config, GptConfig::from_depth(4, 1024, 128));
  const auto with = [&](auto GptConfig::*field, auto value) {
    GptConfig other = config;
    other.*field = value;
    return other;
  };
  for (const auto field : {&GptConfig::sequence_len, &GptConfig::vocab_size, &GptConfig::n_layer, &GptConfig::n_head,
                           &GptConfig::n_kv_head, &GptConfig::n_embd, &GptConfig::intermediate_size}) {
    EXPECT_NE(config, with(field, config.*field + 1));
  }
  for (const auto field : {&GptConfig::rope_base, &GptConfig::softcap, &GptConfig::rms_norm_eps}) {
    EXPECT_NE(config, with(field, config.*field + 1.0));
  }
  EXPECT_NE(config, with(&GptConfig::rope_table_bf16, !config.rope_table_bf16));
}

}  // namespace
}  // namespace nanochat
