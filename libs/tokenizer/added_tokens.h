#pragma once
// Tokens that a tokenizer.json adds to its vocabulary. They are found in the text before it is split
// or merged. Special tokens are never found in text (in Python: encode_special_tokens = True).
// Immutable after construction; thread-safe.
//
// Source: huggingface/tokenizers, added_vocabulary.rs: the leftmost match, and among several
// the longest. A match never begins inside another match, including one of a special token.

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/text_normalizer.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

struct AddedToken {
  TokenId id = -1;
  std::string content;
  bool special = false;
  bool single_word = false;     // only without a word character on either side
  bool lstrip = false;          // includes the white space before it
  bool rstrip = false;          // includes the white space after it
  bool normalized = false;      // searched in the normalized text, in its own normalized form
  bool operator==(const AddedToken&) const = default;
};

class AddedTokens {
 public:
  // Throws TokenizerError if two tokens, or their normalized forms, are equal or empty.
  AddedTokens(const std::vector<AddedToken>& tokens, const TextNormalizer& normalizer);

  // Calls visit_text(text between tokens) and visit_token(id) in order. Tokens are
  // searched in the original text, or with `normalized` in the normalized text.
  void find(std::string_view text, bool normalized, const std::function<void(std::string_view)>& visit_text,
            const std::function<void(TokenId)>& visit_token) const;
  bool any(bool normalized) const { return set(normalized).findable; }

 private:
  // A tree of the strings' bytes.
  struct Set {
    std::unordered_map<std::uint64_t, std::uint32_t> edges;  // node << 8 | byte, mapped to a node
    std::vector<std::int32_t> token_at = {-1};               // for each node: an index of tokens, or -1
    std::array<bool, 256> begins{};                          // bytes that begin a token
    std::vector<AddedToken> tokens;
    bool findable = false;                                   // at least one of them is not special
    void add(const AddedToken& token, std::string_view spelling);
    // The longest token at the beginning of `text`, or -1, and its length.
    std::int32_t match(std::string_view text, std::size_t& length) const;
  };
  const Set& set(bool normalized) const { return normalized ? in_normalized_ : in_text_; }

  Set in_text_, in_normalized_;
  Pretokenizer word_;
};

}  // namespace nanochat
