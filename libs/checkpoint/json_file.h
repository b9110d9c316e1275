#pragma once
// JSON from files that may be damaged or hostile: limited
// nesting, no duplicate keys, and a clear error in one line.

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace nanochat {

// Deeper nesting is refused. Files of a checkpoint are far below this, and deeper trees would recurse too far.
inline constexpr int kMaxJsonDepth = 64;

// Parses an object. Messages begin with `where`. Throws CheckpointError for malformed JSON,
// anything but an object, nesting beyond kMaxJsonDepth and a key that occurs twice in one object.
nlohmann::json parse_json_object(std::string_view text, const std::string& where);

// The same for a whole file of at most max_bytes; also throws CheckpointError if it cannot be read.
nlohmann::json read_json_object(const std::filesystem::path& path, std::size_t max_bytes = std::size_t{64} << 20);

// Indented, with a final newline; bytes that are not UTF-8 become U+FFFD.
std::string to_json_text(const nlohmann::json& json);
std::string to_json_text(const nlohmann::ordered_json& json);

}  // namespace nanochat
