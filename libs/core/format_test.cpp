#include "core/format.h"

#include <limits>
#include <string>

#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace nanochat {
namespace {

TEST(FormatTest, WithCommas) {
  EXPECT_EQ(with_commas(0), "0");
  EXPECT_EQ(with_commas(999), "999");
  EXPECT_EQ(with_commas(1000), "1,000");
  EXPECT_EQ(with_commas(1234567), "1,234,567");
  EXPECT_EQ(with_commas(-123456), "-123,456");
  EXPECT_EQ(with_commas(std::numeric_limits<std::int64_t>::min()), "-9,223,372,036,854,775,808");
}

TEST(FormatTest, OnOneLine) { EXPECT_EQ(on_one_line(std::string("a\nb\t\x01\0 \x7f\xc3\xa9", 10)), "a?b??? \x7f\xc3\xa9"); }

TEST(FormatTest, HumanBytes) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1024), "1.0 KiB");
  EXPECT_EQ(human_bytes(1024 * 1024 - 1), "1.0 MiB");
  EXPECT_EQ(human_bytes(1.5 * 1024 * 1024 * 1024), "1.5 GiB");
}

TEST(FormatTest, HumanDuration) {
  EXPECT_EQ(human_duration(0.012), "12ms");
  EXPECT_EQ(human_duration(5.24), "5.2s");
  EXPECT_EQ(human_duration(59.99), "1m 00s");
  EXPECT_EQ(human_duration(184), "3m 04s");
  EXPECT_EQ(human_duration(3599.9), "1h 00m");
  EXPECT_EQ(human_duration(3720), "1h 02m");
  EXPECT_EQ(human_duration(90000), "1d 01h");
  EXPECT_EQ(human_duration(-2), "-2.0s");
  EXPECT_EQ(human_duration(std::numeric_limits<double>::infinity()), "?");
}

TEST(FormatTest, ReplacesInvalidUtf8AsPythonDoes) {  // bytes.decode("utf-8", "replace") of CPython 3.11
  const std::string r = "\xef\xbf\xbd";
  EXPECT_EQ(replace_invalid_utf8("a\xff b"), "a" + r + " b");
  EXPECT_EQ(replace_invalid_utf8("\xf0\x9f\x98"), r);
  EXPECT_EQ(replace_invalid_utf8("\xf0\x9f\x98z"), r + "z");
  EXPECT_EQ(replace_invalid_utf8("\xe1\x80\xc3\xa9"), r + "\xc3\xa9");
  EXPECT_EQ(replace_invalid_utf8("\xed\xa0\x80"), r + r + r);           // a surrogate
  EXPECT_EQ(replace_invalid_utf8("\xc0\x80"), r + r);                   // overlong
  EXPECT_EQ(replace_invalid_utf8("\xe0\x80\x80"), r + r + r);           // overlong
  EXPECT_EQ(replace_invalid_utf8("\xf4\x90\x80\x80"), r + r + r + r);   // beyond U+10FFFF
  EXPECT_EQ(replace_invalid_utf8("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"), "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
}

TEST(FormatTest, ReplacementIsValidAndLeavesValidTextAlone) {
  EXPECT_TRUE(rc::check([](const std::string& bytes) {
    const std::string text = replace_invalid_utf8(bytes);
    RC_ASSERT(is_valid_utf8(text));
    RC_ASSERT((text == bytes) == is_valid_utf8(bytes));
  }));
  EXPECT_TRUE(is_valid_utf8(""));
  EXPECT_TRUE(is_valid_utf8("\xf4\x8f\xbf\xbf"));
  EXPECT_FALSE(is_valid_utf8("\xf8\x88\x80\x80\x80"));
}

TEST(FormatTest, ParsesSizes) {
  EXPECT_EQ(parse_bytes("4096"), 4096);
  EXPECT_EQ(parse_bytes("0B"), 0);
  EXPECT_EQ(parse_bytes("5GB"), 5'000'000'000);
  EXPECT_EQ(parse_bytes("1.5 KiB"), 1536);
  EXPECT_EQ(parse_bytes("20kB"), 20'000);
  EXPECT_EQ(parse_bytes("2TiB"), std::int64_t{2} << 40);
  for (const char* wrong : {"", "GB", "-1", "5G", "5 apples", "5GBs", "1e300", "99999999TB", "nan"}) {
    EXPECT_EQ(parse_bytes(wrong), std::nullopt) << wrong;
  }
}

}  // namespace
}  // namespace nanochat
