#include "inference/byte_grammar.h"

#include <algorithm>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"

namespace nanochat {

ByteGrammar::Rule ByteGrammar::add_rule() {
  rules_.emplace_back();
  return static_cast<Rule>(rules_.size()) - 1;
}

void ByteGrammar::add_alternative(Rule rule, const Sequence& sequence) {
  if (items_.size() + sequence.size() >= kMaxSymbols) {
    throw ConfigError(fmt::format("the grammar has more than {} symbols; expected fewer values, or lower lengths and counts",
                                  with_commas(static_cast<std::int64_t>(kMaxSymbols))));
  }
  rules_[static_cast<std::size_t>(rule)].push_back(static_cast<std::int32_t>(items_.size()));
  for (const Symbol& symbol : sequence) items_.push_back({symbol.is_rule ? ItemKind::kRule : ItemKind::kBytes, symbol.index});
  items_.push_back({ItemKind::kEnd, 0});
}

ByteGrammar::Symbol ByteGrammar::one_of(const Bytes& bytes) {
  const auto [place, added] = set_index_.try_emplace(bytes, static_cast<std::int32_t>(sets_.size()));
  if (added) sets_.push_back(bytes);
  return {false, place->second};
}

ByteGrammar::Bytes ByteGrammar::range(unsigned char first, unsigned char last) {
  Bytes bytes;
  for (std::size_t b = first; b <= last; ++b) bytes.set(b);
  return bytes;
}

void ByteGrammar::append_literal(Sequence& sequence, std::string_view text) {
  for (const char c : text) sequence.push_back(one_of(range(static_cast<unsigned char>(c), static_cast<unsigned char>(c))));
}

void ByteGrammar::finish(Rule start) {
  start_ = start;
  shortest_.assign(items_.size(), kNever);
  best_.assign(rules_.size(), -1);
  std::vector<std::int64_t> of_rule(rules_.size(), kNever);
  std::vector<Rule> rule_at(items_.size(), -1);  // of the alternative that begins there
  for (std::size_t r = 0; r < rules_.size(); ++r) {
    for (const std::int32_t first : rules_[r]) rule_at[static_cast<std::size_t>(first)] = static_cast<Rule>(r);
  }
  // Rules are mostly written after those that they use: what a round finds serves within the same round, and the rounds
  // after the first are for rules that use themselves.
  for (bool changed = true; changed;) {
    changed = false;
    for (std::size_t first = 0, end = 0; first < items_.size(); first = end + 1) {
      for (end = first; items_[end].kind != ItemKind::kEnd;) ++end;
      shortest_[end] = 0;
      for (std::size_t i = end; i-- > first;) {
        const std::int64_t own = items_[i].kind == ItemKind::kBytes ? 1 : of_rule[static_cast<std::size_t>(items_[i].index)];
        shortest_[i] = std::min(kNever, own + shortest_[i + 1]);
      }
      const auto rule = static_cast<std::size_t>(rule_at[first]);
      if (shortest_[first] >= of_rule[rule]) continue;
      of_rule[rule] = shortest_[first];
      best_[rule] = static_cast<std::int32_t>(first);
      changed = true;
    }
  }
}

bool ByteAutomaton::Seen::add(std::uint64_t key) {
  constexpr std::size_t kFew = 32;
  if (list_.size() < kFew) {
    if (std::find(list_.begin(), list_.end(), key) != list_.end()) return false;
    list_.push_back(key);
    return true;
  }
  if (set_.empty()) set_.insert(list_.begin(), list_.end());
  return set_.insert(key).second;
}

ByteAutomaton::ByteAutomaton(ByteGrammar grammar) : grammar_(std::move(grammar)) {
  find_classes();
  StateData first;
  Seen seen;
  for (const std::int32_t alternative : grammar_.rules_[static_cast<std::size_t>(grammar_.start_)]) {
    expand(alternative, kBottom, first, seen);
  }
  start_ = intern_state(std::move(first));
}

// Bytes that no set tells apart share a class, so that states need few transitions.
void ByteAutomaton::find_classes() {
  class_of_.assign(256, 0);
  classes_ = 1;
  for (const ByteGrammar::Bytes& set : grammar_.sets_) {
    std::map<std::pair<std::uint8_t, bool>, std::uint8_t> split;
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const auto [place, added] = split.try_emplace({class_of_[byte], set[byte]}, static_cast<std::uint8_t>(split.size()));
      class_of_[byte] = place->second;
    }
    classes_ = split.size();
  }
}

std::int32_t ByteAutomaton::intern_frame(std::int32_t item_index, std::int32_t below) {
  const Place key = place_of(item_index, below);
  const auto [place, added] = frame_index_.try_emplace(key, static_cast<std::int32_t>(frames_.size()));
  if (added) {
    const std::int64_t rest = below == kBottom ? 0 : frame(below).shortest;
    frames_.push_back({item_index, below,
                       std::min(ByteGrammar::kNever, grammar_.shortest_[static_cast<std::size_t>(item_index)] + rest)});
  }
  return place->second;
}

