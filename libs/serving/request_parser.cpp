#include "serving/internal/request_parser.h"

#include <algorithm>

#include <boost/asio/buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <boost/beast/http/string_body.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/format.h"

namespace nanochat {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;

}  // namespace

struct RequestParser::Impl {
  http::request_parser<http::string_body> parser;
  State state = State::kHeader;
  std::size_t header_bytes, body_bytes;
  std::size_t consumed = 0;
  std::size_t header_used = 0;  // bytes of the request line and the headers that were consumed
  bool begun = false;
  int error = 0;
  std::string reason;

  Impl(std::size_t header_limit, std::size_t body_limit) : header_bytes(header_limit), body_bytes(body_limit) {
    parser.header_limit(static_cast<std::uint32_t>(header_limit));
    parser.body_limit(body_limit);
    parser.eager(false);
  }

  void fail(int status, std::string why) {
    state = State::kError;
    error = status;
    reason = std::move(why);
  }
  void fail(const beast::error_code& code);
  void check_header();
  void put(std::string_view input);
};

void RequestParser::Impl::fail(const beast::error_code& code) {
  if (code == http::error::body_limit) {
    fail(413, fmt::format("body: found more than {0} bytes, expected at most {0}", body_bytes));
  } else if (code == http::error::header_limit) {
    fail(431, fmt::format("request line and headers: found more than {0} bytes, expected at most {0}", header_bytes));
  } else if (code == http::error::bad_version) {
    fail(505, "found another version, expected HTTP/1.0 or HTTP/1.1");
  } else if (code == http::error::bad_transfer_encoding || code == http::error::bad_content_length ||
             code == http::error::multiple_content_length) {
    fail(400, "Content-Length and Transfer-Encoding: found an invalid value or both, expected one valid length of the body");
  } else {
    fail(400, fmt::format("expected an HTTP request: {}", code.message()));
  }
}

// Checks what Beast leaves to its user, and what two servers in a row could read differently.
void RequestParser::Impl::check_header() {
  const auto& request = parser.get();
  const bool old = request.version() < 11;
  if (request.count(http::field::transfer_encoding) > 0) {
    const std::string_view coding = request[http::field::transfer_encoding];
    if (old) return fail(400, "Transfer-Encoding: found one in HTTP/1.0, expected Content-Length");
    if (!beast::iequals(coding, "chunked")) {
      return fail(501, fmt::format("Transfer-Encoding: found \"{}\", expected \"chunked\"", replace_invalid_utf8(coding)));
    }
  }
  const auto hosts = request.count(http::field::host);
  if (hosts > 1 || (hosts == 0 && !old)) return fail(400, fmt::format("Host: found {} headers, expected one", hosts));
  const std::string_view expect = request[http::field::expect];
  if (!expect.empty() && !beast::iequals(expect, "100-continue")) {
    return fail(417, fmt::format("Expect: found \"{}\", expected \"100-continue\"", replace_invalid_utf8(expect)));
  }
}

void RequestParser::Impl::put(std::string_view input) {
  while (state == State::kHeader || state == State::kBody) {
    beast::error_code code;
    const std::size_t used = parser.put(boost::asio::buffer(input.data() + consumed, input.size() - consumed), code);
    consumed += used;
    if (state == State::kHeader && (!code || code == http::error::need_more)) {
      // Beast's limit is that of one call, and each call takes the headers that are whole.
      header_used += used;
      if (header_used > header_bytes || (!parser.is_header_done() && header_used + input.size() - consumed > header_bytes)) {
        return fail(make_error_code(http::error::header_limit));
      }
    }
    if (state == State::kHeader && parser.is_header_done() && (!code || code == http::error::need_more)) {
      state = State::kBody;
      parser.eager(true);
      check_header();
      if (state == State::kError) return;
      if (parser.is_done()) state = State::kDone;
      continue;
    }
    if (parser.is_done()) {
      state = State::kDone;
      return;
    }
    if (code == http::error::need_more) return;
    if (code) return fail(code);
    if (used == 0) return;
  }
}

RequestParser::RequestParser(std::size_t header_bytes, std::size_t body_bytes)
    : impl_(std::make_unique<Impl>(header_bytes, body_bytes)) {}
RequestParser::~RequestParser() = default;

RequestParser::State RequestParser::parse(std::string_view input) {
  impl_->consumed = 0;
  if (!impl_->begun) {  // skips empty lines before a request (RFC 9112 2.2)
    while (input.substr(impl_->consumed).starts_with("\r\n")) impl_->consumed += 2;
    impl_->begun = impl_->consumed < input.size() && input.substr(impl_->consumed) != "\r";
    if (!impl_->begun) return impl_->state;
  }
  if (impl_->consumed < input.size()) impl_->put(input);
  return impl_->state;
}

std::size_t RequestParser::consumed() const { return impl_->consumed; }
int RequestParser::error() const { return impl_->error; }
const std::string& RequestParser::reason() const { return impl_->reason; }
bool RequestParser::http10() const { return impl_->parser.is_header_done() && impl_->parser.get().version() < 11; }
bool RequestParser::keep_alive() const { return impl_->parser.get().keep_alive(); }

bool RequestParser::expects_continue() const {
  const auto& request = impl_->parser.get();
  return request.version() >= 11 && beast::iequals(request[http::field::expect], "100-continue");
}

HttpRequest RequestParser::take() {
  auto message = impl_->parser.release();
  HttpRequest request;
  request.method = message.method_string();
  if (!split_target(std::string_view(message.target()), request.path, request.query)) request.path.clear();
  for (const auto& field : message) {
    std::string name(field.name_string());
    std::transform(name.begin(), name.end(), name.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c; });
    request.headers.emplace_back(std::move(name), field.value());
  }
  if (impl_->state == State::kDone) request.body = std::move(message.body());
  return request;
}

}  // namespace nanochat
