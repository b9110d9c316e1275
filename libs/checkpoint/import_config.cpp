#include "checkpoint/internal/import_config.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/json_file.h"
#include "checkpoint/model_config.h"
#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/json_message.h"

namespace nanochat {
namespace {

using nlohmann::json;

// Larger than any; a tree of JSON takes many times the memory of its text.
constexpr std::size_t kMaxMetaBytes = std::size_t{1} << 20;

std::vector<const char*> model_config_keys(Architecture architecture) {
  std::vector<const char*> keys = {"sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd"};
  if (architecture == Architecture::kNanochat2026_07) keys.push_back("window_pattern");
  return keys;
}
std::vector<const char*> architecture_keys(Architecture architecture) {
  std::vector<const char*> keys = {"intermediate_size", "rope_base", "rope_table_dtype", "softcap", "rms_norm_eps"};
  if (architecture == Architecture::kNanochat2026_07) keys.push_back("qk_scale");
  return keys;
}

std::string flag(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return "--" + name;
}

// Takes `name` from the file or from what was given.
class Merger {
 public:
  Merger(const json& given, std::string where) : given_(given), where_(std::move(where)) {}

  // `in_file` is null when the file does not say it.
  json take(const char* name, const json& in_file) {
    const auto found = given_.find(name);
    if (found == given_.end()) {
      if (in_file.is_null()) missing_.emplace_back(name);
      return in_file;
    }
    if (in_file.is_null() || in_file == *found) return *found;
    throw ConfigError(flag(name) + " is " + shown_json(*found) + ", but " + where_ + " says " + shown_json(in_file));
  }
  // The values that nobody gave, all in one message.
  void finish() const {
    if (missing_.empty()) return;
    std::string names, flags;
    for (const std::string& name : missing_) {
      names += (names.empty() ? "" : ", ") + name;
      flags += (flags.empty() ? "" : ", ") + flag(name);
    }
    throw CheckpointError(where_ + ": does not say " + names + ", which is not guessed; give " + flags);
  }

