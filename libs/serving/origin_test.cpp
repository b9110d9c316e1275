#include "serving/internal/origin.h"

#include <gmock/gmock.h>

#include "core/errors.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(Origin, IsWhatABrowserSends) {
  for (const auto& [given, expected] : std::initializer_list<std::pair<const char*, const char*>>{
           {"http://localhost:3000", "http://localhost:3000"},
           {"http://localhost:3000/", "http://localhost:3000"},
           {"http://localhost:3000//", "http://localhost:3000"},
           {" https://Example.COM ", "https://example.com"},
           {"HTTPS://example.com:443/", "https://example.com"},
           {"http://example.com:80", "http://example.com"},
           {"http://example.com:443", "http://example.com:443"},
           {"http://example.com:08080", "http://example.com:8080"},
           {"http://127.0.0.1:5173", "http://127.0.0.1:5173"},
           {"http://[::1]:3000/", "http://[::1]:3000"},
           {"http://[2001:DB8::1]", "http://[2001:db8::1]"},
           {"chrome-extension://abcdefghijklmnop/", "chrome-extension://abcdefghijklmnop"},
           {"tauri://localhost", "tauri://localhost"},
           {"https://xn--bcher-kva.example", "https://xn--bcher-kva.example"},
           {"*", "*"},
           {"null", "null"}}) {
    EXPECT_EQ(normalized_origin(given), expected) << given;
  }
}

TEST(Origin, SaysWhatWouldBeRight) {
  const auto refusal = [](const char* text, const char* message) {
    EXPECT_THAT([&] { normalized_origin(text); }, ThrowsMessage<ConfigError>(HasSubstr(message))) << text;
  };
  refusal("localhost:3000",
          "found \"localhost:3000\", expected the origin of a web page: with its scheme, such as \"http://localhost:3000\"");
  refusal("example.com", "such as \"http://example.com\"");
  refusal("//example.com", "such as \"http://localhost:3000\"");
  refusal("", "such as \"http://localhost:3000\", or \"*\" for any");
  refusal("http://localhost:3000/app", "without a path, such as \"http://localhost:3000\"");
  refusal("http://localhost:3000?x=1", "without a path");
  refusal("https://*.example.com", "without a pattern");
  refusal("https://user@example.com", "as host");
  refusal(
      "https://b\xc3\xbc"
      "cher.example",
      "in ASCII");
  refusal("http://", "as host");
  refusal("http://:3000", "as host");
  refusal("http://localhost:", "a port from 0 to 65535");
  refusal("http://localhost:70000", "a port from 0 to 65535");
  refusal("http://localhost:30x", "a port from 0 to 65535");
  refusal("http://a b", "as host");
}

}  // namespace
}  // namespace nanochat
