#include "serving/api_keys.h"

#include <gmock/gmock.h>

#include "core/errors.h"

namespace nanochat {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::ThrowsMessage;

TEST(ApiKeys, AreReadAsEditorsLeaveThem) {
  const auto keys = [](std::string_view text) { return parse_api_key_file(text, "keys"); };
  EXPECT_THAT(keys("alpha\nbeta\n"), ElementsAre("alpha", "beta"));
  EXPECT_THAT(keys("\xef\xbb\xbf"
                   "alpha\nbeta\n"),
              ElementsAre("alpha", "beta"));
  EXPECT_THAT(keys("alpha \n\tbeta\n"), ElementsAre("alpha", "beta"));
  EXPECT_THAT(keys("# my keys\nalpha\n"), ElementsAre("alpha"));
  EXPECT_THAT(keys("\xef\xbb\xbf# my keys\r\n\r\n  # more\r\n alpha\t\r\nbeta"), ElementsAre("alpha", "beta"));
  EXPECT_THAT(keys("sk-a#b\n"), ElementsAre("sk-a#b"));  // only a line that begins with it is a comment
}

TEST(ApiKeys, ErrorsNameTheLineAndNoKey) {
  const auto reads = [](std::string_view text) { return [text] { parse_api_key_file(text, "keys"); }; };
  EXPECT_THAT(reads("alpha\nsecret # mine\n"),
              ThrowsMessage<ConfigError>(AllOf(HasSubstr("keys:2: found white space"), Not(HasSubstr("secret")))));
  EXPECT_THAT(reads("# nothing\n\n"), ThrowsMessage<ConfigError>(HasSubstr("keys: found no key")));
  EXPECT_THAT(reads("\xef\xbb\xbf"), ThrowsMessage<ConfigError>(HasSubstr("found no key")));
  EXPECT_THAT(reads(std::string_view("\xff\xfe"
                                     "a\0",
                                     4)),
              ThrowsMessage<ConfigError>(HasSubstr("keys: found text that is not UTF-8")));
  EXPECT_THAT(reads(std::string_view("a\0b", 3)), ThrowsMessage<ConfigError>(HasSubstr("control character")));
}

TEST(ApiKeys, OneIsTrimmed) {
  EXPECT_EQ(parse_api_key(" beta\t", "NANOCHAT_API_KEY"), "beta");
  EXPECT_THAT([] { parse_api_key("  ", "NANOCHAT_API_KEY"); },
              ThrowsMessage<ConfigError>(HasSubstr("NANOCHAT_API_KEY: found nothing, expected a key")));
}

}  // namespace
}  // namespace nanochat
