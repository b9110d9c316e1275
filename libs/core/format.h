#pragma once
// Numbers as people read them.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nanochat {

std::string with_commas(std::int64_t value);          // 1,234,567
std::string human_bytes(double bytes);                // 1.5 GiB
std::string human_duration(double seconds);           // 1h 02m, 3m 04s, 5.2s
// "500MB", "5GB", "1.5 GiB", "4096": decimal and binary units, of bytes without one. nullopt when it is no size, or none
// that 63 bits hold.
std::optional<std::int64_t> parse_bytes(std::string_view text);
bool is_valid_utf8(std::string_view bytes);
// Each maximal bad part becomes U+FFFD, as with Python's errors="replace".
std::string replace_invalid_utf8(std::string_view bytes);
// Control characters below a space become '?': what a message quotes of a damaged file must not break its line.
std::string on_one_line(std::string text);

}  // namespace nanochat
