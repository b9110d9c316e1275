#pragma once
// The bytes of all tokens in one block, with a hash table from bytes to id that takes
// a string_view and does not allocate. Immutable after construction; thread-safe.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace nanochat {

class TokenStrings {
 public:
  TokenStrings() = default;
  // `findable(id)` false excludes a token from find(). Of equal strings, the first is found.
  template <class Findable>
  TokenStrings(const std::vector<std::string>& tokens, Findable findable) {
    store(tokens);
    for (std::size_t id = 0; id < tokens.size(); ++id) {
      if (findable(static_cast<TokenId>(id))) insert(static_cast<TokenId>(id));
    }
  }

  std::size_t size() const { return offsets_.size() - 1; }
  std::string_view operator[](TokenId id) const {
    const auto i = static_cast<std::size_t>(id);
    return std::string_view(bytes_).substr(offsets_[i], offsets_[i + 1] - offsets_[i]);
  }
  // The id of the token with exactly these bytes, or -1.
  TokenId find(std::string_view bytes) const;

 private:
  struct Slot {
    std::uint32_t tag = 0;  // upper half of the hash; avoids most string comparisons
    TokenId id = -1;
  };
  void store(const std::vector<std::string>& tokens);
  void insert(TokenId id);

  std::string bytes_;
  std::vector<std::uint32_t> offsets_ = {0};  // size() + 1
  std::vector<Slot> slots_;                   // open addressing, at most half full, a power of two
  std::size_t longest_ = 0;
};

}  // namespace nanochat
