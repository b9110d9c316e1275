#pragma once
// JSON from files that may be damaged or hostile: bounded nesting, no duplicate keys, one clear line when it is
// wrong.

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace nanochat {

// Nesting beyond this is refused: no file of a checkpoint comes near it, and walking deeper trees would recurse.
inline constexpr int kMaxJsonDepth = 64;

// Parses an object. `where` begins every message. Throws CheckpointError for malformed JSON, anything but an object,
// nesting beyond kMaxJsonDepth and a key given twice in one object.
nlohmann::json parse_json_object(std::string_view text, const std::string& where);

// The same for a whole file of at most max_bytes; also throws CheckpointError when it cannot be read.
nlohmann::json read_json_object(const std::filesystem::path& path, std::size_t max_bytes = std::size_t{64} << 20);

// Indented, with a final newline; bytes that are not UTF-8 become U+FFFD.
std::string to_json_text(const nlohmann::json& json);
std::string to_json_text(const nlohmann::ordered_json& json);

}  // namespace nanochat
