#include "inference/answer_constraint.h"

#include <algorithm>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <c10/util/Exception.h>
#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "inference/answer_grammars.h"
#include "inference/json_schema.h"

namespace nanochat {
namespace {

using State = ByteAutomaton::State;

struct Mask {
  std::vector<std::uint64_t> bits;
  std::int64_t longest = 0;  // closing length behind the allowed tokens
  bool limited = false;      // some token was left out for want of room
  std::size_t nodes = 0;     // of the trie, that were looked at
};

}  // namespace

// What sequences with one grammar share: states of the automaton and what follows them. Thread-safe.
class ConstraintTables {
 public:
  ConstraintTables(const std::string& what, ByteGrammar grammar, std::shared_ptr<const TokenTrie> trie)
      : automaton_(std::move(grammar)), trie_(std::move(trie)) {
    if (automaton_.start() == ByteAutomaton::kDead)
      throw ConfigError(what + ": no finite value fits it, or none that is short enough to be written");
    if (const std::int64_t bytes = automaton_.shortest(automaton_.start()); bytes > ByteAutomaton::kLongestEnding) {
      throw ConfigError(fmt::format("{}: the shortest value that fits it has {} bytes; at most {} are supported", what,
                                    with_commas(bytes), with_commas(ByteAutomaton::kLongestEnding)));
    }
    if (find_closing(automaton_.start()) >= ByteGrammar::kNever) {
      throw ConfigError(what + ": the tokenizer's vocabulary cannot spell a value that fits it");
    }
  }

  State start() const { return automaton_.start(); }
  bool accepts(State state) {
    const std::lock_guard lock(mutex_);
    return automaton_.accepts(state);
  }
  bool has_next(State state) {
    const std::lock_guard lock(mutex_);
    return automaton_.has_next(state);
  }
  // Tokens of the shortest ending that is known.
  std::int64_t closing(State state) {
    const std::lock_guard lock(mutex_);
    return find_closing(state);
  }
  // Whether so many states have been reached that a new table is better than a larger one.
  bool full() {
    constexpr std::size_t kStates = 50'000;
    const std::lock_guard lock(mutex_);
    return automaton_.states() > kStates;
  }

  std::shared_ptr<const Mask> allowed(State state, std::int64_t room) {
    const std::lock_guard lock(mutex_);
    const auto known = masks_.find(state);
    if (known != masks_.end() && known->second->longest <= room - 1) return known->second;
    auto mask = std::make_shared<const Mask>(walk(state, room));
    // Where few bytes may come, a mask is made again as fast as it is looked up: only those of many nodes are kept.
    constexpr std::size_t kManyNodes = 2000;
    if (mask->limited || mask->nodes < kManyNodes) return mask;
    constexpr std::size_t kMaskBytes = std::size_t{16} << 20;
    if ((masks_.size() + 1) * mask->bits.size() * sizeof(std::uint64_t) > kMaskBytes) masks_.clear();
    masks_.insert_or_assign(state, mask);
    return mask;
  }

  State after(State state, std::int32_t token) {
    const std::lock_guard lock(mutex_);
    for (const char byte : trie_->bytes(token)) {
      state = automaton_.next(state, static_cast<unsigned char>(byte));
      TORCH_CHECK(state != ByteAutomaton::kDead, "constraint: token ", token, " was not allowed");
    }
    return state;
  }

 private:
  std::int64_t find_closing(State state) {
    if (automaton_.accepts(state)) return 0;
    const auto index = static_cast<std::size_t>(state);
    if (index >= closing_.size()) closing_.resize(std::max(automaton_.states(), index + 1), kUnknown);
    if (closing_[index] == kUnknown) {
      std::int64_t fewest = ByteGrammar::kNever;
      for (const ByteAutomaton::Place place : automaton_.ending_places(state))
        fewest = std::min(fewest, ending(place).fewest.front());
      closing_[index] = fewest;
    }
    return closing_[index];
  }

  // The beginning of an ending, as far as tokens that begin before it may reach into it, and the number of tokens for the
  // ending from each of these bytes on.
  struct Ending {
    std::string text;
    std::vector<std::int64_t> fewest;  // one more than the text has bytes
  };

  const Ending& ending(ByteAutomaton::Place place) {
    static const Ending kNothing = {"", {0}};
    std::vector<std::pair<ByteAutomaton::Place, std::string>> parts;
    while (place != ByteAutomaton::kNoPlace && endings_.count(place) == 0) {
      ByteAutomaton::EndingPart part = automaton_.ending_part(place);
      parts.emplace_back(place, std::move(part.text));
      place = part.rest;
    }
    const Ending* rest = place == ByteAutomaton::kNoPlace ? &kNothing : &endings_.at(place);
    for (; !parts.empty(); parts.pop_back()) rest = &(endings_[parts.back().first] = spell(parts.back().second, *rest));
    return *rest;
  }

