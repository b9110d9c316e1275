#pragma once
// For the trainers only: documents as both kinds take them.

#include <cstdint>
#include <string>

namespace nanochat {

// Replaces what is not valid UTF-8 and cuts the document, at a character, after at most max_bytes bytes.
void make_trainable(std::string& document, std::int64_t max_bytes);

}  // namespace nanochat
