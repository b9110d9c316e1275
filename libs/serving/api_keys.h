#pragma once
// The keys that clients must bring, as people write them down.

#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

// A key without the white space around it. Throws ConfigError for what no client can bring as a key: an empty one, or one with
// white space or control characters within. `where` begins the message, which never shows a key.
std::string parse_api_key(std::string_view text, const std::string& where);

// The keys of a file, one a line. A byte order mark, white space around keys, empty lines and lines that begin with # are no
// part of any. Throws ConfigError naming the line, or the file when it holds no key.
std::vector<std::string> parse_api_key_file(std::string_view text, const std::string& file);

}  // namespace nanochat
