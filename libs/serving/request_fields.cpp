#include "serving/internal/request_fields.h"

#include <algorithm>
#include <charconv>

#include <spdlog/fmt/fmt.h>

#include "core/utf8.h"

namespace nanochat {
namespace {

using nlohmann::json;

std::vector<std::string> parse_stop(const JsonFields& fields, const char* name) {
  const json* value = fields.find(name);
  if (value == nullptr) return {};
  if (!value->is_string() && !value->is_array()) throw fields.wrong_type(name, "a string or an array of strings", *value);
  std::vector<std::string> stops;
  for (const json& one : value->is_string() ? json::array({*value}) : *value) {
    if (!one.is_string()) throw fields.wrong_type(name, "an array of strings", one);
    stops.push_back(one.get<std::string>());
    const auto length = static_cast<std::size_t>(utf8::count_characters(stops.back()));
    if (length == 0 || length > kMaxStopCharacters) {
      throw ApiError::invalid(
          fmt::format("{}: found a string of {} characters, expected 1 to {}", name, length, kMaxStopCharacters), name);
    }
  }
  if (stops.size() > kMaxStopStrings) {
    throw ApiError::invalid(fmt::format("{}: found {} strings, expected at most {}", name, stops.size(), kMaxStopStrings),
                            name);
  }
  return stops;
}

std::vector<std::pair<std::int32_t, double>> parse_logit_bias(const JsonFields& fields) {
  std::vector<std::pair<std::int32_t, double>> biases;
  const json* value = fields.object("logit_bias");
  if (value == nullptr) return biases;
  const JsonFields entries(*value, "logit_bias");
  for (const auto& [key, unused] : value->items()) {
    std::int32_t id = -1;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || id < 0) {
      throw ApiError::invalid(fmt::format("logit_bias: found the key \"{}\", expected token ids", key), "logit_bias");
    }
    if (const auto bias = entries.number(key, -100, 100)) biases.emplace_back(id, *bias);
  }
  return biases;
}

constexpr const char* kInstead = "use response_format or guided_json";
constexpr const char* kAnother = "this server does not have this sampler";

constexpr UnsupportedField kUnsupported[] = {
    {"guided_whitespace_pattern", kInstead},
    {"structural_tag", kInstead},
    {"json_schema", kInstead},
    {"ebnf", kInstead},
    {"format", kInstead},
    {"nvext", kInstead},
    {"functions", "use tools"},
    {"function_call", "use tool_choice", R"(["none", "auto"])"},
    {"bad_words", "use logit_bias"},
    {"allowed_token_ids", "use logit_bias"},
    {"logits_processors", "use logit_bias"},
    {"max_new_tokens", "use max_tokens", "[]"},
    {"n_predict", "use max_tokens", "[-1]"},
    {"truncate_prompt_tokens", "prompts are never cut", "[]"},
    {"include_stop_str_in_output", "answers end before a stop string"},
    {"skip_special_tokens", "answers never contain special tokens", "[true]"},
    {"use_beam_search", kAnother},
    {"repeat_penalty", "use repetition_penalty", "[1]"},
    {"no_repeat_ngram_size", kAnother, "[0]"},
    {"typical_p", kAnother, "[1]"},
    {"tfs_z", kAnother, "[1]"},
    {"top_a", kAnother, "[0]"},
    {"top_n_sigma", kAnother, "[-1, 0]"},
    {"mirostat", kAnother, "[0]"},
    {"mirostat_mode", kAnother, "[0]"},
    {"dynatemp_range", kAnother, "[0]"},
    {"dry_multiplier", kAnother, "[0]"},
    {"xtc_probability", kAnother, "[0]"},
};

}  // namespace

void refuse_fields(const JsonFields& fields, std::span<const UnsupportedField> unsupported) {
  for (const UnsupportedField& one : unsupported) {
    const json* value = fields.find(one.name);
    if (value == nullptr) continue;
    const json neutral = json::parse(one.neutral);
    if (std::find(neutral.begin(), neutral.end(), *value) != neutral.end()) continue;
    throw ApiError::invalid(fmt::format("{}: is not supported; {}", fields.name_of(one.name), one.why),
                            fields.name_of(one.name), "unsupported");
  }
}

