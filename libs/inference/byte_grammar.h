#pragma once
// Context-free grammars over bytes, and the automaton that reads them byte by byte. A state is the
// set of all stacks that the bytes so far allow; it is created and stored when it is first reached.

#include <bitset>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace nanochat {

class ByteGrammar {
 public:
  using Bytes = std::bitset<256>;
  using Rule = std::int32_t;
  struct Symbol {
    bool is_rule = false;
    std::int32_t index = 0;                  // of a rule, or of a set of bytes
  };
  using Sequence = std::vector<Symbol>;
  static constexpr std::int64_t kNever = std::int64_t{1} << 40;  // the length of something that cannot end
  static constexpr std::size_t kMaxSymbols = 1'000'000;          // of all alternatives together

  Rule add_rule();                           // matches nothing until it has an alternative
  // Throws ConfigError if the grammar has more than kMaxSymbols.
  void add_alternative(Rule rule, const Sequence& sequence);
  Symbol one_of(const Bytes& bytes);
  static Symbol use(Rule rule) { return {true, rule}; }
  static Bytes range(unsigned char first, unsigned char last);
  void append_literal(Sequence& sequence, std::string_view text);
  // Call after the last alternative: computes shortest lengths. The automaton begins at `start`.
  void finish(Rule start);
  bool empty() const { return best_[static_cast<std::size_t>(start_)] < 0; }  // matches no finite text

 private:
  friend class ByteAutomaton;
  enum class ItemKind : std::uint8_t { kBytes, kRule, kEnd };
  struct Item {
    ItemKind kind;
    std::int32_t index;
  };
  std::vector<Bytes> sets_;
  std::unordered_map<Bytes, std::int32_t> set_index_;
  std::vector<std::vector<std::int32_t>> rules_;  // first item of each alternative
  std::vector<Item> items_;                  // alternatives, each up to its kEnd
  std::vector<std::int64_t> shortest_;       // bytes from an item to the end of its alternative
  std::vector<std::int32_t> best_;           // of a rule: its shortest alternative
  Rule start_ = 0;
};

// Not thread-safe: states are created when they are reached.
class ByteAutomaton {
 public:
  using State = std::int32_t;
  static constexpr State kDead = -1;

  explicit ByteAutomaton(ByteGrammar grammar);
  State start() const { return start_; }
  std::size_t states() const { return states_.size(); }  // reached so far
  State next(State state, unsigned char byte);       // kDead: no text continues like this
  bool accepts(State state) const { return states_[static_cast<std::size_t>(state)].accepts; }
  bool has_next(State state) const { return !states_[static_cast<std::size_t>(state)].stacks.empty(); }
  // Length in bytes of the shortest ending; 0 if the state accepts. ByteGrammar::kNever: there is none.
  std::int64_t shortest(State state) const { return states_[static_cast<std::size_t>(state)].shortest; }
  // One short ending for each stack of a state that does not accept, including the
  // shortest. After the first byte of an ending of a state, the rest of it is an
  // ending of the next state. Endings of more than kLongestEnding bytes are omitted.
  std::vector<std::string> endings(State state) const;
  static constexpr std::int64_t kLongestEnding = 32'768;

  // The same endings in parts, for long ones: endings of many states have the parts at their ends in common. An ending begins
  // at a place and is the text of its part, and then the ending that begins at the part's `rest`.
  using Place = std::uint64_t;
  static constexpr Place kNoPlace = ~std::uint64_t{0};
  struct EndingPart {
    std::string text;
    Place rest = kNoPlace;
  };
  std::vector<Place> ending_places(State state) const;  // one for each of endings()
  EndingPart ending_part(Place place) const;

  // A grammar that reads the same bytes in several ways has a stack for each, and their number can double with each
  // byte. A state keeps the kMaxStacks with the shortest endings; what it accepts is then a part of the grammar.
  static constexpr std::size_t kMaxStacks = 2048;

 private:
  using Item = ByteGrammar::Item;
  using ItemKind = ByteGrammar::ItemKind;
  static constexpr std::int32_t kBottom = -1;
  struct Frame {  // where to continue, and the frame below
    std::int32_t item, below;
    std::int64_t shortest;  // bytes to the end of everything
  };
  struct StateData {
    std::vector<std::int32_t> stacks;  // frames at kBytes items, sorted
    bool accepts = false;
    std::int64_t shortest = 0;
    std::vector<State> next;  // by class of byte; kUnknown: not yet made
  };
  static constexpr State kUnknown = -2;

  const Item& item(std::int32_t index) const { return grammar_.items_[static_cast<std::size_t>(index)]; }
  const Frame& frame(std::int32_t index) const { return frames_[static_cast<std::size_t>(index)]; }
  // The set of keys that expand() has visited: a list for the few keys of most states, a set for many.
  class Seen {
   public:
    bool add(std::uint64_t key);  // false: already there

   private:
    std::vector<std::uint64_t> list_;
    std::unordered_set<std::uint64_t> set_;
  };
  static Place place_of(std::int32_t item_index, std::int32_t below) {
    return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(item_index)) << 32) | static_cast<std::uint32_t>(below);
  }
  std::int32_t intern_frame(std::int32_t item_index, std::int32_t below);
  void expand(std::int32_t item_index, std::int32_t below, StateData& state, Seen& seen);
  State intern_state(StateData state);
  void find_classes();
  char shortest_byte(std::size_t set) const;
  void append_shortest(std::int32_t item_index, std::string& text) const;

  ByteGrammar grammar_;
  std::vector<std::uint8_t> class_of_;
  std::size_t classes_ = 0;
  std::vector<Frame> frames_;
  std::unordered_map<std::uint64_t, std::int32_t> frame_index_;
  std::vector<StateData> states_;
  std::map<std::pair<bool, std::vector<std::int32_t>>, State> state_index_;
  State start_ = kDead;
};

}  // namespace nanochat
