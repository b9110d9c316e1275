#include "tokenizer/internal/training_text.h"

#include "core/format.h"

namespace nanochat {

void make_trainable(std::string& document, std::int64_t max_bytes) {
  if (!is_valid_utf8(document)) document = replace_invalid_utf8(document);
  if (static_cast<std::int64_t>(document.size()) <= max_bytes) return;
  auto end = static_cast<std::size_t>(max_bytes);
  while (end > 0 && (static_cast<std::uint8_t>(document[end]) & 0xC0) == 0x80) --end;
  document.resize(end);
}

}  // namespace nanochat
