#include "tokenizer/internal/regex_dialect.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/utf8.h"

namespace nanochat {
namespace {

enum class Direction { kFromOniguruma, kToOniguruma };

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Copies a pattern from one dialect to the other. It knows where the last atom began, because a quantifier on a quantified
// atom needs a group around it.
class Rewriter {
 public:
  Rewriter(std::string_view pattern, Direction direction) : pattern_(pattern), from_(direction == Direction::kFromOniguruma) {}

  std::string run() {
    groups_.push_back({});
    while (at_ < pattern_.size()) step();
    close_options();
    return std::move(out_);
  }

 private:
  struct Group {
    std::size_t begin = 0, content = 0;  // in out_
    std::size_t items = 0;               // atoms and bars
    std::size_t open_options = 0;        // groups that stand for isolated options, to close with this one
    bool atomic = false;
  };

  [[noreturn]] void refuse(std::string_view what) const {
    throw TokenizerError(fmt::format("the pattern \"{}\" uses {}, which is not supported", pattern_, what));
  }

  std::string_view rest() const { return pattern_.substr(at_); }
  bool next_is(std::string_view text) const { return rest().starts_with(text); }

  // Everything but quantifiers, groups and alternatives begins an atom here.
  void begin_atom() {
    atom_ = out_.size();
    has_atom_ = true;
    quantified_ = false;
    ++groups_.back().items;
  }
  void put(std::string_view text) { out_ += text; }
  void copy(std::size_t bytes) {
    put(pattern_.substr(at_, bytes));
    at_ += bytes;
  }
  void replace(std::size_t bytes, std::string_view with) {
    put(with);
    at_ += bytes;
  }

  void step() {
    switch (pattern_[at_]) {
      case '\\': return begin_atom(), escape(/*in_set=*/false);
      case '[': return begin_atom(), set();
      case '(': return open();
      case ')': return close();
      case '|':
        has_atom_ = false;
        ++groups_.back().items;
        return copy(1);
      case '*':
      case '+':
      case '?': return quantifier(1);
      case '{':
        if (const std::size_t length = interval_length()) return quantifier(length);
        begin_atom();
        return from_ ? copy(1) : replace(1, "\\{");
      case '^': begin_atom(); return from_ ? replace(1, R"((?:^|(?<=\n)(?!$)))") : replace(1, "\\A");
      case '$': begin_atom(); return from_ ? replace(1, R"((?=\n|$))") : replace(1, "\\z");
      default: begin_atom(); return copy(std::max<std::size_t>(utf8::character_length(rest().substr(0, 4)), 1));
    }
  }

  // "{2}", "{2,}", "{2,4}" and, in Oniguruma, "{,4}"; 0 where the brace is a character.
  std::size_t interval_length() const {
    const std::size_t end = rest().find('}');
    if (end == std::string_view::npos) return 0;
    const std::string_view inside = rest().substr(1, end - 1);
    const std::size_t comma = inside.find(',');
    const std::string_view low = inside.substr(0, comma);
    const std::string_view high = comma == std::string_view::npos ? std::string_view() : inside.substr(comma + 1);
    const auto all_digits = [](std::string_view text) { return std::all_of(text.begin(), text.end(), is_digit); };
    if (!all_digits(low) || !all_digits(high) || inside.empty() || inside == ",") return 0;
    if (low.empty() && !from_) return 0;
    return end + 1;
  }

  void quantifier(std::size_t length) {
    const std::string_view base = rest().substr(0, length);
    const bool interval = base.front() == '{';
    const bool exact = interval && base.find(',') == std::string_view::npos;
    at_ += length;
    bool lazy = next_is("?"), possessive = next_is("+");
    if (from_ && exact) lazy = false;          // X{2}? is an optional X{2}
    if (from_ && interval) possessive = false;  // X{1,3}+ repeats it
    if (lazy || possessive) ++at_;
    if (has_atom_ && quantified_) {
      out_.insert(atom_, "(?:");
      put(")");
    }
    const bool atomic = !from_ && interval && possessive;
    if (atomic && has_atom_) out_.insert(atom_, "(?>");
    put(base.starts_with("{,") ? fmt::format("{{0{}", base.substr(1)) : std::string(base));
    if (atomic) {
      put(")");
    } else if (possessive) {
      put("+");
    } else if (lazy && !(exact && !from_)) {
      put("?");
    }
    quantified_ = !atomic;
    greedy_interval_ = interval && !lazy && !possessive;
  }

