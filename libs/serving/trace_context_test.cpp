#include "serving/internal/trace_context.h"

#include <gtest/gtest.h>

namespace nanochat {
namespace {

const std::string kTrace = "0af7651916cd43dd8448eb211c80319c", kSpan = "b7ad6b7169203331";  // of the specification's examples

TEST(TraceContext, ReadsTheHeaderOfTheSpecification) {
  const auto trace = parse_traceparent("00-" + kTrace + "-" + kSpan + "-01");
  ASSERT_TRUE(trace);
  EXPECT_EQ(trace->trace_id, kTrace);
  EXPECT_EQ(trace->span_id, kSpan);
  EXPECT_EQ(trace->traceparent(), "00-" + kTrace + "-" + kSpan + "-01");
}

TEST(TraceContext, ReadsTheKnownPartOfALaterVersion) {
  const auto trace = parse_traceparent("cc-" + kTrace + "-" + kSpan + "-00-more\r\nEvil: 1");
  ASSERT_TRUE(trace);
  EXPECT_EQ(trace->traceparent(), "00-" + kTrace + "-" + kSpan + "-00");
}

TEST(TraceContext, IgnoresWhatIsNotValid) {
  const std::string zero_trace(32, '0'), zero_span(16, '0'), tail = "-" + kTrace + "-" + kSpan + "-01";
  for (const std::string& header :
       {std::string(), "00" + tail.substr(0, 52), "00" + tail + "-x", "cc" + tail + "x", "ff" + tail, "0g" + tail,
        "00-" + zero_trace + "-" + kSpan + "-01", "00-" + kTrace + "-" + zero_span + "-01", "00_" + tail.substr(1),
        "00-" + std::string(32, 'A') + "-" + kSpan + "-01", "00-" + kTrace + "-" + kSpan + "-1x"}) {
    EXPECT_FALSE(parse_traceparent(header)) << header;
  }
}

}  // namespace
}  // namespace nanochat