  Ending spell(const std::string& part, const Ending& rest) const {
    Ending made = {part + rest.text, std::vector<std::int64_t>(part.size(), ByteGrammar::kNever)};
    made.fewest.insert(made.fewest.end(), rest.fewest.begin(), rest.fewest.end());
    for (std::size_t begin = part.size(); begin-- > 0;) {
      std::int32_t node = 0;
      for (std::size_t i = begin; i < made.text.size(); ++i) {
        node = trie_->child(node, static_cast<unsigned char>(made.text[i]));
        if (node < 0) break;
        if (trie_->nodes()[static_cast<std::size_t>(node)].tokens > 0)
          made.fewest[begin] = std::min(made.fewest[begin], made.fewest[i + 1] + 1);
      }
    }
    if (made.text.size() > trie_->longest()) {
      made.text.resize(trie_->longest());
      made.fewest.resize(trie_->longest() + 1);
    }
    return made;
  }

  Mask walk(State state, std::int64_t room) {
    Mask mask;
    mask.bits.assign(static_cast<std::size_t>((trie_->vocab_size() + 63) / 64), 0);
    const std::vector<TokenTrie::Node>& nodes = trie_->nodes();
    states_.assign(1, state);
    for (std::size_t i = 1; i < nodes.size();) {
      const TokenTrie::Node& node = nodes[i];
      ++mask.nodes;
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
    const std::int64_t ending = find_closing(here);
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

  std::mutex mutex_;
  ByteAutomaton automaton_;
  std::shared_ptr<const TokenTrie> trie_;
  static constexpr std::int64_t kUnknown = -1;
  std::vector<std::int64_t> closing_;                             // by state
  std::unordered_map<ByteAutomaton::Place, Ending> endings_;
  std::unordered_map<State, std::shared_ptr<const Mask>> masks_;  // of states where room was no matter
  std::vector<State> states_;                                     // of a walk, by depth
};

namespace {

class GrammarConstraint : public TokenConstraint {
 public:
  explicit GrammarConstraint(std::shared_ptr<ConstraintTables> tables) : tables_(std::move(tables)), state_(tables_->start()) {}

  std::span<const std::uint64_t> allowed(std::int64_t room) override {
    mask_ = tables_->allowed(state_, room);
    return mask_->bits;
  }
  void accept(std::int32_t token) override { state_ = tables_->after(state_, token); }
  bool may_end() const override { return tables_->accepts(state_); }
  bool must_end() const override { return may_end() && !tables_->has_next(state_); }
  std::int64_t closing_length() override { return tables_->closing(state_); }
  std::unique_ptr<TokenConstraint> clone() const override { return std::make_unique<GrammarConstraint>(*this); }

 private:
  std::shared_ptr<ConstraintTables> tables_;
  std::shared_ptr<const Mask> mask_;  // the last one
  State state_;
};

std::shared_ptr<ConstraintTables> make_tables(AnswerForm form, const nlohmann::ordered_json& value,
                                              std::shared_ptr<const TokenTrie> trie) {
  switch (form) {
    case AnswerForm::kJsonObject:
      return std::make_shared<ConstraintTables>("json_object", json_object_grammar(), std::move(trie));
    case AnswerForm::kJsonSchema:
      return std::make_shared<ConstraintTables>("json_schema", json_grammar(value), std::move(trie));
    case AnswerForm::kRegex:
      return std::make_shared<ConstraintTables>("regular expression", regex_grammar(value.get<std::string>()), std::move(trie));
    case AnswerForm::kChoice:
      return std::make_shared<ConstraintTables>("choice", choice_grammar(value.get<std::vector<std::string>>()),
                                                std::move(trie));
    case AnswerForm::kGrammar: break;
  }
  return std::make_shared<ConstraintTables>("grammar", gbnf_grammar(value.get<std::string>()), std::move(trie));
}

}  // namespace

std::unique_ptr<TokenConstraint> answer_constraint(AnswerForm form, const nlohmann::ordered_json& value,
                                                   std::shared_ptr<const TokenTrie> trie) {
  return std::make_unique<GrammarConstraint>(make_tables(form, value, std::move(trie)));
}

ConstraintCache::ConstraintCache(std::shared_ptr<const TokenTrie> trie) : trie_(std::move(trie)) {}

std::unique_ptr<TokenConstraint> ConstraintCache::make(AnswerForm form, const nlohmann::ordered_json& value) {
  const std::string key = std::to_string(static_cast<int>(form)) + value.dump();
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.first == key; });
    if (found != entries_.end() && !found->second->full()) {
      std::rotate(entries_.begin(), found, found + 1);  // the last used comes first
      return std::make_unique<GrammarConstraint>(entries_.front().second);
    }
    if (found != entries_.end()) entries_.erase(found);
  }
  auto tables = make_tables(form, value, trie_);  // without the lock: a large schema takes a while
  const std::lock_guard lock(mutex_);
  entries_.insert(entries_.begin(), {key, tables});
  if (entries_.size() > kEntries) entries_.pop_back();
  return std::make_unique<GrammarConstraint>(std::move(tables));
}

}  // namespace nanochat
