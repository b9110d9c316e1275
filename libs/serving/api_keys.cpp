#include "serving/api_keys.h"

#include <algorithm>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"

namespace nanochat {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
  return text.substr(0, text.find_last_not_of(kSpace) + 1);
}

}  // namespace

std::string parse_api_key(std::string_view text, const std::string& where) {
  text = trimmed(text);
  if (text.empty()) throw ConfigError(fmt::format("{}: found nothing, expected a key", where));
  const auto unfit = [](char c) { return static_cast<unsigned char>(c) <= 0x20 || c == 0x7f; };
  if (std::any_of(text.begin(), text.end(), unfit)) {
    throw ConfigError(fmt::format("{}: found white space or a control character in a key, expected a key without", where));
  }
  return std::string(text);
}

std::vector<std::string> parse_api_key_file(std::string_view text, const std::string& file) {
  if (!is_valid_utf8(text)) throw ConfigError(fmt::format("{}: found text that is not UTF-8, expected one key per line", file));
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  std::vector<std::string> keys;
  for (int number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#') continue;
    keys.push_back(parse_api_key(line, fmt::format("{}:{}", file, number)));
  }
  if (keys.empty()) throw ConfigError(fmt::format("{}: found no key, expected one per line", file));
  return keys;
}

}  // namespace nanochat
