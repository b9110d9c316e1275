#include "inference/json_constraint.h"

#include <algorithm>
#include <unordered_map>
#include <utility>
#include <vector>

#include <c10/util/Exception.h>
#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "inference/json_schema.h"

namespace nanochat {
namespace {

using State = ByteAutomaton::State;

// What sequences of one request share.
class Tables {
 public:
  Tables(ByteGrammar grammar, std::shared_ptr<const TokenTrie> trie) : automaton_(std::move(grammar)), trie_(std::move(trie)) {
    if (automaton_.start() == ByteAutomaton::kDead)
      throw ConfigError("json_schema: no finite value fits it, or none that is short enough to be written");
    if (const std::int64_t bytes = automaton_.shortest(automaton_.start()); bytes > ByteAutomaton::kLongestEnding) {
      throw ConfigError(fmt::format("json_schema: the shortest value that fits it has {} bytes; at most {} are supported",
                                    with_commas(bytes), with_commas(ByteAutomaton::kLongestEnding)));
    }
    if (closing(automaton_.start()) >= ByteGrammar::kNever) {
      throw ConfigError("json_schema: the tokenizer's vocabulary cannot spell a value that fits it");
    }
  }

  ByteAutomaton& automaton() { return automaton_; }

  // Tokens of the shortest ending that is known.
  std::int64_t closing(State state) {
    if (automaton_.accepts(state)) return 0;
    const auto [place, added] = closing_.try_emplace(state, ByteGrammar::kNever);
    if (added) {
      for (const std::string& ending : automaton_.endings(state)) {
        place->second = std::min(place->second, trie_->tokens_to_spell(ending));
      }
    }
    return place->second;
  }

  std::span<const std::uint64_t> allowed(State state, std::int64_t room) {
    const auto known = masks_.find(state);
    if (known != masks_.end() && known->second.longest <= room - 1) return known->second.bits;
    Mask mask = walk(state, room);
    if (mask.limited) {
      limited_ = std::move(mask.bits);
      return limited_;
    }
    constexpr std::size_t kMasks = 256;
    if (masks_.size() >= kMasks) masks_.clear();
    return masks_.insert_or_assign(state, std::move(mask)).first->second.bits;
  }

  State after(State state, std::int32_t token) {
    for (const char byte : trie_->bytes(token)) {
      state = automaton_.next(state, static_cast<unsigned char>(byte));
      TORCH_CHECK(state != ByteAutomaton::kDead, "JSON constraint: token ", token, " was not allowed");
    }
    return state;
  }

 private:
  struct Mask {
    std::vector<std::uint64_t> bits;
    std::int64_t longest = 0;  // closing length behind the allowed tokens
    bool limited = false;      // some token was left out for want of room
  };

  Mask walk(State state, std::int64_t room) {
    Mask mask;
    mask.bits.assign(static_cast<std::size_t>((trie_->vocab_size() + 63) / 64), 0);
    const std::vector<TokenTrie::Node>& nodes = trie_->nodes();
    states_.assign(1, state);
    for (std::size_t i = 1; i < nodes.size();) {
      const TokenTrie::Node& node = nodes[i];
      const auto depth = static_cast<std::size_t>(node.depth);
      states_.resize(depth);
      const State here = automaton_.next(states_[depth - 1], node.byte);
      if (here == ByteAutomaton::kDead) {
        i = static_cast<std::size_t>(node.end);
        continue;
      }
      states_.push_back(here);
      if (node.tokens > 0) allow(node, here, room, mask);
      ++i;
    }
    return mask;
  }

  void allow(const TokenTrie::Node& node, State here, std::int64_t room, Mask& mask) {
    const std::int64_t ending = closing(here);
    if (ending > room - 1) {
      mask.limited = true;
      return;
    }
    mask.longest = std::max(mask.longest, ending);
    for (std::int32_t i = node.first_token; i < node.first_token + node.tokens; ++i) {
      const auto id = static_cast<std::size_t>(trie_->token_ids()[static_cast<std::size_t>(i)]);
      mask.bits[id / 64] |= std::uint64_t{1} << (id % 64);
    }
  }

  ByteAutomaton automaton_;
  std::shared_ptr<const TokenTrie> trie_;
  std::unordered_map<State, std::int64_t> closing_;
  std::unordered_map<State, Mask> masks_;   // of states where room was no matter
  std::vector<std::uint64_t> limited_;
  std::vector<State> states_;               // of a walk, by depth
};

class GrammarConstraint : public TokenConstraint {
 public:
  explicit GrammarConstraint(std::shared_ptr<Tables> tables)
      : tables_(std::move(tables)), state_(tables_->automaton().start()) {}

  std::span<const std::uint64_t> allowed(std::int64_t room) override { return tables_->allowed(state_, room); }
  void accept(std::int32_t token) override { state_ = tables_->after(state_, token); }
  bool may_end() const override { return tables_->automaton().accepts(state_); }
  bool must_end() const override { return may_end() && !tables_->automaton().has_next(state_); }
  std::int64_t closing_length() override { return tables_->closing(state_); }
  std::unique_ptr<TokenConstraint> clone() const override { return std::make_unique<GrammarConstraint>(*this); }

 private:
  std::shared_ptr<Tables> tables_;
  State state_;
};

}  // namespace

std::unique_ptr<TokenConstraint> json_schema_constraint(const nlohmann::ordered_json& schema,
                                                        std::shared_ptr<const TokenTrie> trie) {
  return std::make_unique<GrammarConstraint>(std::make_shared<Tables>(json_grammar(schema), std::move(trie)));
}

std::unique_ptr<TokenConstraint> json_object_constraint(std::shared_ptr<const TokenTrie> trie) {
  return std::make_unique<GrammarConstraint>(std::make_shared<Tables>(json_object_grammar(), std::move(trie)));
}

}  // namespace nanochat
