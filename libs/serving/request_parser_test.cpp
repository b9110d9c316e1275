#include "serving/internal/request_parser.h"

#include <gmock/gmock.h>

namespace nanochat {
namespace {

using State = RequestParser::State;

// Feeds `bytes` in pieces of `step` and returns the state it ends in; what is left over stays in `bytes`.
State feed(RequestParser& parser, std::string& bytes, std::size_t step = 1) {
  std::string pending;
  State state = State::kHeader;
  std::size_t given = 0;
  while (given < bytes.size() && state != State::kDone && state != State::kError) {
    const std::size_t n = std::min(step, bytes.size() - given);
    pending += bytes.substr(given, n);
    given += n;
    state = parser.parse(pending);
    pending.erase(0, parser.consumed());
  }
  bytes = pending + bytes.substr(given);
  return state;
}

int refusal(std::string bytes, std::size_t body_bytes = 1000) {
  RequestParser parser(1000, body_bytes);
  return feed(parser, bytes, 7) == State::kError ? parser.error() : 0;
}

TEST(RequestParser, ReadsARequestInPiecesOfAnySize) {
  const std::string text = "\r\nPOST /a%20b?q=1 HTTP/1.1\r\nHost: x\r\nX-Some: Value\r\nContent-Length: 5\r\n\r\nhelloNEXT";
  for (std::size_t step = 1; step <= text.size(); ++step) {
    RequestParser parser(1000, 1000);
    std::string bytes = text;
    ASSERT_EQ(feed(parser, bytes, step), State::kDone) << step;
    EXPECT_EQ(bytes, "NEXT");
    EXPECT_TRUE(parser.keep_alive());
    const HttpRequest request = parser.take();
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.path, "/a b");
    EXPECT_EQ(request.query, "q=1");
    EXPECT_EQ(request.header("x-some"), "Value");
    EXPECT_EQ(request.header("absent"), "");
    EXPECT_EQ(request.body, "hello");
  }
}

TEST(RequestParser, ReadsChunkedBodies) {
  for (const std::size_t step : {1u, 4u, 1000u}) {
    RequestParser parser(1000, 1000);
    std::string bytes =
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nTrail: "
        "er\r\n\r\nGET";
    ASSERT_EQ(feed(parser, bytes, step), State::kDone);
    EXPECT_EQ(parser.take().body, "abcde");
    EXPECT_EQ(bytes, "GET");
  }
}

TEST(RequestParser, KnowsHttp10AndExpectations) {
  RequestParser old(1000, 1000);
  std::string bytes = "GET / HTTP/1.0\r\n\r\n";
  ASSERT_EQ(feed(old, bytes), State::kDone);
  EXPECT_TRUE(old.http10());
  EXPECT_FALSE(old.keep_alive());
  RequestParser waiting(1000, 1000);
  bytes = "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
  ASSERT_EQ(feed(waiting, bytes), State::kBody);
  EXPECT_TRUE(waiting.expects_continue());
}

TEST(RequestParser, RefusesWhatTwoServersCouldReadDifferently) {
  const std::string start = "POST / HTTP/1.1\r\nHost: x\r\n";
  EXPECT_EQ(refusal(start + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
  EXPECT_EQ(refusal(start + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"), 400);
  EXPECT_EQ(refusal(start + "Content-Length: 3\r\nContent-Length: 4\r\n\r\n"), 400);
  EXPECT_EQ(refusal(start + "Content-Length: 3, 4\r\n\r\n"), 400);
  EXPECT_EQ(refusal(start + "Content-Length: +3\r\n\r\n"), 400);
  EXPECT_EQ(refusal(start + "Content-Length: -3\r\n\r\n"), 400);
  EXPECT_EQ(refusal(start + "Content-Length : 3\r\n\r\n"), 400);
  EXPECT_EQ(refusal(start + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
  EXPECT_EQ(refusal(start + "Transfer-Encoding: gzip, chunked\r\n\r\n"), 501);
  EXPECT_EQ(refusal(start + "Transfer-Encoding: identity\r\n\r\n"), 501);
  EXPECT_EQ(refusal(start + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n"), 400);
  EXPECT_EQ(refusal("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
  EXPECT_EQ(refusal("GET / HTTP/1.1\r\n\r\n"), 400);
  EXPECT_EQ(refusal("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
  EXPECT_EQ(refusal("GET / HTTP/1.1\r\nHost: a\nB: c\r\n\r\n"), 400);  // a bare line feed ends nothing
  EXPECT_EQ(refusal("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), 505);
  EXPECT_EQ(refusal("hello\r\n\r\n"), 400);
  EXPECT_EQ(refusal(start + "Expect: miracles\r\n\r\n"), 417);
}

TEST(RequestParser, KeepsItsLimits) {
  EXPECT_EQ(refusal("GET / HTTP/1.1\r\nHost: x\r\nA: " + std::string(2000, 'a')), 431);
  std::string many = "GET / HTTP/1.1\r\nHost: x\r\n";
  for (int i = 0; i < 200; ++i) many += "a: b\r\n";
  EXPECT_EQ(refusal(many + "\r\n"), 431) << "short headers that come in pieces";
  EXPECT_EQ(refusal("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n", 10), 413);
  EXPECT_EQ(refusal("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n12345678901\r\n", 10), 413);
  EXPECT_EQ(refusal("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", 10), 413);
}

TEST(SplitTarget, DecodesPathsAndRefusesBadOnes) {
  std::string path, query;
  EXPECT_TRUE(split_target("http://host/a?b", path, query) && path == "/a" && query == "b");
  EXPECT_TRUE(split_target("*", path, query) && path == "*");
  for (const char* bad : {"a", "/%", "/%4", "/%zz", "/%00", ""}) EXPECT_FALSE(split_target(bad, path, query)) << bad;
}

}  // namespace
}  // namespace nanochat
