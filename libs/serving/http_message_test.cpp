#include "serving/http_message.h"

#include <gmock/gmock.h>

namespace nanochat {
namespace {

using ::testing::MatchesRegex;

TEST(HttpMessage, HeadersAreFoundByNameInLowerCase) {
  const HttpRequest request{
      .method = "GET", .path = "/", .query = {}, .headers = {{"a", "1"}, {"b", "2"}, {"b", "3"}}, .body = {}, .client = {}};
  EXPECT_EQ(request.header("b"), "2");
  EXPECT_EQ(request.header("c"), "");
}

TEST(HttpMessage, EveryStatusThatIsSentHasAText) {
  for (const int status : {200, 204, 400, 401, 404, 405, 408, 413, 415, 417, 429, 431, 500, 501, 503, 505}) {
    EXPECT_NE(status_text(status), "Unknown") << status;
  }
  EXPECT_EQ(status_text(404), "Not Found");
  EXPECT_EQ(status_text(299), "Unknown");
}

TEST(HttpMessage, HeadsOfResponses) {
  const HttpResponse response{.status = 404, .content_type = "text/plain", .headers = {{"X-One", "1"}}, .body = "12345"};
  EXPECT_THAT(response_head(response, "Content-Length: 5\r\n", true),
              MatchesRegex("HTTP/1.1 404 Not Found\r\nDate: [A-Z][a-z][a-z], [0-9 :A-Za-z]+ GMT\r\nContent-Type: text/plain\r\n"
                           "X-One: 1\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n"));
  EXPECT_THAT(response_head({.status = 204, .content_type = {}}, "", false),
              MatchesRegex("HTTP/1.1 204 No Content\r\nDate: [^\r]+\r\nConnection: close\r\n\r\n"));
}

}  // namespace
}  // namespace nanochat
