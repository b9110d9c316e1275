#include "inference/byte_dfa.h"

#include <algorithm>
#include <deque>
#include <map>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "inference/utf8_ranges.h"

namespace nanochat {
namespace {

void check_size(std::size_t states) {
  if (states > ByteDfa::kMaxStates) {
    throw ConfigError(fmt::format("the automaton has more than {} states; expected a shorter pattern or lower lengths",
                                  with_commas(static_cast<std::int64_t>(ByteDfa::kMaxStates))));
  }
}

// An automaton that is written down edge by edge.
struct Builder {
  std::vector<std::array<ByteDfa::State, 256>> next;
  std::vector<bool> accepts;

  ByteDfa::State add(bool accepting) {
    check_size(next.size() + 1);
    next.emplace_back().fill(ByteDfa::kDead);
    accepts.push_back(accepting);
    return static_cast<ByteDfa::State>(next.size()) - 1;
  }
  void edge(ByteDfa::State from, ByteRange bytes, ByteDfa::State to) {
    for (std::size_t byte = bytes.first; byte <= bytes.last; ++byte) next[static_cast<std::size_t>(from)][byte] = to;
  }
  // Any code point leads from one state to the other.
  void character(ByteDfa::State from, ByteDfa::State to) {
    for (const auto& sequence : utf8_ranges(0, kLastCodePoint)) {
      ByteDfa::State at = from;
      for (std::size_t i = 0; i < sequence.size(); ++i) {
        const ByteDfa::State known = next[static_cast<std::size_t>(at)][sequence[i].first];
        const ByteDfa::State target = i + 1 == sequence.size() ? to : known != ByteDfa::kDead ? known : add(false);
        edge(at, sequence[i], target);
        at = target;
      }
    }
  }
  ByteDfa build() const {
    std::array<std::uint8_t, 256> class_of{};
    std::map<std::vector<ByteDfa::State>, std::uint8_t> columns;
    std::vector<std::size_t> example;
    for (std::size_t byte = 0; byte < 256; ++byte) {
      std::vector<ByteDfa::State> column;
      column.reserve(next.size());
      for (const auto& row : next) column.push_back(row[byte]);
      const auto [place, added] = columns.try_emplace(std::move(column), static_cast<std::uint8_t>(columns.size()));
      class_of[byte] = place->second;
      if (added) example.push_back(byte);
    }
    std::vector<ByteDfa::State> table;
    table.reserve(next.size() * example.size());
    for (const auto& row : next) {
      for (const std::size_t byte : example) table.push_back(row[byte]);
    }
    return {class_of, example.size(), std::move(table), accepts};
  }
};

}  // namespace

ByteDfa::ByteDfa(const std::array<std::uint8_t, 256>& class_of, std::size_t classes, std::vector<State> next,
                 std::vector<bool> accepts)
    : class_of_(class_of), classes_(classes), next_(std::move(next)), accepts_(std::move(accepts)) {
  check_size(accepts_.size());
  trim();
  minimize();
}

ByteDfa ByteDfa::any_text() { return length(0, {}); }

ByteDfa ByteDfa::length(std::int64_t least, std::optional<std::int64_t> most) {
  Builder builder;
  const std::int64_t counted = most.value_or(least);
  State at = builder.add(least == 0);
  for (std::int64_t i = 0; i < counted; ++i) {
    const State after = builder.add(i + 1 >= least);
    builder.character(at, after);
    at = after;
  }
  if (!most) builder.character(at, at);
  return builder.build();
}

ByteDfa ByteDfa::texts(const std::vector<std::string>& texts) {
  Builder builder;
  if (texts.empty()) return {};
  builder.add(false);
  for (const std::string& text : texts) {
    State at = 0;
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      State to = builder.next[static_cast<std::size_t>(at)][byte];
      if (to == kDead) {
        to = builder.add(false);
        builder.edge(at, {byte, byte}, to);
      }
      at = to;
    }
    builder.accepts[static_cast<std::size_t>(at)] = true;
  }
  return builder.build();
}

