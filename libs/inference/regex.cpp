#include "inference/regex.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/errors.h"
#include "inference/internal/regex_syntax.h"

namespace nanochat {
namespace {

struct Nfa {
  struct Edge {
    enum class Kind : std::uint8_t { kBytes, kFree, kAssertion, kLookahead } kind;
    ByteRange bytes;
    RegexAssertion assertion;
    std::int32_t to;
    std::size_t lookahead = 0;
  };
  std::vector<std::vector<Edge>> states;
  std::vector<const RegexNode*> lookaheads;
  static constexpr std::size_t kMaxStates = 100'000;

  std::int32_t add() {
    if (states.size() >= kMaxStates) throw ConfigError("regular expression: is too long, or has too high counts");
    states.emplace_back();
    return static_cast<std::int32_t>(states.size()) - 1;
  }
  std::vector<Edge>& edges(std::int32_t state) { return states[static_cast<std::size_t>(state)]; }
  void free_edge(std::int32_t from, std::int32_t to) {
    edges(from).push_back({Edge::Kind::kFree, {0, 0}, RegexAssertion::kBegin, to, 0});
  }
  void characters(std::int32_t from, std::int32_t to, const CodeRanges& ranges) {
    for (const CodeRange& range : ranges) {
      for (const auto& sequence : utf8_ranges(range.first, range.second)) {
        std::int32_t at = from;
        for (std::size_t i = 0; i < sequence.size(); ++i) {
          const std::int32_t target = i + 1 == sequence.size() ? to : add();
          edges(at).push_back({Edge::Kind::kBytes, sequence[i], RegexAssertion::kBegin, target, 0});
          at = target;
        }
      }
    }
  }

