#include "serving/internal/guided_fields.h"

#include <spdlog/fmt/fmt.h>

namespace nanochat {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxTextBytes = 65'536;  // of an expression or a grammar
constexpr std::size_t kMaxChoiceTexts = 5000;

struct GuidedField {
  const char* name;
  ResponseFormat format;
};
constexpr GuidedField kFields[] = {
    {"guided_regex", ResponseFormat::kRegex},     {"regex", ResponseFormat::kRegex},
    {"guided_choice", ResponseFormat::kChoice},   {"choice", ResponseFormat::kChoice},
    {"guided_grammar", ResponseFormat::kGrammar}, {"grammar", ResponseFormat::kGrammar},
};

void read_fields(const JsonFields& fields, RequestedFormat& request) {
  for (const GuidedField& field : kFields) {
    const json* value = fields.find(field.name);
    // Values that ask for nothing, as clients send them that fill in every field.
    if (value == nullptr || *value == "" || *value == json::array() || *value == json::object() || *value == false) continue;
    const std::string name = fields.name_of(field.name);
    if (request.format != ResponseFormat::kText) {
      throw ApiError::invalid(fmt::format("{}: cannot be combined with {}", name, request.format_field), name);
    }
    if (field.format == ResponseFormat::kChoice) {
      if (!value->is_array() || value->size() > kMaxChoiceTexts) {
        throw fields.wrong_type(field.name, fmt::format("a list of at most {} strings", kMaxChoiceTexts), *value);
      }
      for (const json& one : *value) {
        if (!one.is_string()) throw fields.wrong_type(field.name, "a list of strings", one);
      }
    } else {
      if (!value->is_string()) throw fields.wrong_type(field.name, "a string", *value);
      if (value->get_ref<const std::string&>().size() > kMaxTextBytes) {
        throw ApiError::invalid(fmt::format("{}: found {} bytes, expected at most {}", name,
                                            value->get_ref<const std::string&>().size(), kMaxTextBytes),
                                name);
      }
    }
    request.format = field.format;
    request.format_field = name;
    request.schema = nlohmann::ordered_json(*value);
  }
}

}  // namespace

void parse_guided_fields(const JsonFields& fields, RequestedFormat& request) {
  read_fields(fields, request);
  const json* outputs = fields.object("structured_outputs");
  if (outputs == nullptr) return;
  const JsonFields members(*outputs, "structured_outputs");
  for (const auto& [key, value] : outputs->items()) {
    const bool known = key == "regex" || key == "choice" || key == "grammar";
    if (known || value.is_null() || value == false) continue;
    const std::string name = members.name_of(key);
    throw ApiError::invalid(fmt::format("{}: is not supported; use response_format or guided_json", name), name, "unsupported");
  }
  read_fields(members, request);
}

}  // namespace nanochat
