#include "core/json_message.h"

#include <cstddef>

namespace nanochat {

std::string shown_json(const nlohmann::json& value) {
  constexpr std::size_t kMostBytes = 60;
  std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() <= kMostBytes) return text;
  std::size_t end = kMostBytes - 3;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;  // not within a character
  text.resize(end);
  return text + "...";
}

}  // namespace nanochat
