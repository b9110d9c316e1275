#include "inference/token_trie.h"

#include <algorithm>
#include <utility>

namespace nanochat {

TokenTrie::TokenTrie(std::int64_t vocab_size, const std::function<std::string_view(std::int32_t)>& bytes_of) {
  std::vector<std::pair<std::string_view, std::int32_t>> tokens;
  bytes_.reserve(static_cast<std::size_t>(vocab_size));
  for (std::int32_t id = 0; id < vocab_size; ++id) {
    bytes_.emplace_back(bytes_of(id));
    if (!bytes_.back().empty()) tokens.emplace_back(bytes_.back(), id);
  }
  std::sort(tokens.begin(), tokens.end());
  nodes_.emplace_back();
  std::vector<std::int32_t> path = {0};  // nodes from the root to the last token
  std::string_view last;
  for (const auto& [bytes, id] : tokens) {
    const auto common = static_cast<std::size_t>(std::mismatch(bytes.begin(), bytes.end(), last.begin(), last.end()).first -
                                                 bytes.begin());
    for (; path.size() > common + 1; path.pop_back())
      nodes_[static_cast<std::size_t>(path.back())].end = static_cast<std::int32_t>(nodes_.size());
    for (std::size_t i = common; i < bytes.size(); ++i) {
      path.push_back(static_cast<std::int32_t>(nodes_.size()));
      nodes_.push_back({static_cast<unsigned char>(bytes[i]), static_cast<std::int32_t>(i + 1), 0, 0, 0});
    }
    Node& node = nodes_[static_cast<std::size_t>(path.back())];
    if (node.tokens++ == 0) node.first_token = static_cast<std::int32_t>(token_ids_.size());
    token_ids_.push_back(id);
    last = bytes;
  }
  for (const std::int32_t node : path) nodes_[static_cast<std::size_t>(node)].end = static_cast<std::int32_t>(nodes_.size());
  below_root_.fill(-1);
  for (std::int32_t node = 1; node < nodes_.front().end; node = nodes_[static_cast<std::size_t>(node)].end) {
    below_root_[nodes_[static_cast<std::size_t>(node)].byte] = node;
  }
  for (const Node& node : nodes_) longest_ = std::max(longest_, static_cast<std::size_t>(node.depth));
}

std::int32_t TokenTrie::child(std::int32_t node, unsigned char byte) const {
  if (node == 0) return below_root_[byte];
  const std::int32_t end = nodes_[static_cast<std::size_t>(node)].end;
  for (std::int32_t below = node + 1; below < end; below = nodes_[static_cast<std::size_t>(below)].end) {
    if (nodes_[static_cast<std::size_t>(below)].byte == byte) return below;
  }
  return -1;
}

std::int64_t TokenTrie::tokens_to_spell(std::string_view text) const {
  constexpr std::int64_t kNever = std::int64_t{1} << 40;
  std::vector<std::int64_t> fewest(text.size() + 1, kNever);  // for the text up to a place
  fewest[0] = 0;
  for (std::size_t begin = 0; begin < text.size(); ++begin) {
    if (fewest[begin] == kNever) continue;
    std::int32_t node = 0;
    for (std::size_t i = begin; i < text.size(); ++i) {
      node = child(node, static_cast<unsigned char>(text[i]));
      if (node < 0) break;
      if (nodes_[static_cast<std::size_t>(node)].tokens > 0) fewest[i + 1] = std::min(fewest[i + 1], fewest[begin] + 1);
    }
  }
  return fewest.back();
}

}  // namespace nanochat
