#pragma once
// Deterministic automata over the bytes of UTF-8 text: what a regular expression, a length or a list of excluded texts allows.
//
//   const ByteDfa word = compile_regex("^[a-z]+$");          // regex.h
//   const ByteDfa both = ByteDfa::both(word, ByteDfa::length(2, 8));
//   both.matches("cat");                                      // true
//
// Every automaton reads well-formed UTF-8 only, and every state of it can still reach an accepting one. Functions throw
// ConfigError if an automaton has more than kMaxStates. Immutable and thread-safe.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

class ByteDfa {
 public:
  using State = std::int32_t;
  static constexpr State kDead = -1;
  static constexpr std::size_t kMaxStates = 20'000;

  ByteDfa() = default;                               // matches nothing
  static ByteDfa any_text();                         // every well-formed text
  // Texts of `least` to `most` code points; no upper bound without `most`.
  static ByteDfa length(std::int64_t least, std::optional<std::int64_t> most);
  static ByteDfa texts(const std::vector<std::string>& texts);  // exactly these

  static ByteDfa both(const ByteDfa& a, const ByteDfa& b);
  static ByteDfa either(const ByteDfa& a, const ByteDfa& b);
  static ByteDfa without(const ByteDfa& a, const ByteDfa& b);   // what `a` matches and `b` does not
  // The texts whose first byte has the remainder `part` of `parts`.
  ByteDfa with_first_byte(std::size_t part, std::size_t parts) const;

  bool empty() const { return accepts_.empty(); }    // matches nothing
  std::size_t size() const { return accepts_.size(); }
  State start() const { return empty() ? kDead : 0; }
  State next(State state, unsigned char byte) const {
    return next_[static_cast<std::size_t>(state) * classes_ + class_of_[byte]];
  }
  bool accepts(State state) const { return accepts_[static_cast<std::size_t>(state)]; }
  bool matches(std::string_view text) const;
  std::int64_t shortest() const;                     // bytes of a shortest text; 0 if there is none
  // States in the order of their distance to an accepting state.
  std::vector<State> by_distance() const;

  // For builders: `next` has states * classes entries, `class_of` the class of every byte. State 0 is the start. Removes
  // states that cannot be reached or cannot accept, and joins those that do the same.
  ByteDfa(const std::array<std::uint8_t, 256>& class_of, std::size_t classes, std::vector<State> next,
          std::vector<bool> accepts);

 private:
  template <typename Accepts>
  static ByteDfa product(const ByteDfa& a, const ByteDfa& b, bool needs_a, bool needs_b, const Accepts& accepts);
  void trim();
  void minimize();

  std::array<std::uint8_t, 256> class_of_{};
  std::size_t classes_ = 1;
  std::vector<State> next_;
  std::vector<bool> accepts_;
};

}  // namespace nanochat
