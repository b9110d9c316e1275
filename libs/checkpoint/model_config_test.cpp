#include "checkpoint/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <functional>

#include <nlohmann/json.hpp>

#include "core/errors.h"

namespace nanochat {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

json good() {
  return json::parse(R"({
    "model_type": "nanochat", "vocab_size": 1024, "hidden_size": 128, "intermediate_size": 512,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "hidden_act": "relu2", "rms_norm_eps": 1e-6, "final_logit_softcapping": 15.0, "rope_theta": 10000.0})");
}

GptConfig read(const json& object) { return from_hugging_face_config(object, "dir/config.json"); }

// What is said of a good file in which `change` was made.
std::string message_of(const std::function<void(json&)>& change) {
  json object = good();
  change(object);
  try {
    read(object);
  } catch (const CheckpointError& error) {
    return error.what();
  }
  return "";
}

RC_GTEST_PROP(ModelConfig, RoundTrip, ()) {
  GptConfig config;
  config.sequence_len = *rc::gen::inRange<std::int64_t>(1, 1 << 20);
  config.vocab_size = *rc::gen::inRange<std::int64_t>(1, 1 << 18);
  config.n_layer = *rc::gen::inRange<std::int64_t>(1, 100);
  config.n_kv_head = *rc::gen::inRange<std::int64_t>(1, 9);
  config.n_head = config.n_kv_head * *rc::gen::inRange<std::int64_t>(1, 5);
  config.n_embd = config.n_head * 2 * *rc::gen::inRange<std::int64_t>(1, 65);
  config.intermediate_size = *rc::gen::inRange<std::int64_t>(1, 10000);
  config.rope_base = *rc::gen::element(10000.0, 1e6, 500000.1);
  config.rope_table_bf16 = *rc::gen::arbitrary<bool>();
  config.softcap = *rc::gen::element(0.0, 15.0, 30.5);
  config.rms_norm_eps = *rc::gen::element(1e-6, 1.1920929e-07, 0.0);
  if (*rc::gen::arbitrary<bool>() && config.n_embd >= 24) {
    config.architecture = Architecture::kNanochat2026_07;
    config.window_pattern = *rc::gen::element<std::string>("L", "SSSL", "sl");
    config.qk_scale = *rc::gen::element(1.0, 1.2);
  }
  const json written = to_hugging_face_config(config);
  RC_ASSERT(written.at("vocab_size").get<std::int64_t>() % 64 == 0);
  RC_ASSERT(read(json::parse(written.dump())) == config);
}

TEST(ModelConfig, WritesWhatTransformersReads) {
  GptConfig config = read(good());
  config.vocab_size = 1000;
  const json written = to_hugging_face_config(config);
  EXPECT_EQ(written, json::parse(R"({
    "architectures": ["NanoChatForCausalLM"], "model_type": "nanochat", "architecture_version": 1,
    "vocab_size": 1024, "unpadded_vocab_size": 1000, "hidden_size": 128, "intermediate_size": 512,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "hidden_act": "relu2", "rms_norm_eps": 1e-6, "final_logit_softcapping": 15.0,
    "rope_theta": 10000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "rope_table_dtype": "float32", "attention_bias": false, "tie_word_embeddings": false,
    "dtype": "float32", "torch_dtype": "float32",
    "bos_token_id": null, "eos_token_id": null, "pad_token_id": null})"));
}