  void open() {
    if (next_is("(?#")) return comment();
    const bool isolated = isolated_options();
    if (isolated) return;
    ++groups_.back().items;
    groups_.push_back({out_.size(), 0, 0, 0, next_is("(?>")});
    has_atom_ = false;
    open_group();
    groups_.back().content = out_.size();
  }

  void open_group() {
    if (!next_is("(?")) return copy(1);
    for (const std::string_view plain : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"}) {
      if (next_is(plain)) return copy(plain.size());
    }
    if (!from_ && next_is("(?P<")) return replace(4, "(?<");
    if (next_is("(?<") && rest().size() > 3 && (is_letter(rest()[3]) || rest()[3] == '_')) return copy(3);
    const std::string names = option_names();
    if (names.empty() || !next_is_after(names.size() + 2, ':')) {
      refuse(fmt::format("\"{}\"", rest().substr(0, names.size() + 3)));
    }
    replace(names.size() + 3, fmt::format("(?{}:", translated(names)));
  }

  void comment() {
    const std::size_t end = rest().find(')');
    at_ += end == std::string_view::npos ? rest().size() : end + 1;
  }

  // The options of (?i), (?i:, (?-i:, (?m: and, in our dialect, (?s: as they are written.
  std::string option_names() const {
    std::string names;
    for (std::size_t i = at_ + 2; i < pattern_.size(); ++i) {
      if (pattern_[i] != 'i' && pattern_[i] != '-' && pattern_[i] != (from_ ? 'm' : 's')) break;
      names += pattern_[i];
    }
    return names;
  }
  std::string translated(std::string names) const {
    std::replace(names.begin(), names.end(), from_ ? 'm' : 's', from_ ? 's' : 'm');
    return names;
  }
  bool next_is_after(std::size_t bytes, char c) const { return at_ + bytes < pattern_.size() && pattern_[at_ + bytes] == c; }

  // An isolated option such as (?i) holds to the end of the group around it, in Oniguruma with the alternatives that
  // follow it as one group. At the beginning of a group both dialects read it alike.
  bool isolated_options() {
    const std::string names = next_is("(?") ? option_names() : "";
    if (names.empty() || !next_is_after(names.size() + 2, ')')) return false;
    if (groups_.back().items == 0) {
      replace(names.size() + 3, fmt::format("(?{})", translated(names)));
    } else if (from_) {
      replace(names.size() + 3, fmt::format("(?{}:", translated(names)));
      ++groups_.back().open_options;
    } else {
      refuse(fmt::format("\"(?{})\" amid a group", names));
    }
    return true;
  }

  void close_options() {
    for (; groups_.back().open_options > 0; --groups_.back().open_options) put(")");
  }

  void close() {
    close_options();
    if (groups_.size() == 1) return copy(1);  // one too many: the compiler of the pattern says so
    const Group group = groups_.back();
    groups_.pop_back();
    if (from_ && group.atomic && group.items == 1 && has_atom_ && atom_ == group.content && quantified_ && greedy_interval_) {
      out_.erase(group.begin, group.content - group.begin);  // (?>X{1,3}) is our X{1,3}+
      replace(1, "+");
    } else {
      copy(1);
      quantified_ = false;
    }
    has_atom_ = true;
    atom_ = group.begin;
  }

