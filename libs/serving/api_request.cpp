#include "serving/internal/api_request.h"

#include <algorithm>
#include <charconv>

#include <spdlog/fmt/fmt.h>

#include "core/utf8.h"
#include "serving/internal/guided_fields.h"
#include "serving/internal/json_fields.h"
#include "serving/internal/tool_call.h"

namespace nanochat {
namespace {

using nlohmann::json;

std::vector<std::string> parse_stop(const JsonFields& fields) {
  const json* value = fields.find("stop");
  if (value == nullptr) return {};
  if (!value->is_string() && !value->is_array()) throw fields.wrong_type("stop", "a string or an array of strings", *value);
  std::vector<std::string> stops;
  for (const json& one : value->is_string() ? json::array({*value}) : *value) {
    if (!one.is_string()) throw fields.wrong_type("stop", "an array of strings", one);
    stops.push_back(one.get<std::string>());
    const auto length = static_cast<std::size_t>(utf8::count_characters(stops.back()));
    if (length == 0 || length > kMaxStopCharacters) {
      throw ApiError::invalid(
          fmt::format("stop: found a string of {} characters, expected 1 to {}", length, kMaxStopCharacters), "stop");
    }
  }
  if (stops.size() > kMaxStopStrings) {
    throw ApiError::invalid(fmt::format("stop: found {} strings, expected at most {}", stops.size(), kMaxStopStrings), "stop");
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

// The fields that chats and completions share.
GenerationFields parse_generation_fields(const JsonFields& fields, const RequestDefaults& defaults) {
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
  out.stop = parse_stop(fields);
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

// ------------------------------------------------------------------------------------- unsupported fields

constexpr const char* kInstead = "use response_format or guided_json";
constexpr const char* kAnother = "this server does not have this sampler";
constexpr const char* kTemplate = "chats are rendered as the model was trained";

struct Unsupported {
  const char* name;
  const char* why;
  const char* neutral = R"([false, "", [], {}])";  // values without an effect
};

constexpr Unsupported kUnsupported[] = {
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

constexpr Unsupported kUnsupportedInChats[] = {
    {"modalities", "answers are text", R"(["text", ["text"]])"},
    {"audio", "answers are text", "[]"},
    {"web_search_options", "this server has no web search", "[]"},
    {"chat_template", kTemplate},
    {"chat_template_kwargs", kTemplate},
    {"documents", kTemplate},
    {"add_special_tokens", kTemplate},
    {"add_generation_prompt", kTemplate, "[true]"},
    {"continue_final_message", kTemplate},
    {"echo", "only completions have it"},
};

constexpr Unsupported kUnsupportedInCompletions[] = {
    {"messages", "only chats have it", "[]"},
    {"tools", "only chats have it"},
    {"tool_choice", "only chats have it", R"(["none", "auto"])"},
    {"nanochat_tools", "only chats have it"},
};

template <std::size_t N>
void refuse_unsupported(const JsonFields& fields, const Unsupported (&unsupported)[N]) {
  for (const Unsupported& one : unsupported) {
    const json* value = fields.find(one.name);
    if (value == nullptr) continue;
    const json neutral = json::parse(one.neutral);
    if (std::find(neutral.begin(), neutral.end(), *value) != neutral.end()) continue;
    throw ApiError::invalid(fmt::format("{}: is not supported; {}", one.name, one.why), one.name, "unsupported");
  }
}

// ------------------------------------------------------------------------------------------------- the form of the answer

void parse_response_format(const JsonFields& fields, const nlohmann::ordered_json& in_order, RequestedFormat& request) {
  const json* value = fields.object("response_format");
  if (value == nullptr) return;
  const JsonFields format(*value, "response_format");
  const std::string type = format.string("type").value_or("");
  if (type != "text" && type != "json_object" && type != "json_schema") {
    throw ApiError::invalid(fmt::format("response_format.type: found \"{}\", expected text, json_object or json_schema", type),
                            "response_format.type");
  }
  const json* wrapper = format.object("json_schema");
  const json* schema = format.object("schema");  // the field of llama.cpp's server and others
  for (const auto& [key, member] : value->items()) {
    const bool known = key == "type" || (type == "json_schema" && key == "json_schema") || (type != "text" && key == "schema");
    if (known || member.is_null()) continue;
    const std::string where = "response_format." + key;
    throw ApiError::invalid(fmt::format("{}: is not supported with \"type\": \"{}\"", where, type), where, "unsupported");
  }
  if (type == "text") return;
  request.format_field = "response_format";
  request.format = type == "json_schema" || schema != nullptr ? ResponseFormat::kJsonSchema : ResponseFormat::kJsonObject;
  if (request.format == ResponseFormat::kJsonObject) return;
  if (wrapper != nullptr && schema != nullptr) {
    throw ApiError::invalid("response_format.schema: found schema and json_schema, expected only one of them",
                            "response_format.schema");
  }
  if (wrapper == nullptr && schema == nullptr) {
    throw ApiError::invalid("response_format.json_schema: missing", "response_format.json_schema");
  }
  if (wrapper != nullptr && JsonFields(*wrapper, "response_format.json_schema").object("schema") == nullptr) {
    throw ApiError::invalid("response_format.json_schema.schema: missing", "response_format.json_schema.schema");
  }
  const nlohmann::ordered_json& ordered = in_order.at("response_format");
  request.schema = wrapper != nullptr ? ordered.at("json_schema").at("schema") : ordered.at("schema");
}

// vLLM's field: a schema, or the JSON text of one.
void parse_guided_json(const JsonFields& fields, const nlohmann::ordered_json& in_order, RequestedFormat& request) {
  const json* value = fields.find("guided_json");
  if (value == nullptr) return;
  if (!value->is_object() && !value->is_string())
    throw fields.wrong_type("guided_json", "a schema, or the text of one", *value);
  if (request.format != ResponseFormat::kText) {
    throw ApiError::invalid("guided_json: cannot be combined with response_format", "guided_json");
  }
  request.format = ResponseFormat::kJsonSchema;
  request.format_field = "guided_json";
  if (value->is_object()) {
    request.schema = in_order.at("guided_json");
    return;
  }
  const std::string& text = value->get_ref<const std::string&>();
  parse_json_object(text, false, "guided_json");  // only checks it
  request.schema = parse_in_order(fmt::format("{{\"guided_json\":{}}}", text), {"guided_json"}).at("guided_json");
}

// Parses tools and tool_choice. Returns the description of the functions for the system message.
std::string parse_functions(const JsonFields& fields, const nlohmann::ordered_json& in_order, ChatRequest& request) {
  std::vector<ToolFunction> functions;
  if (const json* tools = fields.array("tools")) functions = parse_tools(*tools, in_order.at("tools"));
  fields.boolean("parallel_tool_calls");  // an answer has at most one call
  const ToolRequest tools = parse_tool_choice(fields.find("tool_choice"), std::move(functions));
  if (tools.choice == ToolChoice::kRequired) {
    if (request.format != ResponseFormat::kText && request.format_field != "response_format") {
      throw ApiError::invalid(fmt::format("{}: cannot be combined with a call that tool_choice requires", request.format_field),
                              request.format_field);
    }
    request.format_field = "tools";
    request.format = ResponseFormat::kToolCall;
    request.schema = call_schema(tools.functions);
  }
  return describe_tools(tools.functions);
}

}  // namespace

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

ChatRequest parse_chat_request(std::string_view text, const RequestDefaults& defaults) {
  const json body = parse_json_object(text);
  const JsonFields fields(body);
  const nlohmann::ordered_json in_order = parse_in_order(text, {"response_format", "guided_json", "tools"});
  refuse_unsupported(fields, kUnsupported);
  refuse_unsupported(fields, kUnsupportedInChats);
  ChatRequest request;
  request.fields = parse_generation_fields(fields, defaults);
  const auto limit = fields.integer("max_tokens", 1, INT32_MAX);
  const auto newer = fields.integer("max_completion_tokens", 1, INT32_MAX);
  request.fields.max_tokens = newer ? newer : limit;
  request.fields.logprobs = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, kMaxTopLogprobs);
  if (top.value_or(0) > 0 && !request.fields.logprobs) {
    throw ApiError::invalid("top_logprobs: needs \"logprobs\": true", "top_logprobs");
  }
  request.fields.top_logprobs = top.value_or(0);
  parse_response_format(fields, in_order, request);
  parse_guided_json(fields, in_order, request);
  parse_guided_fields(fields, request);
  request.nanochat_tools = fields.boolean("nanochat_tools");
  const json* messages = fields.array("messages");
  if (messages == nullptr) throw ApiError::invalid("messages: missing", "messages");
  request.conversation = parse_messages(*messages, parse_functions(fields, in_order, request));
  return request;
}

CompletionRequest parse_completion_request(std::string_view text, const RequestDefaults& defaults) {
  const json body = parse_json_object(text);
  const JsonFields fields(body);
  const nlohmann::ordered_json in_order = parse_in_order(text, {"response_format", "guided_json"});
  refuse_unsupported(fields, kUnsupported);
  refuse_unsupported(fields, kUnsupportedInCompletions);
  CompletionRequest request;
  request.fields = parse_generation_fields(fields, defaults);
  parse_response_format(fields, in_order, request);
  parse_guided_json(fields, in_order, request);
  parse_guided_fields(fields, request);
  request.echo = fields.boolean("echo").value_or(false);
  request.add_special_tokens = fields.boolean("add_special_tokens").value_or(true);
  request.fields.max_tokens = fields.integer("max_tokens", 0, INT32_MAX).value_or(16);  // the default of OpenAI's API
  if (*request.fields.max_tokens == 0 && !request.echo) {
    throw ApiError::invalid("max_tokens: found 0, expected at least 1, unless \"echo\" is true", "max_tokens", "out_of_range");
  }
  // An integer. Some clients send a boolean, as in chats.
  const json* logprobs = fields.find("logprobs");
  if (logprobs != nullptr && logprobs->is_boolean()) {
    request.fields.logprobs = logprobs->get<bool>();
  } else if (const auto count = fields.integer("logprobs", 0, kMaxTopLogprobs)) {
    request.fields.logprobs = true;
    request.fields.top_logprobs = *count;
  }
  const auto suffix = fields.string("suffix");
  if (suffix && !suffix->empty()) {
    throw ApiError::invalid("suffix: is not supported; this model can only continue text", "suffix", "unsupported");
  }
  const json* prompt = fields.find("prompt");
  if (prompt == nullptr) throw ApiError::invalid("prompt: missing", "prompt");
  if (prompt->is_string()) {
    request.prompts.emplace_back(prompt->get<std::string>());
  } else if (!prompt->is_array() || prompt->empty()) {
    throw fields.wrong_type("prompt", "a string, token ids, or a list of either that is not empty", *prompt);
  } else if (prompt->front().is_number()) {
    request.prompts.emplace_back(parse_token_ids(*prompt, "prompt"));
  } else {
    for (std::size_t i = 0; i < prompt->size(); ++i) {
      const json& one = (*prompt)[i];
      if (one.is_string()) {
        request.prompts.emplace_back(one.get<std::string>());
      } else {
        request.prompts.emplace_back(parse_token_ids(one, fmt::format("prompt[{}]", i)));
      }
    }
  }
  if (static_cast<std::int64_t>(request.prompts.size()) > kMaxChoices / request.fields.n) {
    throw ApiError::invalid(fmt::format("prompt: found {} prompts with n = {}, expected at most {} answers",
                                        request.prompts.size(), request.fields.n, kMaxChoices),
                            "prompt");
  }
  return request;
}

}  // namespace nanochat
