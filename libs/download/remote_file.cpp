#include "download/remote_file.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"

namespace nanochat {
namespace {

char lower(char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }

// Where the path begins, or the URL ends; npos when there is no scheme.
std::size_t path_begin(const std::string& url) {
  const std::size_t scheme = url.find("://");
  if (scheme == std::string::npos) return std::string::npos;
  return std::min(url.find_first_of("/?#", scheme + 3), url.size());
}

}  // namespace

std::string url_problem(const std::string& url) {
  std::string scheme = url.substr(0, std::min(url.find("://"), url.size()));
  std::transform(scheme.begin(), scheme.end(), scheme.begin(), lower);
  if ((scheme != "http" && scheme != "https") || scheme.size() == url.size()) {
    return "expected http://HOST/... or https://HOST/...";
  }
  if (path_begin(url) == scheme.size() + 3) return "expected a host after \"://\"";
  const auto bad = [](char c) { return static_cast<unsigned char>(c) <= ' ' || c == 0x7f; };
  if (std::any_of(url.begin(), url.end(), bad)) return "expected no spaces or control characters (write %20)";
  return "";
}

std::string with_index(const std::string& pattern, std::uint64_t index, const std::string& where) {
  std::string text;
  std::size_t at = 0;
  while (true) {
    const std::size_t open = pattern.find('{', at);
    text += pattern.substr(at, open - at);
    if (open == std::string::npos) return text;
    const std::size_t close = pattern.find('}', open);
    const std::string found = pattern.substr(open, close == std::string::npos ? close : close - open + 1);
    constexpr std::string_view kOpening = "{index:0";
    std::size_t width = 0;
    if (found != "{index}") {
      const char* begin = found.data() + std::min(kOpening.size(), found.size());
      const auto [end, error] = std::from_chars(begin, found.data() + found.size(), width);
      if (!found.starts_with(kOpening) || error != std::errc() || width > 20 || std::string_view(end) != "d}") {
        throw ConfigError(fmt::format("{}: found {}, expected {{index}} or {{index:05d}}", where, found));
      }
    }
    text += fmt::format("{:0{}}", index, width);
    at = close + 1;
  }
}

std::string file_name_of(const std::string& url) {
  const std::size_t begin = path_begin(url);
  if (begin == std::string::npos) return "";
  const std::string path = url.substr(begin, url.find_first_of("?#", begin) - begin);
  return path.substr(path.rfind('/') + 1);
}

std::string with_mirror(const std::string& url, const std::string& mirror) {
  if (mirror.empty()) return url;
  std::string base = mirror;
  while (base.ends_with('/')) base.pop_back();
  return base + url.substr(path_begin(url));
}

std::string shown_url(const std::string& url) {
  const std::size_t begin = path_begin(url);
  if (begin == std::string::npos) return url;
  const std::size_t host = url.find("://") + 3;
  const std::size_t at = url.substr(0, begin).rfind('@');
  const std::size_t host_begin = at == std::string::npos || at < host ? host : at + 1;
  return url.substr(0, host) + url.substr(host_begin, url.find_first_of("?#", begin) - host_begin);
}

bool is_safe_path(const std::filesystem::path& path) {
  if (path.empty() || path.is_absolute() || !path.has_filename()) return false;
  return std::none_of(path.begin(), path.end(), [](const auto& part) { return part == ".." || part == "."; });
}

std::string as_sha256(const std::string& text) {
  std::string digits = text;
  std::transform(digits.begin(), digits.end(), digits.begin(), lower);
  const auto is_digit = [](char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; };
  return digits.size() == 64 && std::all_of(digits.begin(), digits.end(), is_digit) ? digits : "";
}

}  // namespace nanochat
