#include "checkpoint/model_config.h"

#include <cmath>
#include <limits>
#include <string>

#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "core/json_message.h"

namespace nanochat {
namespace {

using nlohmann::json;

// Fields of one file; every message begins with its name.
class Reader {
 public:
  Reader(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

  [[noreturn]] void fail(const std::string& what) const { throw CheckpointError(where_ + ": " + what); }
  [[noreturn]] void fail(const char* key, const json& found, const std::string& expected) const {
    fail("\"" + std::string(key) + "\" is " + shown_json(found) + ", expected " + expected);
  }

  // Null when the key is absent: transformers writes either.
  const json& optional(const char* key) const {
    static const json kNull;
    const auto found = object_.find(key);
    return found == object_.end() ? kNull : *found;
  }
  const json& required(const char* key) const {
    if (!object_.contains(key)) fail("\"" + std::string(key) + "\" is missing");
    return object_.at(key);
  }
  std::int64_t integer(const char* key, const json& value) const {
    const bool fits = value.is_number_integer() &&
                      (!value.is_number_unsigned() ||
                       value.get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()));
    if (!fits) fail(key, value, "an integer");
    return value.get<std::int64_t>();
  }
  std::int64_t integer(const char* key) const { return integer(key, required(key)); }
  double number(const char* key, const json& value) const {
    if (!value.is_number() || !std::isfinite(value.get<double>())) fail(key, value, "a number");
    return value.get<double>();
  }
  void expect_text(const char* key, const char* only) const {
    const json& value = required(key);
    if (value != only) fail(key, value, "\"" + std::string(only) + "\", the only kind that this program computes");
  }
  void expect_false(const char* key) const {
    const json& value = optional(key);
    if (!value.is_null() && value != false) fail(key, value, "false, the only kind that this program computes");
  }

 private:
  const json& object_;
  std::string where_;
};

double rope_base(const Reader& reader) {
  if (const json& scaling = reader.optional("rope_scaling"); !scaling.is_null()) {
    reader.fail("rope_scaling", scaling, "null: a scaled RoPE is not supported");
  }
  const json& parameters = reader.optional("rope_parameters");
  if (parameters.is_null()) return reader.number("rope_theta", reader.required("rope_theta"));
  if (!parameters.is_object()) reader.fail("rope_parameters", parameters, "an object");
  const std::string type = "rope_type";
  if (parameters.contains(type) && parameters.at(type) != "default") {
    reader.fail("rope_parameters", parameters, "rope_type \"default\", the only kind that this program computes");
  }
  if (!parameters.contains("rope_theta")) return reader.number("rope_theta", reader.required("rope_theta"));
  return reader.number("rope_theta", parameters.at("rope_theta"));
}

constexpr int kFirstArchitectureVersion = 1;  // nanochat-2025-12, and all that transformers knows

Architecture read_architecture(const Reader& reader) {
  const std::string newest = architecture_name(Architecture::kNanochat2026_07);
  const bool is_newest = reader.required("model_type") == newest;
  if (!is_newest) reader.expect_text("model_type", "nanochat");
  const int expected = is_newest ? kArchitectureVersion : kFirstArchitectureVersion;
  if (const json& version = reader.optional("architecture_version"); !version.is_null()) {
    if (reader.integer("architecture_version", version) != expected) {
      reader.fail("architecture_version", version, std::to_string(expected) + "; a newer program wrote it, or it is damaged");
    }
  }
  const Architecture architecture = is_newest ? Architecture::kNanochat2026_07 : Architecture::kNanochat2025_12;
  if (const json& name = reader.optional("architecture"); !name.is_null() && name != architecture_name(architecture)) {
    reader.fail("architecture", name, "\"" + std::string(architecture_name(architecture)) + "\", as model_type says");
  }
  return architecture;
}

}  // namespace

nlohmann::ordered_json to_hugging_face_config(const GptConfig& config) {
  nlohmann::ordered_json result;
  if (config.is_2026()) {
    // No class of transformers computes this one: a model_type of its own keeps them from trying.
    result["model_type"] = result["architecture"] = architecture_name(config.architecture);
    result["architecture_version"] = kArchitectureVersion;
    result["window_pattern"] = config.window_pattern;
    result["qk_scale"] = config.qk_scale;
  } else {
    result["architectures"] = {"NanoChatForCausalLM"};
    result["model_type"] = "nanochat";
    result["architecture_version"] = kFirstArchitectureVersion;
  }
  result["vocab_size"] = config.padded_vocab_size();
  result["unpadded_vocab_size"] = config.vocab_size;
  result["hidden_size"] = config.n_embd;
  result["intermediate_size"] = config.intermediate_size;
  result["num_hidden_layers"] = config.n_layer;
  result["num_attention_heads"] = config.n_head;
  result["num_key_value_heads"] = config.n_kv_head;
  result["max_position_embeddings"] = config.sequence_len;
  result["hidden_act"] = "relu2";
  result["rms_norm_eps"] = config.rms_norm_eps;
  result["final_logit_softcapping"] = config.softcap > 0 ? nlohmann::ordered_json(config.softcap) : nullptr;
  result["rope_theta"] = config.rope_base;
  result["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", config.rope_base}};
  result["rope_table_dtype"] = config.rope_table_bf16 ? "bfloat16" : "float32";
  result["attention_bias"] = false;
  result["tie_word_embeddings"] = false;
  result["dtype"] = "float32";
  result["torch_dtype"] = "float32";
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) result[key] = nullptr;
  return result;
}

