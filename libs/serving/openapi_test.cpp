#include <algorithm>
#include <set>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "serving/api.h"
#include "serving/api_error.h"
#include "serving/internal/anthropic_request.h"
#include "serving/internal/api_request.h"
#include "serving/internal/embedded.h"
#include "serving/internal/responses_request.h"

namespace nanochat {
namespace {

using ::testing::StartsWith;
using ::testing::ThrowsMessage;
using Json = nlohmann::ordered_json;

Json description() { return Json::parse(openapi_files().front().text); }

// JSON as YAML: maps and lists by indentation, scalars as JSON writes them (which YAML reads alike).
void write_yaml(const Json& value, int indent, std::string& out) {
  const std::string pad(static_cast<std::size_t>(indent), ' ');
  if (value.is_object() && !value.empty()) {
    for (const auto& [key, item] : value.items()) {
      out += "\n" + pad + Json(key).dump() + ":";
      write_yaml(item, indent + 2, out);
    }
  } else if (value.is_array() && !value.empty()) {
    for (const Json& item : value) {
      out += "\n" + pad + "-";
      write_yaml(item, indent + 2, out);
    }
  } else {
    out += " " + value.dump();
  }
}

TEST(OpenApi, NamesEveryRouteAndNoOther) {
  const std::vector<std::string> routes = Api::routes();
  std::set<std::string> described;
  const Json paths = description()["paths"];
  for (const auto& [path, methods] : paths.items()) {
    for (const auto& [method, unused] : methods.items()) {
      std::string upper = method;
      std::transform(upper.begin(), upper.end(), upper.begin(), [](char c) { return static_cast<char>(c - 'a' + 'A'); });
      described.insert(upper + " " + path);
    }
  }
  EXPECT_EQ(described, std::set<std::string>(routes.begin(), routes.end()));
}

TEST(OpenApi, IsTheSameInTheDocumentation) {
  std::string yaml =
      "# The server's /openapi.json as YAML; a test compares the two (NANOCHAT_WRITE_OPENAPI=1 writes this file).";
  write_yaml(description(), 0, yaml);
  yaml += "\n";
  const std::filesystem::path file = NANOCHAT_OPENAPI_YAML;
  if (std::getenv("NANOCHAT_WRITE_OPENAPI") != nullptr) write_file_atomically(file, yaml);
  EXPECT_EQ(read_file(file), yaml);
}

// A field of the requests that is described has to be one that is read: a wrong type must be refused by the
// name of the field.
TEST(OpenApi, DescribesFieldsThatAreRead) {
  const Json schemas = description()["components"]["schemas"];
  for (const auto& [field, schema] : schemas["ChatRequest"]["properties"].items()) {
    nlohmann::json body = {{"messages", {{{"role", "user"}, {"content", "a"}}}}, {"logprobs", true}, {"stream", true}};
    body[field] = schema.value("type", Json()) == Json({"object", "null"}) ? nlohmann::json("x")
                                                                           : nlohmann::json::array({nullptr});
    EXPECT_THAT([&] { parse_chat_request(body.dump(), {}); }, ThrowsMessage<ApiError>(StartsWith(field)));
  }
  for (const auto& [field, schema] : schemas["CompletionRequest"]["properties"].items()) {
    nlohmann::json body = {{"prompt", "a"}, {"stream", true}};
    body[field] = schema.value("type", Json()) == Json({"object", "null"}) ? nlohmann::json("x")
                                                                           : nlohmann::json::array({nullptr});
    EXPECT_THAT([&] { parse_completion_request(body.dump(), {}); }, ThrowsMessage<ApiError>(StartsWith(field)));
  }
  const auto wrong_value = [](const Json& schema) {
    return schema.value("type", Json()) == Json({"object", "null"}) ? nlohmann::json("x") : nlohmann::json::array({nullptr});
  };
  for (const char* name : {"AnthropicRequest", "AnthropicCountRequest"}) {
    for (const auto& [field, schema] : schemas[name]["properties"].items()) {
      nlohmann::json body = {{"messages", {{{"role", "user"}, {"content", "a"}}}}, {"max_tokens", 5}};
      body[field] = wrong_value(schema);
      EXPECT_THAT([&] { parse_anthropic_request(body.dump(), {}); }, ThrowsMessage<ApiError>(StartsWith(field)));
    }
  }
  ResponseStore store(1, 1000);
  for (const auto& [field, schema] : schemas["ResponsesRequest"]["properties"].items()) {
    nlohmann::json body = {{"input", "a"}, {"stream", true}};
    body[field] = wrong_value(schema);
    EXPECT_THAT([&] { parse_responses_request(body.dump(), {}, store, ""); }, ThrowsMessage<ApiError>(StartsWith(field)));
  }
}

}  // namespace
}  // namespace nanochat
