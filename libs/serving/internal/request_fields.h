#pragma once
// The fields that the requests of all protocols share. Every function throws ApiError (status 400), and the error names the
// field.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "inference/sampler.h"
#include "serving/internal/json_fields.h"
#include "serving/request_defaults.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

inline constexpr std::int64_t kMaxChoices = 128;  // limit of n, and of n times the number of prompts
inline constexpr std::size_t kMaxStopStrings = 16;
inline constexpr std::size_t kMaxStopCharacters = 256;
inline constexpr std::size_t kMaxStopTokenIds = 128;
inline constexpr std::int64_t kMaxTopLogprobs = 20;

// The fields that the requests of all protocols share.
struct GenerationFields {
  std::string model;                       // empty: the model of this server
  bool stream = false, include_usage = false, continuous_usage = false;
  std::int64_t n = 1;
  std::optional<std::int64_t> max_tokens;  // nullopt: to the end of the context
  std::int64_t min_tokens = 0;
  bool ignore_eos = false;                 // continue after the model's own stop tokens
  std::vector<std::string> stop;
  std::vector<TokenId> stop_token_ids;     // in addition to the model's own
  SamplingOptions sampling;
  bool logprobs = false;
  std::int64_t top_logprobs = 0;
};

// Does not read max_tokens, logprobs and top_logprobs, which differ between protocols. `stop_field` is the name of the field
// with the stop strings.
GenerationFields parse_generation_fields(const JsonFields& fields, const RequestDefaults& defaults,
                                         const char* stop_field = "stop");

// Parses a list of token ids. `where` is the name of the field in errors.
std::vector<TokenId> parse_token_ids(const nlohmann::json& value, const std::string& where);

// A field of another server that this one does not support, and that would change the answer.
struct UnsupportedField {
  const char* name;
  const char* why;
  const char* neutral = R"([false, "", [], {}])";  // JSON array: values without an effect, which are accepted
};
void refuse_fields(const JsonFields& fields, std::span<const UnsupportedField> unsupported);
// Refuses the fields `of_protocol`, and those that no protocol of this server supports.
void refuse_unsupported(const JsonFields& fields, std::span<const UnsupportedField> of_protocol);

}  // namespace nanochat