std::vector<TokenId> parse_token_ids(const json& value, const std::string& where) {
  if (!value.is_array())
    throw ApiError::invalid(fmt::format("{}: found {}, expected an array of token ids", where, json_kind(value)), where);
  std::vector<TokenId> ids;
  ids.reserve(value.size());
  for (const json& id : value) {
    const bool fits = id.is_number_integer() && id.get<std::int64_t>() >= 0 && id.get<std::int64_t>() <= INT32_MAX;
    if (!fits) {
      throw ApiError::invalid(fmt::format("{}: found {}, expected token ids", where,
                                          id.is_number() ? id.dump() : std::string(json_kind(id))),
                              where);
    }
    ids.push_back(id.get<TokenId>());
  }
  return ids;
}

GenerationFields parse_generation_fields(const JsonFields& fields, const RequestDefaults& defaults, const char* stop_field) {
  GenerationFields out;
  out.model = fields.string("model").value_or("");
  out.stream = fields.boolean("stream").value_or(false);
  if (const json* options = fields.object("stream_options")) {
    if (!out.stream) throw ApiError::invalid("stream_options: needs \"stream\": true", "stream_options");
    const JsonFields stream(*options, "stream_options");
    out.include_usage = stream.boolean("include_usage").value_or(false);
    out.continuous_usage = stream.boolean("continuous_usage_stats").value_or(false);
  }
  out.n = fields.integer("n", 1, kMaxChoices).value_or(1);
  out.min_tokens = fields.integer("min_tokens", 0, INT32_MAX).value_or(0);
  out.ignore_eos = fields.boolean("ignore_eos").value_or(false);
  out.stop = parse_stop(fields, stop_field);
  if (const json* ids = fields.find("stop_token_ids")) out.stop_token_ids = parse_token_ids(*ids, "stop_token_ids");
  if (out.stop_token_ids.size() > kMaxStopTokenIds) {
    throw ApiError::invalid(fmt::format("stop_token_ids: found {} ids, expected at most {}", out.stop_token_ids.size(),
                                        kMaxStopTokenIds),
                            "stop_token_ids");
  }
  SamplingOptions& sampling = out.sampling;
  sampling.temperature = fields.number("temperature", 0, 100).value_or(defaults.temperature);
  sampling.top_k = fields.integer("top_k", -1, INT32_MAX).value_or(defaults.top_k);
  if (sampling.top_k < 0) sampling.top_k = 0;  // vLLM's value for "no limit"
  sampling.top_p = fields.number("top_p", 0, 1).value_or(1.0);
  if (sampling.top_p == 0.0) {
    throw ApiError::invalid("top_p: found 0, expected a number above 0 and at most 1", "top_p", "out_of_range");
  }
  sampling.min_p = fields.number("min_p", 0, 1).value_or(0.0);
  sampling.repetition_penalty = fields.number("repetition_penalty", 0.01, 100).value_or(1.0);
  sampling.frequency_penalty = fields.number("frequency_penalty", -2, 2).value_or(0.0);
  sampling.presence_penalty = fields.number("presence_penalty", -2, 2).value_or(0.0);
  sampling.logit_bias = parse_logit_bias(fields);
  const auto seed = fields.integer("seed", INT64_MIN, INT64_MAX);
  sampling.seed = seed ? static_cast<std::uint64_t>(*seed) : defaults.seed;
  // This server returns every answer that it generates, so only best_of = n is possible.
  if (const auto best_of = fields.integer("best_of", 1, kMaxChoices); best_of && *best_of != out.n) {
    throw ApiError::invalid(
        fmt::format("best_of: found {}, expected {}, the value of n; this server returns every answer that it generates",
                    *best_of, out.n),
        "best_of", "unsupported");
  }
  fields.string("user");  // user and metadata have no effect, but their types are checked
  fields.object("metadata");
  return out;
}

void refuse_unsupported(const JsonFields& fields, std::span<const UnsupportedField> of_protocol) {
  refuse_fields(fields, of_protocol);
  refuse_fields(fields, kUnsupported);
}

}  // namespace nanochat
