#include "checkpoint/json_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string message_of(const std::string& text) {
  try {
    parse_json_object(text, "a.json");
  } catch (const CheckpointError& error) {
    return error.what();
  }
  return "";
}

TEST(JsonFile, ReadsAnObject) {
  EXPECT_EQ(parse_json_object(R"({"a": [1, {"b": null}], "c": {"b": true}})", "x"),
            json({{"a", {1, {{"b", nullptr}}}}, {"c", {{"b", true}}}}));
}

TEST(JsonFile, SaysWhatIsWrong) {
  EXPECT_THAT(message_of("{\"a\": "),
              AllOf(HasSubstr("a.json: not valid JSON"), HasSubstr("line 1"), Not(HasSubstr("json.exception"))));
  EXPECT_THAT(message_of(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(message_of("{} x"), HasSubstr("not valid JSON"));
  EXPECT_THAT(message_of("[1]"), HasSubstr("holds a JSON array, expected an object"));
  EXPECT_THAT(message_of("{\"a\": 1, \"a\": 2}"), HasSubstr("key \"a\" is given twice"));
  EXPECT_THAT(message_of("{\"o\": {\"k\": 1}, \"p\": {\"k\": 1, \"k\": 1}}"), HasSubstr("key \"k\" is given twice"));
  EXPECT_THAT(message_of("{\"a\": 1e999}"), HasSubstr("not valid JSON"));
}

TEST(JsonFile, MessageOfABinaryFileIsOneLineOfText) {
  const std::string message = message_of(std::string("{\"\n\x01\xff\0", 6));
  EXPECT_THAT(message, HasSubstr("not valid JSON"));
  for (const char c : message) EXPECT_GE(static_cast<unsigned char>(c), 0x20) << message;
}

TEST(JsonFile, DepthIsBounded) {
  const auto nested = [](int arrays) {
    return "{\"a\": " + std::string(static_cast<std::size_t>(arrays), '[') +
           std::string(static_cast<std::size_t>(arrays), ']') + "}";
  };
  EXPECT_EQ(message_of(nested(kMaxJsonDepth - 1)), "");
  EXPECT_THAT(message_of(nested(kMaxJsonDepth)), HasSubstr("nested deeper than 64 levels"));
  EXPECT_THAT(message_of("{\"a\": " + std::string(3'000'000, '[')), HasSubstr("nested deeper"));
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_THAT(message_of(objects), HasSubstr("nested deeper"));
}

TEST(JsonFile, FileErrorsAreCheckpointErrors) {
  const nanochat::testing::TemporaryDirectory folder;
  EXPECT_THROW(read_json_object(folder / "absent.json"), CheckpointError);
  nanochat::testing::write_text(folder / "a.json", "{\"x\": 3}");
  EXPECT_EQ(read_json_object(folder / "a.json"), json({{"x", 3}}));
  EXPECT_THROW(read_json_object(folder / "a.json", 4), CheckpointError);
}

TEST(JsonFile, TextReadsBack) {
  const json value = {{"b", 1.5}, {"a", "caf\xc3\xa9"}};
  EXPECT_EQ(parse_json_object(to_json_text(value), "x"), value);
  EXPECT_EQ(to_json_text(value).back(), '\n');
  EXPECT_THAT(to_json_text(json{{"a", "\xff"}}), HasSubstr("\xef\xbf\xbd"));
  nlohmann::ordered_json ordered;
  ordered["z"] = 1;
  ordered["a"] = 2;
  EXPECT_EQ(to_json_text(ordered), "{\n  \"z\": 1,\n  \"a\": 2\n}\n");
}

}  // namespace
}  // namespace nanochat