  void escape(bool in_set) {
    if (at_ + 1 == pattern_.size()) return copy(1);
    const char c = pattern_[at_ + 1];
    if (c == 'p' || c == 'P') return property();
    if (!is_letter(c)) return copy(1 + std::max<std::size_t>(utf8::character_length(pattern_.substr(at_ + 1, 4)), 1));
    if (!from_) {
      if (c == 'h') return replace(2, in_set ? R"(\t\p{Zs})" : R"([\t\p{Zs}])");
      if (c == 'v') return replace(2, in_set ? R"(\n-\r\x{85}\x{2028}\x{2029})" : R"([\n-\r\x{85}\x{2028}\x{2029}])");
      return copy(2);
    }
    switch (c) {
      case 'h': return replace(2, in_set ? "0-9A-Fa-f" : "[0-9A-Fa-f]");
      case 'H':
        if (!in_set) return replace(2, "[^0-9A-Fa-f]");
        break;
      case 'v': return replace(2, "\\x0B");
      case 'A':
        if (!in_set) return replace(2, "^");
        break;
      case 'z':
        if (!in_set) return replace(2, "$");
        break;
      case 'B':
      case 'Z':
        if (!in_set) return copy(2);
        break;
      case 'x': return code_point(2, next_is("\\x{"));
      case 'u': return code_point(4, false);
      case 's':
      case 'S':
      case 'd':
      case 'D':
      case 'w':
      case 'W':
      case 'b':
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e': return copy(2);
      default: break;
    }
    refuse(fmt::format("\"\\{}\"{}", c, in_set ? " in a set" : ""));
  }

  void property() {
    if (pattern_.substr(at_ + 2).starts_with("{")) {
      const std::size_t end = pattern_.find('}', at_);
      if (end == std::string_view::npos) refuse("\"\\p{\" without an end");
      return copy(end + 1 - at_);
    }
    return from_ ? replace(2, pattern_.substr(at_ + 1, 1)) : copy(2);  // Oniguruma's \pL is the letters pL
  }

  // \x41, \x{1F600}, \u00e9.
  void code_point(std::size_t most_digits, bool braces) {
    if (braces) {
      const std::size_t end = pattern_.find('}', at_);
      if (end == std::string_view::npos) refuse("\"\\x{\" without an end");
      return copy(end + 1 - at_);
    }
    std::string digits;
    std::size_t end = at_ + 2;
    while (end < pattern_.size() && digits.size() < most_digits &&
           std::string_view("0123456789abcdefABCDEF").find(pattern_[end]) != std::string_view::npos) {
      digits += pattern_[end++];
    }
    // Oniguruma reads \x80 to \xFF as bytes of UTF-8.
    if (digits.empty() || (most_digits == 2 && std::stoul(digits, nullptr, 16) >= 0x80)) {
      refuse(fmt::format("\"{}\"", pattern_.substr(at_, end - at_)));
    }
    put(fmt::format("\\x{{{}}}", digits));
    at_ = end;
  }

  void set() {
    copy(1);
    if (next_is("^")) copy(1);
    if (next_is("]")) copy(1);
    while (at_ < pattern_.size() && pattern_[at_] != ']') {
      const char c = pattern_[at_];
      if (c == '\\') {
        escape(/*in_set=*/true);
      } else if (c == '[' && from_) {
        refuse(next_is("[:") ? "a POSIX bracket" : "a set inside a set");
      } else if (c == '[') {
        next_is("[:") ? copy(1) : replace(1, "\\[");
      } else if (next_is("&&")) {
        if (from_) refuse("the intersection of sets");
        replace(2, "&\\&");
      } else {
        copy(std::max<std::size_t>(utf8::character_length(rest().substr(0, 4)), 1));
      }
    }
    if (at_ < pattern_.size()) copy(1);
  }

  std::string_view pattern_;
  bool from_;
  std::size_t at_ = 0;
  std::string out_;
  std::vector<Group> groups_;
  std::size_t atom_ = 0;  // in out_
  bool has_atom_ = false, quantified_ = false;
  bool greedy_interval_ = false;  // the last quantifier was {m,n} and nothing more
};

}  // namespace

std::string from_oniguruma(std::string_view pattern) { return Rewriter(pattern, Direction::kFromOniguruma).run(); }

std::string to_oniguruma(std::string_view pattern) { return Rewriter(pattern, Direction::kToOniguruma).run(); }

std::string literal_pattern(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    if (std::string_view("\\.+*?()|[]{}^$#&-~").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

}  // namespace nanochat
