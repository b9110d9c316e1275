#include "data/rows/bad_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::ThrowsMessage;
using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

TEST(BadRows, AreCountedUpToTheirNumber) {
  BadRows rows(2);
  rows.add("a.jsonl:1: one");
  rows.add("a.jsonl:2: two");
  EXPECT_EQ(rows.count(), 2U);
  EXPECT_THAT(rows.examples(), ElementsAre("a.jsonl:1: one", "a.jsonl:2: two"));
  EXPECT_THAT([&] { rows.add("a.jsonl:3: three"); },
              ThrowsMessage<DataError>(HasSubstr("a.jsonl:3: three; --skip-bad allows 2 bad rows, and this is one more")));
}

TEST(BadRows, AreListedInTheLogTheFirstAndTheTotal) {
  BadRows rows(BadRows::kAll);
  for (int i = 1; i <= 1234; ++i) rows.add("a.jsonl:" + std::to_string(i) + ": malformed");
  CaptureStderr();
  rows.log();
  const std::string text = GetCapturedStderr();
  EXPECT_THAT(text, HasSubstr("skipped a.jsonl:1: malformed\n"));
  EXPECT_THAT(text, HasSubstr("skipped a.jsonl:5: malformed\n"));
  EXPECT_THAT(text, Not(HasSubstr("a.jsonl:6:")));
  EXPECT_THAT(text, HasSubstr("1,234 bad rows were skipped; the first 5 are listed\n"));
  BadRows none(BadRows::kAll);
  CaptureStderr();
  none.log();
  EXPECT_EQ(GetCapturedStderr(), "");
}

TEST(BadRows, TheOptionIsANumberOrAll) {
  EXPECT_EQ(parse_skip_bad("0"), 0U);
  EXPECT_EQ(parse_skip_bad("17"), 17U);
  EXPECT_EQ(parse_skip_bad("all"), BadRows::kAll);
  for (const char* wrong : {"", "-1", "some", "3x", "1.5", "99999999999999999999999"}) {
    EXPECT_THAT([&] { parse_skip_bad(wrong); }, ThrowsMessage<ConfigError>(HasSubstr("expected a number of rows, or all")))
        << wrong;
  }
}

}  // namespace
}  // namespace nanochat
