#pragma once
// Formatting of numbers for people.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nanochat {

std::string with_commas(std::int64_t value);          // 1,234,567
std::string human_bytes(double bytes);                // 1.5 GiB
std::string human_duration(double seconds);           // 1h 02m, 3m 04s, 5.2s
// Parses "500MB", "5GB", "1.5 GiB" or "4096" (bytes) with decimal and binary
// units. nullopt if the text is not a size or does not fit in 63 bits.
std::optional<std::int64_t> parse_bytes(std::string_view text);
bool is_valid_utf8(std::string_view bytes);
// Replaces each maximal invalid part by U+FFFD, as Python's errors="replace" does.
std::string replace_invalid_utf8(std::string_view bytes);
// Replaces control characters by '?'. Text from a damaged file must not break the line of a message.
std::string on_one_line(std::string text);

}  // namespace nanochat
