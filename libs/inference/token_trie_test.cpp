#include "inference/token_trie.h"

#include <gtest/gtest.h>

namespace nanochat {
namespace {

const std::vector<std::string> kTokens = {"a", "", "ab", "abc", "b", "ca", "ab", "\xff"};

TokenTrie make_trie() {
  return TokenTrie(static_cast<std::int64_t>(kTokens.size()),
                   [](std::int32_t id) { return std::string_view(kTokens[static_cast<std::size_t>(id)]); });
}

TEST(TokenTrie, HoldsEveryTokenAtThePathOfItsBytes) {
  const TokenTrie trie = make_trie();
  std::vector<std::string> found(kTokens.size());
  std::string path;
  for (std::size_t i = 1; i < trie.nodes().size(); ++i) {
    const TokenTrie::Node& node = trie.nodes()[i];
    path.resize(static_cast<std::size_t>(node.depth - 1));
    path.push_back(static_cast<char>(node.byte));
    for (std::int32_t t = 0; t < node.tokens; ++t) {
      found[static_cast<std::size_t>(trie.token_ids()[static_cast<std::size_t>(node.first_token + t)])] = path;
    }
  }
  EXPECT_EQ(found, kTokens);
  EXPECT_EQ(trie.vocab_size(), 8);
  EXPECT_EQ(trie.bytes(3), "abc");
}

TEST(TokenTrie, ABranchEndsWhereItsBytesDo) {
  const TokenTrie trie = make_trie();
  for (std::size_t i = 0; i < trie.nodes().size(); ++i) {
    const TokenTrie::Node& node = trie.nodes()[i];
    for (std::size_t j = i + 1; j < trie.nodes().size(); ++j) {
      const bool below = j < static_cast<std::size_t>(node.end);
      if (below || j == static_cast<std::size_t>(node.end)) {
        EXPECT_EQ(trie.nodes()[j].depth > node.depth, below);
      }
    }
  }
}

TEST(TokenTrie, CountsTheFewestTokens) {
  const TokenTrie trie = make_trie();
  EXPECT_EQ(trie.tokens_to_spell(""), 0);
  EXPECT_EQ(trie.tokens_to_spell("abcab"), 2);  // abc ab
  EXPECT_EQ(trie.tokens_to_spell("abca"), 2);   // ab ca: the longest first is no shorter
  EXPECT_EQ(trie.tokens_to_spell("bb"), 2);
  EXPECT_GT(trie.tokens_to_spell("abd"), 1000);
  EXPECT_GT(trie.tokens_to_spell("c"), 1000);
}

}  // namespace
}  // namespace nanochat