GptConfig from_hugging_face_config(const json& object, const std::filesystem::path& where) {
  const Reader reader(object, where.string());
  if (!object.is_object()) reader.fail("holds no JSON object");
  const Architecture architecture = read_architecture(reader);
  reader.expect_text("hidden_act", "relu2");
  reader.expect_false("attention_bias");
  if (const json& tied = reader.optional("tie_word_embeddings"); !tied.is_null() && tied != false) {
    reader.fail("tie_word_embeddings", tied, "false; `nanochat import` makes a head of its own of the embedding");
  }

  GptConfig config;
  config.architecture = architecture;
  if (config.is_2026()) {
    const json& pattern = reader.required("window_pattern");
    if (!pattern.is_string()) reader.fail("window_pattern", pattern, "a text of the letters S and L");
    config.window_pattern = pattern.get<std::string>();
    config.qk_scale = reader.number("qk_scale", reader.required("qk_scale"));
  }
  config.sequence_len = reader.integer("max_position_embeddings");
  config.n_layer = reader.integer("num_hidden_layers");
  config.n_head = reader.integer("num_attention_heads");
  const json& n_kv_head = reader.optional("num_key_value_heads");
  config.n_kv_head = n_kv_head.is_null() ? config.n_head : reader.integer("num_key_value_heads", n_kv_head);
  config.n_embd = reader.integer("hidden_size");
  config.intermediate_size = reader.integer("intermediate_size");
  config.rope_base = rope_base(reader);
  config.rms_norm_eps = reader.number("rms_norm_eps", reader.required("rms_norm_eps"));
  const json& softcap = reader.required("final_logit_softcapping");
  config.softcap = softcap.is_null() ? 0.0 : reader.number("final_logit_softcapping", softcap);

  const json& table = reader.optional("rope_table_dtype");
  if (!table.is_null() && table != "float32" && table != "bfloat16") {
    reader.fail("rope_table_dtype", table, "\"float32\" or \"bfloat16\"");
  }
  config.rope_table_bf16 = table == "bfloat16";

  const std::int64_t rows = reader.integer("vocab_size");
  config.vocab_size = rows;
  try {
    config.validate();
  } catch (const ConfigError& error) {
    reader.fail(error.what());
  }
  if (const json& unpadded = reader.optional("unpadded_vocab_size"); !unpadded.is_null()) {
    config.vocab_size = reader.integer("unpadded_vocab_size", unpadded);
    if (config.vocab_size < 1 || config.vocab_size > rows || config.padded_vocab_size() != rows) {
      reader.fail("unpadded_vocab_size", unpadded,
                  "a size that fills up to vocab_size " + std::to_string(rows) + " when it is rounded up to a multiple of 64");
    }
  }
  if (const json& head_dim = reader.optional("head_dim"); !head_dim.is_null()) {
    if (reader.integer("head_dim", head_dim) != config.head_dim()) {
      reader.fail("head_dim", head_dim, std::to_string(config.head_dim()) + ", hidden_size / num_attention_heads");
    }
  }
  return config;
}

}  // namespace nanochat
