#include <array>
#include <cstdint>
#include <unordered_map>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/utf8.h"
#include "tokenizer/internal/hf_tokenizer_json.h"

namespace nanochat {
namespace {

const std::array<std::string, 256>& characters_by_byte() {
  static const std::array<std::string, 256> characters = [] {
    std::array<std::string, 256> made;
    std::uint32_t next = 0x100;
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      const std::uint32_t point = printable ? byte : next++;
      if (point < 0x80) {
        made[byte] = std::string(1, static_cast<char>(point));
      } else {
        made[byte] = {static_cast<char>(0xC0 | point >> 6), static_cast<char>(0x80 | (point & 0x3F))};
      }
    }
    return made;
  }();
  return characters;
}

const std::unordered_map<std::string_view, char>& bytes_by_character() {
  static const std::unordered_map<std::string_view, char> bytes = [] {
    std::unordered_map<std::string_view, char> made;
    for (std::size_t byte = 0; byte < 256; ++byte) made.emplace(characters_by_byte()[byte], static_cast<char>(byte));
    return made;
  }();
  return bytes;
}

}  // namespace

std::string bytes_to_printable(std::string_view bytes) {
  std::string printable;
  for (const char byte : bytes) printable += characters_by_byte()[static_cast<std::uint8_t>(byte)];
  return printable;
}

std::string printable_to_bytes(std::string_view printable, const std::string& source) {
  std::string bytes;
  for (std::string_view rest = printable; !rest.empty();) {
    const std::size_t length = utf8::character_length(rest.substr(0, 4));
    const auto found = bytes_by_character().find(rest.substr(0, length));
    if (length == 0 || found == bytes_by_character().end()) {
      throw TokenizerError(fmt::format("{}: token \"{}\": \"{}\" stands for no byte in a byte-level vocabulary", source,
                                       printable, rest.substr(0, length)));
    }
    bytes += found->second;
    rest.remove_prefix(length);
  }
  return bytes;
}

}  // namespace nanochat
