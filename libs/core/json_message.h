#pragma once
// JSON values inside error messages.

#include <string>

#include <nlohmann/json.hpp>

namespace nanochat {

// The JSON text of `value`, in one line and valid UTF-8, of at most 60 bytes: of a longer one the beginning and "...".
// Bytes that are not UTF-8 become U+FFFD, so this never throws.
std::string shown_json(const nlohmann::json& value);

}  // namespace nanochat