template <typename Accepts>
ByteDfa ByteDfa::product(const ByteDfa& a, const ByteDfa& b, bool needs_a, bool needs_b, const Accepts& accepts) {
  if ((needs_a && a.empty()) || (needs_b && b.empty()) || (a.empty() && b.empty())) return {};
  std::array<std::uint8_t, 256> class_of{};
  std::map<std::pair<std::uint8_t, std::uint8_t>, std::uint8_t> classes;
  std::vector<unsigned char> example;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const auto [place, added] = classes.try_emplace({a.class_of_[byte], b.class_of_[byte]},
                                                    static_cast<std::uint8_t>(classes.size()));
    class_of[byte] = place->second;
    if (added) example.push_back(static_cast<unsigned char>(byte));
  }
  std::map<std::pair<State, State>, State> index;
  std::vector<std::pair<State, State>> pairs;
  const auto state_of = [&](State in_a, State in_b) {
    if ((needs_a && in_a == kDead) || (needs_b && in_b == kDead) || (in_a == kDead && in_b == kDead)) return kDead;
    const auto [place, added] = index.try_emplace({in_a, in_b}, static_cast<State>(pairs.size()));
    if (added) {
      check_size(pairs.size() + 1);
      pairs.emplace_back(in_a, in_b);
    }
    return place->second;
  };
  state_of(a.start(), b.start());
  std::vector<State> next;
  std::vector<bool> accepting;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto [in_a, in_b] = pairs[i];
    accepting.push_back(accepts(in_a != kDead && a.accepts(in_a), in_b != kDead && b.accepts(in_b)));
    for (const unsigned char byte : example) {
      next.push_back(state_of(in_a == kDead ? kDead : a.next(in_a, byte), in_b == kDead ? kDead : b.next(in_b, byte)));
    }
  }
  return {class_of, example.size(), std::move(next), std::move(accepting)};
}

ByteDfa ByteDfa::both(const ByteDfa& a, const ByteDfa& b) {
  return product(a, b, true, true, [](bool in_a, bool in_b) { return in_a && in_b; });
}
ByteDfa ByteDfa::either(const ByteDfa& a, const ByteDfa& b) {
  return product(a, b, false, false, [](bool in_a, bool in_b) { return in_a || in_b; });
}
ByteDfa ByteDfa::without(const ByteDfa& a, const ByteDfa& b) {
  return product(a, b, true, false, [](bool in_a, bool in_b) { return in_a && !in_b; });
}

ByteDfa ByteDfa::with_first_byte(std::size_t part, std::size_t parts) const {
  Builder builder;
  if (empty()) return {};
  builder.add(false);
  for (std::size_t state = 0; state < size(); ++state) builder.add(accepts_[state]);
  for (std::size_t state = 0; state < size(); ++state) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const State to = next(static_cast<State>(state), static_cast<unsigned char>(byte));
      if (to == kDead) continue;
      builder.next[state + 1][byte] = to + 1;
      if (state == 0 && byte % parts == part) builder.next[0][byte] = to + 1;
    }
  }
  return builder.build();
}

bool ByteDfa::matches(std::string_view text) const {
  State state = start();
  for (const char c : text) {
    if (state == kDead) return false;
    state = next(state, static_cast<unsigned char>(c));
  }
  return state != kDead && accepts(state);
}

std::vector<ByteDfa::State> ByteDfa::by_distance() const {
  std::vector<std::vector<State>> before(size());
  std::vector<bool> seen(size(), false);
  std::vector<State> order;
  for (std::size_t state = 0; state < size(); ++state) {
    for (std::size_t c = 0; c < classes_; ++c) {
      const State to = next_[state * classes_ + c];
      if (to != kDead) before[static_cast<std::size_t>(to)].push_back(static_cast<State>(state));
    }
    if (!accepts_[state]) continue;
    seen[state] = true;
    order.push_back(static_cast<State>(state));
  }
  for (std::size_t i = 0; i < order.size(); ++i) {
    for (const State from : before[static_cast<std::size_t>(order[i])]) {
      if (seen[static_cast<std::size_t>(from)]) continue;
      seen[static_cast<std::size_t>(from)] = true;
      order.push_back(from);
    }
  }
  return order;
}

