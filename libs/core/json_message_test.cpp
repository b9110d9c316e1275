#include "core/json_message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/format.h"

namespace nanochat {
namespace {

using nlohmann::json;

TEST(ShownJson, KeepsWhatFits) {
  EXPECT_EQ(shown_json(json::parse(R"({"b":[1,"a\nb"],"a":null})")), R"({"a":null,"b":[1,"a\nb"]})");
  const std::string exactly = std::string(58, 'x');  // with its quotes 60 bytes
  EXPECT_EQ(shown_json(exactly), '"' + exactly + '"');
}

TEST(ShownJson, CutsWhatIsLonger) { EXPECT_EQ(shown_json(std::string(59, 'x')), '"' + std::string(56, 'x') + "..."); }

TEST(ShownJson, CutsBetweenCharacters) {
  for (std::size_t ascii = 0; ascii < 4; ++ascii) {
    std::string text(ascii, 'x');
    for (int i = 0; i < 30; ++i) text += "\u20ac";  // three bytes each
    const std::string shown = shown_json(text);
    EXPECT_TRUE(is_valid_utf8(shown)) << shown;
    EXPECT_LE(shown.size(), 60u);
    EXPECT_GT(shown.size(), 57u);
    EXPECT_TRUE(shown.ends_with("\u20ac...")) << shown;
  }
}

TEST(ShownJson, ReplacesWhatIsNotUtf8) { EXPECT_EQ(shown_json("a\xff"), "\"a\ufffd\""); }

}  // namespace
}  // namespace nanochat