TEST(ModelConfig, TakesEveryFormOfTransformers) {
  json object = good();
  const GptConfig config = read(object);
  EXPECT_EQ(config.rope_base, 10000.0);
  EXPECT_FALSE(config.rope_table_bf16);
  EXPECT_EQ(config.vocab_size, 1024);
  object["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5000.0}};
  EXPECT_EQ(read(object).rope_base, 5000.0);
  object.erase("rope_theta");
  EXPECT_EQ(read(object).rope_base, 5000.0);
  object["rope_parameters"] = nullptr;
  object["rope_theta"] = 7000;
  object["rope_scaling"] = nullptr;
  EXPECT_EQ(read(object).rope_base, 7000.0);
  object["rope_parameters"] = {{"rope_type", "default"}};
  EXPECT_EQ(read(object).rope_base, 7000.0);
  object["final_logit_softcapping"] = nullptr;
  EXPECT_EQ(read(object).softcap, 0.0);
  object["num_key_value_heads"] = nullptr;
  EXPECT_EQ(read(object).n_kv_head, 4);
  object.erase("num_key_value_heads");
  EXPECT_EQ(read(object).n_kv_head, 4);
  object["rope_table_dtype"] = "bfloat16";
  EXPECT_TRUE(read(object).rope_table_bf16);
  object["head_dim"] = 32;
  object["attention_bias"] = false;
  object["use_cache"] = true;  // what it does not know it passes over
  EXPECT_EQ(read(object).head_dim(), 32);
}

TEST(ModelConfig, WritesTheNewestArchitectureUnderANameThatOthersRefuse) {
  const GptConfig config = GptConfig::from_depth(4, 300, 256, Architecture::kNanochat2026_07);
  json written = to_hugging_face_config(config);
  EXPECT_EQ(written.at("model_type"), "nanochat-2026-07");
  EXPECT_EQ(written.at("architecture"), "nanochat-2026-07");
  EXPECT_EQ(written.at("architecture_version"), 2);
  EXPECT_EQ(written.at("window_pattern"), "SSSL");
  EXPECT_EQ(written.at("qk_scale"), 1.2);
  EXPECT_EQ(written.at("rope_theta"), 100000.0);
  EXPECT_FALSE(written.contains("architectures"));
  EXPECT_EQ(read(written), config);
  const auto refuses = [&](const char* key, const json& value) {
    json changed = written;
    changed[key] = value;
    EXPECT_THROW(read(changed), CheckpointError) << key << " " << value;
  };
  refuses("window_pattern", "SXL");
  refuses("window_pattern", 3);
  refuses("qk_scale", 0);
  refuses("architecture", "nanochat-2025-12");
  refuses("architecture_version", 1);
  refuses("model_type", "nanochat");
  for (const char* key : {"window_pattern", "qk_scale"}) {
    json changed = written;
    changed.erase(key);
    EXPECT_THROW(read(changed), CheckpointError) << key;
  }
}

TEST(ModelConfig, NamesTheKeyThatIsMissing) {
  for (const char* key :
       {"model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "max_position_embeddings", "hidden_act", "rms_norm_eps", "final_logit_softcapping", "rope_theta"}) {
    EXPECT_EQ(message_of([&](json& object) { object.erase(key); }), "dir/config.json: \"" + std::string(key) + "\" is missing");
  }
}

TEST(ModelConfig, NamesTheValueThatDoesNotFit) {
  const auto with = [](const char* key, const json& value) { return message_of([&](json& object) { object[key] = value; }); };
  EXPECT_THAT(with("model_type", "llama"),
              AllOf(StartsWith("dir/config.json: \"model_type\" is \"llama\""), HasSubstr("\"nanochat\"")));
  EXPECT_THAT(with("hidden_act", "gelu"), HasSubstr("expected \"relu2\""));
  EXPECT_THAT(with("attention_bias", true), HasSubstr("\"attention_bias\" is true, expected false"));
  EXPECT_THAT(with("tie_word_embeddings", true), HasSubstr("\"tie_word_embeddings\" is true, expected false"));
  EXPECT_THAT(with("architecture_version", 2), HasSubstr("\"architecture_version\" is 2, expected 1; a newer program"));
  EXPECT_THAT(with("hidden_size", "128"), HasSubstr("\"hidden_size\" is \"128\", expected an integer"));
  EXPECT_THAT(with("hidden_size", 128.5), HasSubstr("expected an integer"));
  EXPECT_THAT(with("hidden_size", 18446744073709551615ull), HasSubstr("expected an integer"));
  EXPECT_THAT(with("hidden_size", -128), HasSubstr("dir/config.json: n_embd is -128"));
  EXPECT_THAT(with("num_hidden_layers", 0), HasSubstr("n_layer is 0"));
  EXPECT_THAT(with("num_attention_heads", 3), HasSubstr("not a multiple"));
  EXPECT_THAT(with("vocab_size", std::int64_t{1} << 60), HasSubstr("beyond the limit"));
  EXPECT_THAT(with("rms_norm_eps", "small"), HasSubstr("\"rms_norm_eps\" is \"small\", expected a number"));
  EXPECT_THAT(with("final_logit_softcapping", -1.0), HasSubstr("softcap is -1"));
  EXPECT_THAT(with("rope_theta", 0.5), HasSubstr("rope_base is 0.5"));
  EXPECT_THAT(with("rope_parameters", 3), HasSubstr("expected an object"));
  EXPECT_THAT(with("rope_parameters", {{"rope_type", "yarn"}}), HasSubstr("rope_type \"default\""));
  EXPECT_THAT(with("rope_scaling", {{"factor", 2}}), HasSubstr("scaled RoPE is not supported"));
  EXPECT_THAT(with("rope_table_dtype", "float16"), HasSubstr("expected \"float32\" or \"bfloat16\""));
  EXPECT_THAT(with("head_dim", 64), HasSubstr("\"head_dim\" is 64, expected 32"));
  EXPECT_THAT(with("unpadded_vocab_size", 960), HasSubstr("\"unpadded_vocab_size\" is 960"));
  EXPECT_THAT(with("unpadded_vocab_size", 1025), HasSubstr("vocab_size 1024"));
  EXPECT_THAT(with("unpadded_vocab_size", -5), HasSubstr("\"unpadded_vocab_size\" is -5"));
  EXPECT_EQ(with("unpadded_vocab_size", 961), "");
  EXPECT_LT(with("hidden_act", std::string(100'000, 'x')).size(), 200u);
  EXPECT_THROW(read(json::array()), CheckpointError);
}

}  // namespace
}  // namespace nanochat
