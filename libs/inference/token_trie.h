#pragma once
// The tokens of a vocabulary sorted by their bytes. All tokens with a common prefix are adjacent,
// so traversing it together with an automaton skips whole branches. Immutable and thread-safe.

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

class TokenTrie {
 public:
  // bytes_of(id) for id in [0, vocab_size); empty for tokens that never occur in text, such as special tokens.
  TokenTrie(std::int64_t vocab_size, const std::function<std::string_view(std::int32_t)>& bytes_of);

  // Preorder. Node 0 is the root; the bytes of a node are those of its ancestors and its own.
  struct Node {
    unsigned char byte = 0;
    std::int32_t depth = 0;      // bytes so far
    std::int32_t end = 0;        // the first node that is not below this one
    std::int32_t first_token = 0, tokens = 0;  // in token_ids(): the tokens that end here
  };
  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<std::int32_t>& token_ids() const { return token_ids_; }
  std::int64_t vocab_size() const { return static_cast<std::int64_t>(bytes_.size()); }
  const std::string& bytes(std::int32_t id) const { return bytes_[static_cast<std::size_t>(id)]; }
  std::size_t longest() const { return longest_; }  // bytes of a token
  // The node below `node` for the next byte; -1 if there is none.
  std::int32_t child(std::int32_t node, unsigned char byte) const;
  // The minimum number of tokens that spell `text`; a value above any length if none do.
  std::int64_t tokens_to_spell(std::string_view text) const;

 private:
  std::vector<Node> nodes_;
  std::vector<std::int32_t> token_ids_;
  std::vector<std::string> bytes_;  // by id
  std::array<std::int32_t, 256> below_root_{};  // the root has nearly all children that there can be
  std::size_t longest_ = 0;
};

}  // namespace nanochat