 private:
  const json& given_;
  std::string where_;
  std::vector<std::string> missing_;
};

json value_or_null(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? json() : *found;
}

json object_or_empty(const json& parent, const char* key, const std::string& where) {
  const auto found = parent.find(key);
  if (found == parent.end()) return json::object();
  if (!found->is_object()) throw CheckpointError(where + ": \"" + key + "\" is " + shown_json(*found) + ", expected an object");
  return *found;
}

// What gpt.py of the reference has in its code, by version.
json constants_of(const std::string& reference, Architecture architecture, const json& n_embd, const std::string& where) {
  if (reference == "none") return json::object();
  if (reference != "d314e96" && reference != "92d63d4") {
    throw ConfigError("reference \"" + reference + "\": expected d314e96, 92d63d4 or none");
  }
  if (reference != reference_commit(architecture)) {
    throw ConfigError("reference " + reference + ": the tensors beside " + where + " are those of " +
                      reference_commit(architecture));
  }
  json constants = {{"rope_base", 10000.0}, {"rope_table_dtype", "bfloat16"}, {"softcap", 15.0}, {"rms_norm_eps", 1e-6}};
  if (architecture == Architecture::kNanochat2026_07) {
    // Its tables have the compute type: float32 on CPUs. In bfloat16 the difference is that of rounding.
    constants = {{"rope_base", 100000.0},
                 {"rope_table_dtype", "float32"},
                 {"softcap", 15.0},
                 {"rms_norm_eps", 0x1p-23},
                 {"qk_scale", 1.2}};
  }
  // A wrong n_embd is reported where it is read.
  if (n_embd.is_number_integer() && n_embd > 0 && n_embd < (1 << 24)) {
    constants["intermediate_size"] = 4 * n_embd.get<std::int64_t>();
  } else {
    throw CheckpointError(where + ": n_embd is " + shown_json(n_embd) + ", expected an integer from 1 to 16,777,215");
  }
  return constants;
}

void refuse_unknown_keys(const json& object, const char* name, const auto& known, Architecture architecture,
                         const std::string& where) {
  for (const auto& [key, value] : object.items()) {
    if (std::any_of(known.begin(), known.end(), [&, &k = key](const char* candidate) { return k == candidate; })) continue;
    throw CheckpointError(where + ": \"" + name + "\" has the key \"" + key + "\", which models of the reference at " +
                          reference_commit(architecture) + " do not; another version made this one");
  }
}

}  // namespace

GptConfig complete_hugging_face_config(json config, const json& given, const std::filesystem::path& where) {
  struct Field {
    const char *name, *key;
  };
  constexpr std::array<Field, 8> kRequired = {{{"sequence_len", "max_position_embeddings"},
                                               {"n_layer", "num_hidden_layers"},
                                               {"n_head", "num_attention_heads"},
                                               {"n_embd", "hidden_size"},
                                               {"intermediate_size", "intermediate_size"},
                                               {"rms_norm_eps", "rms_norm_eps"},
                                               {"softcap", "final_logit_softcapping"},
                                               {"rope_base", "rope_theta"}}};
  Merger merger(given, where.string());
  for (const auto& [name, key] : kRequired) {
    json in_file = value_or_null(config, key);
    // null says that the logits are not capped; only an absent key leaves it open.
    if (std::string_view(key) == "final_logit_softcapping" && in_file.is_null() && config.contains(key)) in_file = 0.0;
    const json parameters = value_or_null(config, "rope_parameters");
    if (std::string_view(key) == "rope_theta" && parameters.is_object() && parameters.contains(key)) {
      in_file = parameters.at(key);
    }
    const json value = merger.take(name, in_file);
    if (value.is_null() || !in_file.is_null()) continue;
    config[key] = std::string_view(name) == "softcap" && value == 0 ? json() : value;
  }
  // These have a meaning when they are absent, so that nothing is missing; given values make it another.
  for (const auto& [name, key] : {Field{"n_kv_head", "num_key_value_heads"}, Field{"rope_table_dtype", "rope_table_dtype"}}) {
    if (given.contains(name)) config[key] = merger.take(name, value_or_null(config, key));
  }
  if (given.contains("vocab_size")) {
    const json& tokens = given.at("vocab_size");
    config["unpadded_vocab_size"] = merger.take("vocab_size", value_or_null(config, "unpadded_vocab_size"));
    if (!config.contains("vocab_size")) config["vocab_size"] = (tokens.get<std::int64_t>() + 63) / 64 * 64;
  } else if (!config.contains("vocab_size")) {
    merger.take("vocab_size", json());
  }
  merger.finish();
  return from_hugging_face_config(config, where);
}

GptConfig reference_config(const json& meta, const json& given, const std::string& reference, Architecture architecture,
                           const std::filesystem::path& where, json& assumed) {
  const std::string file = where.string();
  const json model = object_or_empty(meta, "model_config", file);
  const json stored = object_or_empty(meta, "architecture", file);
  const auto model_keys = model_config_keys(architecture), stored_keys = architecture_keys(architecture);
  refuse_unknown_keys(model, "model_config", model_keys, architecture, file);
  refuse_unknown_keys(stored, "architecture", stored_keys, architecture, file);

  Merger merger(given, file);
  json fields = json::object();
  for (const char* name : model_keys) fields[name] = merger.take(name, value_or_null(model, name));
  merger.finish();  // the MLP's size follows from the width
  const json constants = constants_of(reference, architecture, fields.at("n_embd"), file);
  assumed = json::object();
  for (const char* name : stored_keys) {
    const json in_file = value_or_null(stored, name);
    if (in_file.is_null() && !given.contains(name) && constants.contains(name)) {
      fields[name] = assumed[name] = constants.at(name);
    } else {
      fields[name] = merger.take(name, in_file);
    }
  }
  merger.finish();
  // The checks of types and ranges are those of a checkpoint's own configuration.
  json config = {{"model_type", "nanochat"},
                 {"hidden_act", "relu2"},
                 {"max_position_embeddings", fields.at("sequence_len")},
                 {"num_hidden_layers", fields.at("n_layer")},
                 {"num_attention_heads", fields.at("n_head")},
                 {"num_key_value_heads", fields.at("n_kv_head")},
                 {"hidden_size", fields.at("n_embd")},
                 {"intermediate_size", fields.at("intermediate_size")},
                 {"rope_theta", fields.at("rope_base")},
                 {"rope_table_dtype", fields.at("rope_table_dtype")},
                 {"final_logit_softcapping", fields.at("softcap")},
                 {"rms_norm_eps", fields.at("rms_norm_eps")},
                 {"vocab_size", fields.at("vocab_size")}};
  if (architecture == Architecture::kNanochat2026_07) {
    config["model_type"] = architecture_name(architecture);
    config["window_pattern"] = fields.at("window_pattern");
    config["qk_scale"] = fields.at("qk_scale");
  }
  GptConfig result = from_hugging_face_config(config, where);
  return result;  // vocab_size is that of the tokens: without unpadded_vocab_size it is taken as it is
}

nlohmann::ordered_json reference_architecture(const GptConfig& config) {
  nlohmann::ordered_json result = {{"intermediate_size", config.intermediate_size},
                                   {"rope_base", config.rope_base},
                                   {"rope_table_dtype", config.rope_table_bf16 ? "bfloat16" : "float32"},
                                   {"softcap", config.softcap},
                                   {"rms_norm_eps", config.rms_norm_eps}};
  if (config.is_2026()) result["qk_scale"] = config.qk_scale;
  return result;
}

nlohmann::ordered_json reference_model_config(const GptConfig& config) {
  nlohmann::ordered_json result = {{"sequence_len", config.sequence_len}, {"vocab_size", config.vocab_size},
                                   {"n_layer", config.n_layer},           {"n_head", config.n_head},
                                   {"n_kv_head", config.n_kv_head},       {"n_embd", config.n_embd}};
  if (config.is_2026()) result["window_pattern"] = config.window_pattern;
  return result;
}

std::string reference_commit(Architecture architecture) {
  return architecture == Architecture::kNanochat2026_07 ? "92d63d4" : "d314e96";
}

json read_python_json(const std::filesystem::path& path) {
  std::string text;
  try {
    text = read_file(path, kMaxMetaBytes);
  } catch (const DataError& error) {
    throw CheckpointError(error.what());
  }
  std::string plain;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (in_string && text[i] == '\\' && i + 1 < text.size()) {
      plain += text[i++];
    } else if (text[i] == '"') {
      in_string = !in_string;
    } else if (!in_string) {
      const std::string_view rest = std::string_view(text).substr(i);
      std::size_t word = 0;
      for (const std::string_view candidate : {"-Infinity", "Infinity", "NaN"}) {
        if (rest.starts_with(candidate)) word = std::max(word, candidate.size());
      }
      if (word > 0) {
        plain += "null";
        i += word - 1;
        continue;
      }
    }
    plain += text[i];
  }
  return parse_json_object(plain, path.string());
}

}  // namespace nanochat
