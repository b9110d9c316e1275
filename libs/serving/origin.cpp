#include "serving/internal/origin.h"

#include <algorithm>
#include <charconv>
#include <cstdint>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"

namespace nanochat {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

bool is_letter(char c) { return c >= 'a' && c <= 'z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_scheme(std::string_view text) {
  const auto fits = [](char c) { return is_letter(c) || is_digit(c) || c == '+' || c == '-' || c == '.'; };
  return !text.empty() && is_letter(text.front()) && std::all_of(text.begin(), text.end(), fits);
}

// A host name, or an IPv6 address in brackets.
bool is_host(std::string_view text) {
  if (text.starts_with('[')) {
    const auto fits = [](char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || c == ':' || c == '.'; };
    return text.size() > 3 && text.back() == ']' && std::all_of(text.begin() + 1, text.end() - 1, fits);
  }
  const auto fits = [](char c) { return is_letter(c) || is_digit(c) || c == '-' || c == '.' || c == '_'; };
  return !text.empty() && std::all_of(text.begin(), text.end(), fits);
}

}  // namespace

std::string normalized_origin(std::string_view text) {
  const std::string given = on_one_line(std::string(text));
  const auto refuse = [&](std::string_view expected) {
    return ConfigError(fmt::format("found \"{}\", expected the origin of a web page: {}", given, expected));
  };
  text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
  text = text.substr(0, text.find_last_not_of(kSpace) + 1);
  if (text == "*" || text == "null") return std::string(text);
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  const std::size_t mark = lower.find("://");
  if (mark == std::string::npos || !is_scheme(std::string_view(lower).substr(0, mark))) {
    const bool like_a_host = is_host(std::string_view(lower).substr(0, std::min(lower.find_first_of(":/"), lower.size())));
    throw refuse(like_a_host
                     ? fmt::format("with its scheme, such as \"http://{}\"", given)
                     : std::string("scheme, host and perhaps port, such as \"http://localhost:3000\", or \"*\" for any"));
  }
  const std::string scheme = lower.substr(0, mark);
  std::string_view rest = std::string_view(lower).substr(mark + 3);
  while (rest.ends_with('/')) rest.remove_suffix(1);
  if (const std::size_t path = rest.find_first_of("/?#"); path != std::string_view::npos) {
    throw refuse(fmt::format("without a path, such as \"{}://{}\"", scheme, rest.substr(0, path)));
  }
  std::string_view host = rest, port;
  if (const std::size_t colon = rest.rfind(':');
      colon != std::string_view::npos && rest.find(']', colon) == std::string_view::npos) {
    host = rest.substr(0, colon);
    port = rest.substr(colon + 1);
  }
  if (!is_host(host)) {
    throw refuse(
        "with a name or an address as host, in ASCII and without a pattern, such as \"http://localhost:3000\"; \"*\" is any "
        "origin");
  }
  if (host.size() == rest.size()) return fmt::format("{}://{}", scheme, host);
  std::uint16_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc() || end != port.data() + port.size()) throw refuse("with a port from 0 to 65535 after the colon");
  const bool usual = (scheme == "http" && number == 80) || (scheme == "https" && number == 443);
  return usual ? fmt::format("{}://{}", scheme, host) : fmt::format("{}://{}:{}", scheme, host, number);
}

}  // namespace nanochat
