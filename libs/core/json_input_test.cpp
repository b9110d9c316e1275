#include "core/json_input.h"

#include <limits>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "core/errors.h"
#include "core/format.h"

namespace nanochat {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr double kLargest = std::numeric_limits<double>::max();

json value_of(std::string_view text) {
  json value;
  JsonFault fault;
  EXPECT_TRUE(parse_json_input(text, value, fault)) << text << ": " << fault.what;
  return value;
}

JsonFault fault_of(std::string_view text) {
  json value;
  JsonFault fault;
  EXPECT_FALSE(parse_json_input(text, value, fault)) << text;
  EXPECT_TRUE(value.is_null());
  return fault;
}

TEST(JsonInput, HalfASurrogatePairIsTheReplacementCharacter) {
  EXPECT_EQ(value_of(R"({"text":"a\ud800b"})"), json({{"text",
                                                       "a\xef\xbf\xbd"
                                                       "b"}}));
  EXPECT_EQ(value_of(R"("\ud83d\ud83d\ude00\ude00")"), json("\xef\xbf\xbd\xf0\x9f\x98\x80\xef\xbf\xbd"));
  EXPECT_EQ(value_of(R"("\\ud83d\u00e9\udc00")"), json("\\ud83d\xc3\xa9\xef\xbf\xbd"))
      << "an escaped backslash begins no escape";
  EXPECT_EQ(value_of(R"({"\uDBFF":1})"), json({{"\xef\xbf\xbd", 1}}));
}

TEST(JsonInput, ANumberBeyondDoubleIsTheLargestOne) {
  EXPECT_EQ(value_of(R"({"text":"ok","n":1e999})"), json({{"text", "ok"}, {"n", kLargest}}));
  EXPECT_EQ(value_of("[-1e309,1E+400,2,-0.5]"), json({-kLargest, kLargest, 2, -0.5}));
  EXPECT_EQ(value_of(std::string(400, '9')), json(kLargest));
  EXPECT_EQ(value_of("\"1e999\""), json("1e999")) << "text stays as it is";
  EXPECT_EQ(value_of(R"(["\"", 1e999])"), json({"\"", kLargest}));
  EXPECT_EQ(value_of(R"({"a":"\udc00","n":[1e999,1e999]})"), json({{"a", "\xef\xbf\xbd"}, {"n", {kLargest, kLargest}}}));
}

TEST(JsonInput, SaysWhereItIsMalformed) {
  EXPECT_EQ(fault_of("{\"text\":\"a\"").what, "malformed JSON at byte 12 of 11");
  EXPECT_EQ(fault_of(R"({"n":1,])").byte, 8U);
  EXPECT_EQ(fault_of(R"({"n":1e999,])").byte, 12U) << "counted in the original";
  EXPECT_EQ(fault_of(R"({"n":10000000000000000000000000000e999,])").byte, 40U);
  EXPECT_EQ(fault_of(R"({"a":"\ud800",])").byte, 15U);
  EXPECT_FALSE(fault_of(R"({"n":1,])").not_utf8);
  for (const char* text : {"", "nul", "[1,]", "{\"a\":NaN}", "[1 2]", "\"\\ud8\"", "01", "1e", "\"\t\""}) {
    EXPECT_THAT(fault_of(text).what, HasSubstr("malformed JSON")) << text;
  }
}

TEST(JsonInput, RefusesBytesThatAreNotUtf8) {
  for (const char* text : {"\"\xff\"", "\"\xed\xa0\x80\"", "{\"a\":\"\xc3\"}"}) {
    const JsonFault fault = fault_of(text);
    EXPECT_TRUE(fault.not_utf8);
    EXPECT_EQ(fault.what, "holds bytes that are not UTF-8");
  }
}

TEST(JsonInput, RefusesNestingThatNobodyNeeds) {
  const auto nested = [](int depth) {
    return std::string(static_cast<std::size_t>(depth), '[') + std::string(static_cast<std::size_t>(depth), ']');
  };
  value_of(nested(kMaxJsonInputDepth));
  EXPECT_THAT(fault_of(nested(kMaxJsonInputDepth + 1)).what, HasSubstr("nested more than 256 deep"));
  EXPECT_THAT(fault_of(nested(1'000'000)).what, HasSubstr("nested more than 256 deep"));
  value_of("\"" + std::string(1000, '[') + "\"");
}

TEST(JsonInput, TheErrorBeginsWithThePlace) {
  EXPECT_EQ(parse_json_input(R"({"n":1e999})", "a.jsonl:3"), json({{"n", kLargest}}));
  EXPECT_THAT([] { parse_json_input("{", "a.jsonl:3"); },
              ThrowsMessage<DataError>(HasSubstr("a.jsonl:3: malformed JSON at byte 2")));
}

// Whatever the bytes: no exception of the library, and text that the library reads is left as it is.
TEST(JsonInput, AgreesWithTheLibraryWhereThatReads) {
  EXPECT_TRUE(rc::check("any text", [] {
    std::string text = R"({"a":"\ud83d\ude00 \ud800","n":[1e5,-2.5e999,true,null],"b":{"c":"\\\""}})";
    const auto edits = *rc::gen::inRange(0, 4);
    for (int i = 0; i < edits; ++i) {
      const auto at = *rc::gen::inRange<std::size_t>(0, text.size());
      text[at] = *rc::gen::oneOf(rc::gen::arbitrary<char>(), rc::gen::elementOf(std::string("\"\\{}[]:,0e.-ud8 \xc3\xa9")));
    }
    json value;
    JsonFault fault;
    const bool read = parse_json_input(text, value, fault);
    const json strict = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!strict.is_discarded()) {
      RC_ASSERT(read);
      RC_ASSERT(value == strict);
    }
    if (!read) RC_ASSERT(!fault.what.empty());
    if (read) RC_ASSERT(is_valid_utf8(value.dump(-1, ' ', false, json::error_handler_t::replace)));
  }));
}

}  // namespace
}  // namespace nanochat
