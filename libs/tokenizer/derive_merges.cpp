#include "tokenizer/internal/derive_merges.h"

#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace nanochat {
namespace {

std::vector<Merge> every_split(const std::vector<MergedToken>& tokens) {
  std::unordered_map<std::string_view, TokenId> known;
  for (const MergedToken& token : tokens) {
    known.emplace(token.bytes, token.id);
    std::size_t offset = 0;
    for (std::size_t i = 0; i < token.symbols.size(); offset += token.symbol_lengths[i++]) {
      known.emplace(std::string_view(token.bytes).substr(offset, token.symbol_lengths[i]), token.symbols[i]);
    }
  }
  // Most splits of a very long token cannot be, by their lengths alone: without this it would take its length squared.
  std::unordered_set<std::size_t> lengths;
  for (const auto& [bytes, id] : known) lengths.insert(bytes.size());
  std::vector<Merge> merges;
  for (std::size_t rank = 0; rank < tokens.size(); ++rank) {
    const std::string_view bytes = tokens[rank].bytes;
    std::size_t offset = 0;
    for (std::size_t i = 0; i + 1 < tokens[rank].symbols.size(); ++i) {
      offset += tokens[rank].symbol_lengths[i];
      if (!lengths.contains(offset) || !lengths.contains(bytes.size() - offset)) continue;
      const auto left = known.find(bytes.substr(0, offset));
      const auto right = known.find(bytes.substr(offset));
      if (left == known.end() || right == known.end()) continue;
      merges.push_back({left->second, right->second, tokens[rank].id, static_cast<std::uint32_t>(rank)});
    }
  }
  return merges;
}

}  // namespace

std::vector<Merge> derive_merges(const std::vector<MergedToken>& tokens) {
  MergeTable table(tokens.size());
  std::vector<Merge> merges;
  merges.reserve(tokens.size());
  std::vector<TokenId> parts;
  for (const MergedToken& token : tokens) {
    parts.clear();
    table.merge(token.symbols, parts);
    if (parts.size() != 2) return every_split(tokens);
    merges.push_back({parts[0], parts[1], token.id, static_cast<std::uint32_t>(merges.size())});
    table.add(merges.back());
  }
  return merges;
}

}  // namespace nanochat
