#pragma once
// Reads the API keys that clients must send, from an option or a file.

#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

// Returns the key without the white space around it. Throws ConfigError for a key that no client could send: an empty one, or
// one that contains white space or control characters. The message begins with `where` and never contains the key.
std::string parse_api_key(std::string_view text, const std::string& where);

// Returns the keys of a file with one key per line. A byte order mark, white space around keys, empty lines and lines that
// begin with # are ignored. Throws ConfigError, which names the line, or the file if it has no key.
std::vector<std::string> parse_api_key_file(std::string_view text, const std::string& file);

}  // namespace nanochat
