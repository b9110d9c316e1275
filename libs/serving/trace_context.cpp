#include "serving/internal/trace_context.h"

#include <algorithm>

namespace nanochat {
namespace {

constexpr std::size_t kLength = 55;  // "00-" 32 digits "-" 16 digits "-" 2 digits

bool is_hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_zero(std::string_view text) { return text.find_first_not_of('0') == std::string_view::npos; }

}  // namespace

std::optional<TraceContext> parse_traceparent(std::string_view header) {
  if (header.size() < kLength) return std::nullopt;
  const std::string_view version = header.substr(0, 2), trace = header.substr(3, 32), span = header.substr(36, 16),
                         flags = header.substr(53, 2);
  const bool dashes = header[2] == '-' && header[35] == '-' && header[52] == '-';
  if (!dashes || !is_hex(version) || !is_hex(trace) || !is_hex(span) || !is_hex(flags)) return std::nullopt;
  if (version == "ff" || is_zero(trace) || is_zero(span)) return std::nullopt;
  if (header.size() > kLength && (version == "00" || header[kLength] != '-')) return std::nullopt;
  return TraceContext{std::string(trace), std::string(span), std::string(flags)};
}

}  // namespace nanochat
