#include "serving/internal/json_fields.h"

#include <gmock/gmock.h>

namespace nanochat {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::string refusal(const std::string& text) {
  try {
    parse_json_object(text);
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status(), 400);
    return error.what();
  }
  return "";
}

TEST(ParseJson, RefusesWhatIsNoObjectOfJson) {
  EXPECT_THAT(refusal("{\"a\": "), HasSubstr("expected valid JSON"));
  EXPECT_THAT(refusal("{\"a\": \"\xff\"}"), HasSubstr("UTF-8"));
  EXPECT_THAT(refusal("[1]"), HasSubstr("body: found an array, expected a JSON object"));
  EXPECT_THAT(refusal(""), HasSubstr("body: found nothing"));
  EXPECT_THAT(refusal("{\"a\": NaN}"), HasSubstr("expected valid JSON"));
  EXPECT_EQ(parse_json_object(" ", true), json::object());
  EXPECT_EQ(parse_json_object("{\"a\": 1}")["a"], 1);
}

TEST(ParseJson, CountsDepthBeforeItBuildsAnything) {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_THAT(refusal("{\"a\": " + deep + "}"), HasSubstr("100001 levels"));
  EXPECT_THAT(refusal(std::string(100'000, '{')), HasSubstr("100000 levels"));
  // Brackets inside of strings are text.
  EXPECT_NO_THROW(parse_json_object("{\"a\": \"\\\"" + std::string(1000, '[') + "\"}"));
  const auto nested = [](int levels) {
    return "{\"a\":" + std::string(static_cast<std::size_t>(levels - 1), '[') +
           std::string(static_cast<std::size_t>(levels - 1), ']') + "}";
  };
  EXPECT_NO_THROW(parse_json_object(nested(kMaxJsonDepth)));
  EXPECT_THROW(parse_json_object(nested(kMaxJsonDepth + 1)), ApiError);
}

TEST(ParseInOrder, KeepsTheOrderOfSomeMembers) {
  EXPECT_EQ(
      parse_in_order(R"({"a": {"z": 1, "b": [{"y": 2, "c": 3}]}, "x": {"a": 4}, "d": null})", {"a", "d", "absent"}).dump(),
      R"({"a":{"z":1,"b":[{"y":2,"c":3}]},"d":null})");
  EXPECT_EQ(parse_in_order(R"({"a": 1, "a": 2})", {"a"}).dump(), R"({"a":2})");
}

TEST(ParseInOrder, RefusesMoreKeysThanCanBeSearched) {
  const auto object = [](int keys) {
    std::string text = "{";
    for (int i = 0; i < keys; ++i) text += (i > 0 ? ",\"" : "\"") + std::to_string(i) + "\":0";
    return text + "}";
  };
  EXPECT_NO_THROW(parse_in_order("{\"a\":" + object(kMaxOrderedKeys - 1) + "}", {"a"}));
  EXPECT_THROW(parse_in_order("{\"a\":" + object(kMaxOrderedKeys) + "}", {"a"}), ApiError);
  std::string many = "{\"a\":[";
  for (int i = 0; i < 2 * kMaxOrderedKeys; ++i) many += "{\"b\":0},";
  many += "{\"c\":0}]}";
  EXPECT_THROW(parse_in_order(many, {"a"}), ApiError);
  EXPECT_NO_THROW(parse_in_order(many, {"a"}, {"a", "b"}));
  EXPECT_NO_THROW(parse_in_order("{\"b\":" + object(2 * kMaxOrderedKeys) + ",\"a\":1}", {"a"}));
}

TEST(JsonFields, NamesTheFieldOfAWrongType) {
  const json object = {{"s", 1}, {"n", "x"}, {"b", 1}, {"i", 1.5}, {"nothing", nullptr}, {"whole", 5.0}, {"big", UINT64_MAX}};
  const JsonFields fields(object, "body");
  const auto message = [](auto call) {
    try {
      call();
    } catch (const ApiError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(message([&] { fields.string("s"); }), "body.s: found an integer, expected a string");
  EXPECT_EQ(message([&] { fields.number("n", 0, 1); }), "body.n: found a string, expected a number");
  EXPECT_EQ(message([&] { fields.boolean("b"); }), "body.b: found an integer, expected a boolean");
  EXPECT_EQ(message([&] { fields.integer("i", 0, 5); }), "body.i: found a number, expected an integer");
  EXPECT_EQ(message([&] { fields.integer("whole", 6, 9); }), "body.whole: found 5.0, expected an integer from 6 to 9");
  EXPECT_THAT(message([&] { fields.integer("big", 0, INT64_MAX); }), HasSubstr("at least 0"));
  EXPECT_EQ(message([&] { fields.object("s"); }), "body.s: found an integer, expected an object");
  EXPECT_EQ(message([&] { fields.array("s"); }), "body.s: found an integer, expected an array");
  EXPECT_EQ(fields.integer("whole", 0, 9), 5);
  EXPECT_EQ(fields.string("nothing"), std::nullopt);
  EXPECT_EQ(fields.find("absent"), nullptr);
}

TEST(ApiErrors, AreOpenAisObject) {
  const HttpResponse response = ApiError::busy("full").response();
  EXPECT_EQ(response.status, 429);
  EXPECT_THAT(response.headers, ::testing::Contains(std::pair<std::string, std::string>("Retry-After", "1")));
  EXPECT_EQ(json::parse(response.body), json::parse(R"({"error": {"message": "full", "type": "rate_limit_error", "param": null,
                                                     "code": "rate_limit_exceeded"}})"));
  EXPECT_EQ(http_error(413, "large").response().status, 413);
}

TEST(ApiErrors, KeepWhatIsInternalToThemselves) {
  const auto status_of = [](auto thrown) {
    try {
      throw thrown;
    } catch (...) {
      return current_api_error().status();
    }
  };
  EXPECT_EQ(status_of(ApiError::unavailable("x")), 503);
  EXPECT_EQ(status_of(std::bad_alloc()), 503);
  try {
    throw std::runtime_error("/secret/path");
  } catch (...) {
    EXPECT_EQ(current_api_error().json().find("secret"), std::string::npos);
  }
}

}  // namespace
}  // namespace nanochat