  // Adds the node behind `from`; returns where it ends.
  std::int32_t build(const RegexNode& node, std::int32_t from) {
    switch (node.kind) {
      case RegexNode::Kind::kSet: {
        const std::int32_t end = add();
        characters(from, end, node.ranges);
        return end;
      }
      case RegexNode::Kind::kAssertion: {
        const std::int32_t end = add();
        edges(from).push_back({Edge::Kind::kAssertion, {0, 0}, node.assertion, end, 0});
        return end;
      }
      case RegexNode::Kind::kLookahead: {
        const std::int32_t end = add();
        edges(from).push_back({Edge::Kind::kLookahead, {0, 0}, RegexAssertion::kBegin, end, lookaheads.size()});
        lookaheads.push_back(&node);
        return end;
      }
      case RegexNode::Kind::kSequence: {
        for (const RegexNodePointer& part : node.parts) from = build(*part, from);
        return from;
      }
      case RegexNode::Kind::kAlternatives: {
        const std::int32_t end = add();
        for (const RegexNodePointer& part : node.parts) {
          const std::int32_t begin = add();
          free_edge(from, begin);
          free_edge(build(*part, begin), end);
        }
        return end;
      }
      case RegexNode::Kind::kRepeat: break;
    }
    for (std::int64_t i = 0; i < node.least; ++i) from = build(*node.parts.front(), from);
    const std::int32_t end = add();
    if (!node.most) {
      const std::int32_t loop = add();
      free_edge(from, loop);
      free_edge(loop, end);
      free_edge(build(*node.parts.front(), loop), loop);
      return end;
    }
    for (std::int64_t i = node.least; i < *node.most; ++i) {
      free_edge(from, end);
      const std::int32_t begin = add();
      free_edge(from, begin);
      from = build(*node.parts.front(), begin);
    }
    free_edge(from, end);
    return end;
  }
};

enum class Beside : std::uint8_t { kNothing, kWord, kOther, kNewline, kUnknown };  // what is before or after a place

Beside beside(unsigned char byte) {
  if (byte >= 0x80) return Beside::kUnknown;  // whether it is a letter depends on the dialect
  if (byte == '\n') return Beside::kNewline;
  const bool word = (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') || byte == '_';
  return word ? Beside::kWord : Beside::kOther;
}

bool looks_at_letters(const RegexNode& node) {
  if (node.kind == RegexNode::Kind::kAssertion)
    return node.assertion == RegexAssertion::kBoundary || node.assertion == RegexAssertion::kNoBoundary;
  return std::any_of(node.parts.begin(), node.parts.end(),
                     [](const RegexNodePointer& part) { return looks_at_letters(*part); });
}
bool has_assertions(const RegexNode& node) {
  if (node.kind == RegexNode::Kind::kAssertion || node.kind == RegexNode::Kind::kLookahead) return true;
  return std::any_of(node.parts.begin(), node.parts.end(), [](const RegexNodePointer& part) { return has_assertions(*part); });
}

struct Settings {
  RegexBound bound;
  std::size_t& steps;
};

ByteDfa build(const RegexNode& node, bool anywhere, bool more, Beside before, const Settings& settings);

// The states of an NFA that a text may have led to. What a lookahead asks for goes along with a state: the state that the
// lookahead's own automaton is in.
class Subsets {
 public:
  Subsets(const Nfa& nfa, std::int32_t accept, const RegexNode& node, const Settings& settings)
      : nfa_(nfa), accept_(accept), settings_(settings), looks_(has_assertions(node)), boundaries_(looks_at_letters(node)),
        round_of_(nfa.states.size(), 0) {
    demand_id({});
  }

  ByteDfa run(std::int32_t start, Beside before_start) {
    // The automata of lookaheads are there before bytes are put into classes.
    for (std::size_t i = 0; i < nfa_.lookaheads.size(); ++i) {
      const RegexNode& node = *nfa_.lookaheads[i];
      const RegexBound bound = node.negative ? flipped(settings_.bound) : settings_.bound;
      for (const Beside before : {Beside::kNothing, Beside::kWord, Beside::kOther, Beside::kNewline, Beside::kUnknown}) {
        // All but the beginning are alike where nothing looks at letters.
        if (!boundaries_ && before != Beside::kNothing && before != Beside::kOther) continue;
        lookaheads_[{i, before}] = {
            build(*node.parts.front(), false, true, before, {bound, settings_.steps}), node.negative, {}};
        find_certain(lookaheads_.at({i, before}));
      }
    }
    find_classes();
    state_of({{start, 0}}, boundaries_ || before_start == Beside::kNothing ? before_start : Beside::kOther);
    std::vector<ByteDfa::State> next;
    std::vector<bool> accepts;
    std::vector<std::vector<Thread>> reached(example_.size());  // by class of byte
    for (std::size_t i = 0; i < sets_.size(); ++i) {
      const auto& [set, before] = *sets_[i];
      const std::vector<Thread> at_end = closure(set, before, Beside::kNothing);
      accepts.push_back(std::any_of(at_end.begin(), at_end.end(),
                                    [&](const Thread& thread) { return thread.first == accept_ && met(thread.second); }));
      for (const Beside after : afters_) {
        const std::vector<Thread> threads = closure(set, before, after);
        work(threads.size());
        for (const auto& [state, demands] : threads) {
          for (const Nfa::Edge& edge : nfa_.states[static_cast<std::size_t>(state)]) {
            if (edge.kind == Nfa::Edge::Kind::kBytes) follow(edge, demands, after, reached);
          }
        }
      }
      for (std::size_t byte_class = 0; byte_class < reached.size(); ++byte_class) {
        std::vector<Thread>& threads = reached[byte_class];
        std::sort(threads.begin(), threads.end());
        threads.erase(std::unique(threads.begin(), threads.end()), threads.end());
        next.push_back(state_of(threads, boundaries_ ? after_[byte_class] : Beside::kOther));
        threads.clear();
      }
    }
    return {class_of_, example_.size(), std::move(next), std::move(accepts)};
  }

 private:
  struct Lookahead {
    ByteDfa automaton;
    bool negative = false;
    std::vector<bool> certain;  // by state: every text from here on matches
  };
  using LookaheadKey = std::pair<std::size_t, Beside>;
  struct Demand {
    const Lookahead* lookahead;
    ByteDfa::State state;
    auto operator<=>(const Demand&) const = default;
  };
  using Thread = std::pair<std::int32_t, std::int32_t>;  // a state of the NFA, and the number of a set of demands
  using Subset = std::pair<std::vector<Thread>, Beside>;
  struct SubsetHash {
    std::size_t operator()(const Subset& subset) const {
      std::uint64_t hash = static_cast<std::uint64_t>(subset.second);
      for (const auto& [state, demands] : subset.first) {
        hash = (hash ^ static_cast<std::uint64_t>(state) ^ (static_cast<std::uint64_t>(demands) << 32)) * 0x9e3779b97f4a7c15U;
        hash ^= hash >> 29;
      }
      return hash;
    }
  };

  static void find_certain(Lookahead& lookahead) {
    const ByteDfa all = ByteDfa::any_text();
    const ByteDfa& automaton = lookahead.automaton;
    for (std::size_t first = 0; first < automaton.size(); ++first) {
      std::set<std::pair<ByteDfa::State, ByteDfa::State>> seen = {{static_cast<ByteDfa::State>(first), all.start()}};
      std::vector<std::pair<ByteDfa::State, ByteDfa::State>> open(seen.begin(), seen.end());
      bool certain = true;
      while (certain && !open.empty()) {
        const auto [state, any] = open.back();
        open.pop_back();
        certain = automaton.accepts(state) || !all.accepts(any);
        for (int byte = 0; certain && byte < 256; ++byte) {
          const ByteDfa::State to_any = all.next(any, static_cast<unsigned char>(byte));
          if (to_any == ByteDfa::kDead) continue;
          const ByteDfa::State to = automaton.next(state, static_cast<unsigned char>(byte));
          certain = to != ByteDfa::kDead;
          if (certain && seen.insert({to, to_any}).second) open.emplace_back(to, to_any);
        }
      }
      lookahead.certain.push_back(certain);
    }
  }

  // Where an edge leads, for each class of its bytes that is of the kind `after`.
  void follow(const Nfa::Edge& edge, std::int32_t demands, Beside after, std::vector<std::vector<Thread>>& reached) {
    for (std::size_t byte_class = class_of_[edge.bytes.first]; byte_class <= class_of_[edge.bytes.last]; ++byte_class) {
      if (after_[byte_class] != after) continue;
      if (const std::optional<std::int32_t> left = demands_after(demands, example_[byte_class]))
        reached[byte_class].emplace_back(edge.to, *left);
    }
  }

  std::int32_t demand_id(std::vector<Demand> demands) {
    const auto [place, added] = demand_index_.try_emplace(std::move(demands), static_cast<std::int32_t>(demands_.size()));
    if (added) demands_.push_back(place->first);
    return place->second;
  }
  // With one more; nullopt: it cannot be met.
  static bool add(std::vector<Demand>& demands, const Lookahead& lookahead, ByteDfa::State state) {
    const bool matches = state != ByteDfa::kDead && lookahead.certain[static_cast<std::size_t>(state)];
    if (state == ByteDfa::kDead || matches) return matches != lookahead.negative;
    demands.push_back({&lookahead, state});
    return true;
  }
  std::optional<std::int32_t> demands_after(std::int32_t id, unsigned char byte) {
    if (id == 0) return 0;
    std::vector<Demand> left;
    for (const Demand& demand : demands_[static_cast<std::size_t>(id)]) {
      if (!add(left, *demand.lookahead, demand.lookahead->automaton.next(demand.state, byte))) return {};
    }
    return sorted_id(std::move(left));
  }
  std::int32_t sorted_id(std::vector<Demand> demands) {
    std::sort(demands.begin(), demands.end());
    demands.erase(std::unique(demands.begin(), demands.end()), demands.end());
    return demand_id(std::move(demands));
  }
  bool met(std::int32_t id) const {
    const std::vector<Demand>& all = demands_[static_cast<std::size_t>(id)];
    return std::all_of(all.begin(), all.end(), [](const Demand& demand) {
      return demand.lookahead->automaton.accepts(demand.state) != demand.lookahead->negative;
    });
  }

  void find_classes() {
    std::array<bool, 257> cut{};
    cut[0] = true;
    for (const auto& edges : nfa_.states) {
      for (const Nfa::Edge& edge : edges) {
        if (edge.kind != Nfa::Edge::Kind::kBytes) continue;
        cut[edge.bytes.first] = true;
        cut[edge.bytes.last + std::size_t{1}] = true;
      }
    }
    for (std::size_t byte = 1; byte < 256; ++byte) {
      const auto here = static_cast<unsigned char>(byte), before = static_cast<unsigned char>(byte - 1);
      if (looks_ && beside(here) != beside(before)) cut[byte] = true;
      for (const auto& [key, lookahead] : lookaheads_) {
        for (std::size_t state = 0; state < lookahead.automaton.size() && !cut[byte]; ++state) {
          const auto at = static_cast<ByteDfa::State>(state);
          cut[byte] = lookahead.automaton.next(at, here) != lookahead.automaton.next(at, before);
        }
      }
    }
    for (std::size_t byte = 0; byte < 256; ++byte) {
      if (cut[byte]) {
        example_.push_back(static_cast<unsigned char>(byte));
        after_.push_back(looks_ ? beside(static_cast<unsigned char>(byte)) : Beside::kOther);
      }
      class_of_[byte] = static_cast<std::uint8_t>(example_.size() - 1);
    }
    afters_.insert(after_.begin(), after_.end());
  }

  ByteDfa::State state_of(const std::vector<Thread>& set, Beside before) {
    if (set.empty()) return ByteDfa::kDead;
    const auto [place, added] = index_.try_emplace({set, before}, static_cast<ByteDfa::State>(sets_.size()));
    if (added) {
      if (sets_.size() >= ByteDfa::kMaxStates)
        throw ConfigError("regular expression: its automaton has more than 20,000 states");
      sets_.push_back(&place->first);
    }
    return place->second;
  }

  bool holds(RegexAssertion assertion, Beside before, Beside after) const {
    const bool possible = settings_.bound == RegexBound::kPossible;
    switch (assertion) {
      case RegexAssertion::kBegin: return before == Beside::kNothing;
      case RegexAssertion::kEnd: return after == Beside::kNothing;
      case RegexAssertion::kEndOrNewline: return after == Beside::kNothing || after == Beside::kNewline;
      default: break;
    }
    if (before == Beside::kUnknown || after == Beside::kUnknown) return possible;
    // \B in the empty text: ECMA 262 finds it, Python before 3.14 does not.
    if (before == Beside::kNothing && after == Beside::kNothing) return possible && assertion == RegexAssertion::kNoBoundary;
    return ((before == Beside::kWord) != (after == Beside::kWord)) == (assertion == RegexAssertion::kBoundary);
  }

  // Sets of many states, many times: such expressions would keep the caller waiting for minutes.
  void work(std::size_t steps) {
    constexpr std::size_t kMostSteps = 20'000'000;
    if ((settings_.steps += steps) > kMostSteps)
      throw ConfigError("regular expression: takes too long to prepare; expected lower counts");
  }

  // What can be reached without a byte, of the states that read a byte or accept.
  std::vector<Thread> closure(const std::vector<Thread>& set, Beside before, Beside after) {
    std::vector<Thread> out, open = set;
    ++round_;
    std::set<Thread> seen;  // of those with demands; the others are marked in round_of_
    const auto visit = [&](const Thread& thread) {
      if (thread.second != 0) return seen.insert(thread).second;
      return std::exchange(round_of_[static_cast<std::size_t>(thread.first)], round_) != round_;
    };
    for (const Thread& thread : open) visit(thread);
    while (!open.empty()) {
      work(2);
      const auto [state, demands] = open.back();
      open.pop_back();
      bool reads = state == accept_;
      for (const Nfa::Edge& edge : nfa_.states[static_cast<std::size_t>(state)]) {
        Thread to = {edge.to, demands};
        reads = reads || edge.kind == Nfa::Edge::Kind::kBytes;
        if (edge.kind == Nfa::Edge::Kind::kBytes) continue;
        if (edge.kind == Nfa::Edge::Kind::kAssertion && !holds(edge.assertion, before, after)) continue;
        if (edge.kind == Nfa::Edge::Kind::kLookahead) {
          const Lookahead& lookahead = lookaheads_.at({edge.lookahead, before});
          std::vector<Demand> more = demands_[static_cast<std::size_t>(demands)];
          if (!add(more, lookahead, lookahead.automaton.start())) continue;
          to.second = sorted_id(std::move(more));
        }
        if (visit(to)) open.push_back(to);
      }
      if (reads) out.emplace_back(state, demands);
    }
    return out;
  }

  const Nfa& nfa_;
  std::int32_t accept_;
  Settings settings_;
  bool looks_, boundaries_;                  // there are assertions, and some look at letters
  std::map<LookaheadKey, Lookahead> lookaheads_;
  std::map<std::vector<Demand>, std::int32_t> demand_index_;
  std::vector<std::vector<Demand>> demands_;  // by number; 0: none
  std::array<std::uint8_t, 256> class_of_{};
  std::vector<unsigned char> example_;        // of each class
  std::vector<Beside> after_;                 // what a byte of the class is for the place before it
  std::set<Beside> afters_;
  std::unordered_map<Subset, ByteDfa::State, SubsetHash> index_;
  std::vector<const Subset*> sets_;           // keys of index_, by state
  std::vector<std::uint32_t> round_of_;       // by state of the NFA: the last closure() that came there
  std::uint32_t round_ = 0;
};

// anywhere: any text may come before; more: any text may follow. before: what is before the text.
ByteDfa build(const RegexNode& node, bool anywhere, bool more, Beside before, const Settings& settings) {
  Nfa nfa;
  const std::int32_t start = nfa.add();
  std::int32_t from = start;
  const CodeRanges all = {{0, kLastCodePoint}};
  if (anywhere) {
    nfa.characters(start, start, all);
    from = nfa.add();
    nfa.free_edge(start, from);
  }
  const std::int32_t accept = nfa.build(node, from);
  if (more) nfa.characters(accept, accept, all);
  return Subsets(nfa, accept, node, settings).run(start, before);
}

}  // namespace

ByteDfa compile_regex(std::string_view expression, RegexScope scope, RegexBound bound, std::size_t* steps) {
  const RegexNodePointer node = parse_regex(expression, bound);
  const bool search = scope == RegexScope::kSearch;
  std::size_t own_steps = 0;
  return build(*node, search, search, Beside::kNothing, {bound, steps == nullptr ? own_steps : *steps});
}

}  // namespace nanochat
