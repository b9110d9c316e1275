#include "core/format.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>

#include <spdlog/fmt/fmt.h>

#include "core/utf8.h"

namespace nanochat {

std::string with_commas(std::int64_t value) {
  std::string text = std::to_string(value);
  const std::ptrdiff_t first = value < 0 ? 1 : 0;
  for (std::ptrdiff_t i = static_cast<std::ptrdiff_t>(text.size()) - 3; i > first; i -= 3) {
    text.insert(static_cast<std::size_t>(i), ",");
  }
  return text;
}

std::string human_bytes(double bytes) {
  constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  std::size_t unit = 0;
  // 1023.95 and above would print as 1024.0 of the smaller unit.
  while (std::abs(bytes) >= (unit == 0 ? 1024.0 : 1023.95) && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

std::string human_duration(double seconds) {
  if (!std::isfinite(seconds)) return "?";
  if (seconds < 0) return "-" + human_duration(-seconds);
  if (seconds < 0.9995) return fmt::format("{:.0f}ms", seconds * 1000);
  if (seconds < 59.95) return fmt::format("{:.1f}s", seconds);
  if (seconds < 3599.5) {
    const auto whole = static_cast<std::int64_t>(std::llround(seconds));
    return fmt::format("{}m {:02}s", whole / 60, whole % 60);
  }
  const auto minutes = static_cast<std::int64_t>(std::llround(seconds / 60));
  if (minutes < 24 * 60) return fmt::format("{}h {:02}m", minutes / 60, minutes % 60);
  const auto hours = static_cast<std::int64_t>(std::llround(seconds / 3600));
  return fmt::format("{}d {:02}h", hours / 24, hours % 24);
}

std::optional<std::int64_t> parse_bytes(std::string_view text) {
  double number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (parsed.ec != std::errc() || !(number >= 0)) return std::nullopt;
  std::string_view unit = text.substr(static_cast<std::size_t>(parsed.ptr - text.data()));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  constexpr std::string_view kPrefixes = "KMGT";
  double factor = 1;
  const char first = unit.starts_with('k') ? 'K' : unit.empty() ? 'B' : unit[0];
  if (const std::size_t prefix = kPrefixes.find(first); prefix != std::string_view::npos) {
    const bool binary = unit.substr(1).starts_with('i');
    for (std::size_t i = 0; i <= prefix; ++i) factor *= binary ? 1024 : 1000;
    unit.remove_prefix(binary ? 2 : 1);
    if (unit.empty()) return std::nullopt;  // "5G": of which kind?
  }
  if (!unit.empty() && unit != "B") return std::nullopt;
  const double bytes = number * factor;
  if (bytes >= 9.2e18) return std::nullopt;
  return static_cast<std::int64_t>(bytes);
}

bool is_valid_utf8(std::string_view bytes) { return utf8::valid_prefix(bytes) == bytes.size(); }

std::string replace_invalid_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    std::size_t begun = 0;
    const std::size_t length = utf8::character_length(bytes, &begun);
    if (length == 0) {
      text += "\xef\xbf\xbd";
      bytes.remove_prefix(std::max<std::size_t>(begun, 1));
    } else {
      text += bytes.substr(0, length);
      bytes.remove_prefix(length);
    }
  }
  return text;
}

std::string on_one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, '?');
  return text;
}

}  // namespace nanochat
