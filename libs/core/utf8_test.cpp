#include "core/utf8.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nanochat {
namespace {

TEST(Utf8, MeasuresCharacters) {
  EXPECT_EQ(utf8::character_length("a"), 1U);
  EXPECT_EQ(utf8::character_length("\xC3\xA9"), 2U);
  EXPECT_EQ(utf8::character_length("\xE2\x82\xACx"), 3U);
  EXPECT_EQ(utf8::character_length("\xF4\x8F\xBF\xBF"), 4U);
  for (const char* malformed : {"", "\x80", "\xC1\x81", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
                                "\xF5\x80\x80\x80", "\xE2\x82", "\xE2\x28\xA1"}) {
    EXPECT_EQ(utf8::character_length(malformed), 0U) << malformed;
  }
}

TEST(Utf8, KnowsHowMuchOfACharacterHasBegun) {
  const auto begun = [](std::string_view text) {
    std::size_t bytes = 99;
    EXPECT_EQ(utf8::character_length(text, &bytes), 0U) << text;
    return bytes;
  };
  EXPECT_EQ(begun(""), 0U);
  EXPECT_EQ(begun("\x80"), 0U);
  EXPECT_EQ(begun("\xC1\x81"), 0U);
  EXPECT_EQ(begun("\xE2\x82"), 2U);
  EXPECT_EQ(begun("\xE2\x82x"), 2U);
  EXPECT_EQ(begun("\xED\xA0\x80"), 1U) << "a surrogate";
  EXPECT_EQ(begun("\xF0\x9F\x98\xF0"), 3U);
}

TEST(Utf8, DecodesCharacters) {
  EXPECT_EQ(utf8::decode_character("a", 1), U'a');
  EXPECT_EQ(utf8::decode_character("\xC3\xA9", 2), U'\u00E9');
  EXPECT_EQ(utf8::decode_character("\xE2\x82\xAC", 3), U'\u20AC');
  EXPECT_EQ(utf8::decode_character("\xF0\x9F\x98\x80", 4), U'\U0001F600');
}

TEST(Utf8, FindsPrefixesAndTails) {
  EXPECT_EQ(utf8::valid_prefix("plain ascii text\xFF"), 16U);
  EXPECT_EQ(utf8::valid_prefix("12345678\xC3\xA9\xC3"), 10U);
  EXPECT_EQ(utf8::incomplete_tail("a\xF0\x9F\x98"), 3U);
  EXPECT_EQ(utf8::incomplete_tail("a\xE2"), 1U);
  EXPECT_EQ(utf8::incomplete_tail("\xED\xA0"), 0U);
  EXPECT_EQ(utf8::incomplete_tail("\xC3\xA9"), 0U);
  EXPECT_EQ(utf8::incomplete_tail(""), 0U);
}

}  // namespace
}  // namespace nanochat
