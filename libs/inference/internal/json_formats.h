#pragma once
// For the JSON constraint only: what "format" of a JSON schema means, as regular expressions for whole texts.

#include <optional>
#include <string>
#include <string_view>

namespace nanochat {

// The expression; "" if every text fits; nullopt if the format is not supported.
std::optional<std::string> format_expression(std::string_view format);
// The names of the formats, for messages.
std::string format_names();

}  // namespace nanochat