std::int64_t ByteDfa::shortest() const {
  std::vector<std::int64_t> distance(size(), -1);
  std::deque<State> queue;
  if (empty()) return 0;
  distance[0] = 0;
  for (queue.push_back(0); !queue.empty(); queue.pop_front()) {
    const auto state = static_cast<std::size_t>(queue.front());
    if (accepts_[state]) return distance[state];
    for (std::size_t c = 0; c < classes_; ++c) {
      const State to = next_[state * classes_ + c];
      if (to == kDead || distance[static_cast<std::size_t>(to)] >= 0) continue;
      distance[static_cast<std::size_t>(to)] = distance[state] + 1;
      queue.push_back(to);
    }
  }
  return 0;
}

void ByteDfa::trim() {
  std::vector<bool> useful(size(), false);
  for (const State state : by_distance()) useful[static_cast<std::size_t>(state)] = true;
  std::vector<State> renamed(size(), kDead), order;
  const auto name = [&](State state) {
    if (state == kDead || !useful[static_cast<std::size_t>(state)]) return kDead;
    State& to = renamed[static_cast<std::size_t>(state)];
    if (to == kDead) {
      to = static_cast<State>(order.size());
      order.push_back(state);
    }
    return to;
  };
  std::vector<State> next;
  std::vector<bool> accepts;
  if (!accepts_.empty()) name(0);
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto state = static_cast<std::size_t>(order[i]);
    accepts.push_back(accepts_[state]);
    for (std::size_t c = 0; c < classes_; ++c) next.push_back(name(next_[state * classes_ + c]));
  }
  next_ = std::move(next);
  accepts_ = std::move(accepts);
}

// Moore's algorithm: groups of states are split until all of a group lead to the same groups.
void ByteDfa::minimize() {
  // Larger ones stay as they are, and so do those whose states differ only behind very many bytes: a few states too many.
  constexpr std::size_t kRounds = 64, kLargest = 1000;
  if (size() > kLargest) return;
  std::vector<State> group(size());
  for (std::size_t i = 0; i < size(); ++i) group[i] = accepts_[i] ? 1 : 0;
  std::size_t groups = 0;
  bool stable = false;
  for (std::size_t round = 0; round < kRounds && !stable && !empty(); ++round) {
    std::map<std::vector<State>, State> known;
    std::vector<State> refined(size());
    for (std::size_t i = 0; i < size(); ++i) {
      std::vector<State> key = {group[i]};
      for (std::size_t c = 0; c < classes_; ++c) {
        const State to = next_[i * classes_ + c];
        key.push_back(to == kDead ? kDead : group[static_cast<std::size_t>(to)]);
      }
      refined[i] = known.try_emplace(std::move(key), static_cast<State>(known.size())).first->second;
    }
    stable = known.size() == groups;
    groups = known.size();
    group = std::move(refined);
  }
  if (!stable || groups == size()) return;
  std::vector<State> next(groups * classes_);
  std::vector<bool> accepts(groups);
  for (std::size_t i = 0; i < size(); ++i) {  // state 0 is in group 0: groups are numbered in the order of their first states
    const auto to = static_cast<std::size_t>(group[i]);
    accepts[to] = accepts_[i];
    for (std::size_t c = 0; c < classes_; ++c) {
      const State target = next_[i * classes_ + c];
      next[to * classes_ + c] = target == kDead ? kDead : group[static_cast<std::size_t>(target)];
    }
  }
  next_ = std::move(next);
  accepts_ = std::move(accepts);
}

}  // namespace nanochat