// Adds what can come at an item: its bytes, or those of the rule it names, or what follows the end of its rule.
void ByteAutomaton::expand(std::int32_t item_index, std::int32_t below, StateData& state, Seen& seen) {
  while (item(item_index).kind == ItemKind::kEnd) {
    if (below == kBottom) {
      state.accepts = true;
      return;
    }
    item_index = frame(below).item;
    below = frame(below).below;
  }
  const Place key = place_of(item_index, below);
  if (!seen.add(key)) return;
  if (item(item_index).kind == ItemKind::kBytes) {
    const std::int32_t stack = intern_frame(item_index, below);
    if (frame(stack).shortest < ByteGrammar::kNever) state.stacks.push_back(stack);
    return;
  }
  // The last rule of an alternative needs no return: repetition by recursion at the end does not grow the stack.
  const bool last = item(item_index + 1).kind == ItemKind::kEnd;
  const std::int32_t back = last ? below : intern_frame(item_index + 1, below);
  for (const std::int32_t alternative : grammar_.rules_[static_cast<std::size_t>(item(item_index).index)]) {
    expand(alternative, back, state, seen);
  }
}

ByteAutomaton::State ByteAutomaton::intern_state(StateData state) {
  std::sort(state.stacks.begin(), state.stacks.end());
  state.stacks.erase(std::unique(state.stacks.begin(), state.stacks.end()), state.stacks.end());
  if (state.stacks.size() > kMaxStacks) {
    std::stable_sort(state.stacks.begin(), state.stacks.end(),
                     [&](std::int32_t a, std::int32_t b) { return frame(a).shortest < frame(b).shortest; });
    state.stacks.resize(kMaxStacks);
    std::sort(state.stacks.begin(), state.stacks.end());
  }
  if (state.stacks.empty() && !state.accepts) return kDead;
  const auto [place, added] = state_index_.try_emplace({state.accepts, state.stacks}, static_cast<State>(states_.size()));
  if (added) {
    state.shortest = state.accepts ? 0 : ByteGrammar::kNever;
    for (const std::int32_t stack : state.stacks) state.shortest = std::min(state.shortest, frame(stack).shortest);
    state.next.assign(classes_, kUnknown);
    states_.push_back(std::move(state));
  }
  return place->second;
}

ByteAutomaton::State ByteAutomaton::next(State state, unsigned char byte) {
  const std::size_t index = static_cast<std::size_t>(state), byte_class = class_of_[byte];
  if (const State known = states_[index].next[byte_class]; known != kUnknown) return known;
  StateData after;
  Seen seen;
  const std::vector<std::int32_t> stacks = states_[index].stacks;
  for (const std::int32_t stack : stacks) {
    const Frame at = frame(stack);
    if (!grammar_.sets_[static_cast<std::size_t>(item(at.item).index)][byte]) continue;
    expand(at.item + 1, at.below, after, seen);
  }
  const State made = intern_state(std::move(after));
  states_[index].next[byte_class] = made;
  return made;
}

// A letter where there is a choice, and the lowest byte otherwise.
char ByteAutomaton::shortest_byte(std::size_t set) const {
  const ByteGrammar::Bytes& bytes = grammar_.sets_[set];
  return bytes['a'] ? 'a' : static_cast<char>(bytes._Find_first());
}

void ByteAutomaton::append_shortest(std::int32_t item_index, std::string& text) const {
  while (item(item_index).kind != ItemKind::kEnd) {
    const auto index = static_cast<std::size_t>(item(item_index).index);
    if (item(item_index).kind == ItemKind::kRule) {
      const bool last = item(item_index + 1).kind == ItemKind::kEnd;  // goes on there: lists are as deep as they are long
      if (!last) append_shortest(grammar_.best_[index], text);
      item_index = last ? grammar_.best_[index] : item_index + 1;
      continue;
    }
    text.push_back(shortest_byte(index));
    ++item_index;
  }
}

std::vector<ByteAutomaton::Place> ByteAutomaton::ending_places(State state) const {
  std::vector<Place> places;
  for (const std::int32_t stack : states_[static_cast<std::size_t>(state)].stacks) {
    if (frame(stack).shortest <= kLongestEnding) places.push_back(place_of(frame(stack).item, frame(stack).below));
  }
  return places;
}

ByteAutomaton::EndingPart ByteAutomaton::ending_part(Place place) const {
  auto item_index = static_cast<std::int32_t>(place >> 32);
  const auto below = static_cast<std::int32_t>(place & 0xffffffffU);
  EndingPart part;
  for (; item(item_index).kind != ItemKind::kEnd; ++item_index) {
    const auto index = static_cast<std::size_t>(item(item_index).index);
    if (item(item_index).kind == ItemKind::kBytes) {
      part.text.push_back(shortest_byte(index));
    } else if (item(item_index + 1).kind == ItemKind::kEnd) {
      part.rest = place_of(grammar_.best_[index], below);
      return part;
    } else {
      append_shortest(grammar_.best_[index], part.text);
    }
  }
  if (below != kBottom) part.rest = place_of(frame(below).item, frame(below).below);
  return part;
}

std::vector<std::string> ByteAutomaton::endings(State state) const {
  std::vector<std::string> texts;
  for (std::int32_t stack : states_[static_cast<std::size_t>(state)].stacks) {
    if (frame(stack).shortest > kLongestEnding) continue;
    std::string& text = texts.emplace_back();
    for (; stack != kBottom; stack = frame(stack).below) append_shortest(frame(stack).item, text);
  }
  return texts;
}

}  // namespace nanochat
