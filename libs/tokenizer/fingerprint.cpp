#include "tokenizer/internal/fingerprint.h"

#include <array>
#include <cstdint>

#include "core/sha256.h"

namespace nanochat {
namespace {

void add_number(Sha256& hash, std::uint64_t value) {
  std::array<std::uint8_t, 8> little_endian;
  for (std::size_t i = 0; i < 8; ++i) little_endian[i] = static_cast<std::uint8_t>(value >> (8 * i));
  hash.update(little_endian.data(), little_endian.size());
}

void add_strings(Sha256& hash, const std::vector<std::string>& strings) {
  add_number(hash, strings.size());
  for (const std::string& text : strings) {
    add_number(hash, text.size());
    hash.update(text);
  }
}

}  // namespace

std::string tokenizer_fingerprint(const std::vector<std::string>& settings, const std::vector<std::string>& tokens,
                                  const std::vector<Merge>& merges, const std::vector<std::string>& specials) {
  Sha256 hash;
  add_strings(hash, settings);
  add_strings(hash, tokens);
  add_number(hash, merges.size());
  for (const Merge& merge : merges) {
    add_number(hash, static_cast<std::uint64_t>(merge.left));
    add_number(hash, static_cast<std::uint64_t>(merge.right));
  }
  add_strings(hash, specials);
  return to_hex(hash.digest());
}

}  // namespace nanochat
