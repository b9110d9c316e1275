#pragma once
// For the trainers only: documents in the form that both types use.

#include <cstdint>
#include <string>

namespace nanochat {

// Replaces invalid UTF-8 and truncates the document, between characters, to at most max_bytes bytes.
void make_trainable(std::string& document, std::int64_t max_bytes);

}  // namespace nanochat
