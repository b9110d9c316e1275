#include "data/text/json_text.h"

#include <cstdint>
#include <cstring>

#include "core/format.h"

namespace nanochat {
namespace {

constexpr int kMaxDepth = 64;

// True when one of 8 bytes is a quote, a backslash or a control character (each test marks the high bit of such bytes,
// and of none below 0x80 that is not; S. E. Anderson, Bit Twiddling Hacks). Bytes from 0x80 are ordinary.
bool has_special(std::uint64_t bytes) {
  constexpr std::uint64_t kOnes = 0x0101010101010101ULL, kHigh = 0x8080808080808080ULL;
  const auto equal = [](std::uint64_t value, std::uint64_t byte) {
    const std::uint64_t zero = value ^ (kOnes * byte);
    return (zero - kOnes) & ~zero & kHigh;
  };
  const std::uint64_t control = (bytes - kOnes * 0x20) & ~bytes & kHigh;
  return (equal(bytes, '"') | equal(bytes, '\\') | control) != 0;
}

void append_utf8(std::uint32_t c, std::string& text) {
  const auto put = [&text](std::uint32_t byte) { text += static_cast<char>(byte); };
  if (c < 0x80) return put(c);
  if (c < 0x800) {
    put(0xc0 | c >> 6);
  } else if (c < 0x10000) {
    put(0xe0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3f));
  } else {
    put(0xf0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3f));
    put(0x80 | (c >> 6 & 0x3f));
  }
  put(0x80 | (c & 0x3f));
}

class Scanner {
 public:
  Scanner(std::string_view line, std::string_view key) : at_(line.data()), end_(at_ + line.size()), key_(key) {}

  bool row(std::string& text) {
    bool found = false;
    std::string name;
    space();
    if (!take('{')) return false;
    space();
    if (take('}')) return false;
    do {
      space();
      name.clear();
      if (!string(&name)) return false;
      space();
      if (!take(':')) return false;
      space();
      if (name == key_) {
        text.clear();
        found = at_ < end_ && *at_ == '"';
        if (!found || !string(&text)) return false;
      } else if (!value(0)) {
        return false;
      }
      space();
    } while (take(','));
    if (!take('}')) return false;
    space();
    return at_ == end_ && found;
  }

 private:
  bool take(char c) {
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }
  void space() {
    while (at_ < end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) ++at_;
  }
  bool word(std::string_view expected) {
    if (static_cast<std::size_t>(end_ - at_) < expected.size() || std::memcmp(at_, expected.data(), expected.size()) != 0) {
      return false;
    }
    at_ += expected.size();
    return true;
  }
  bool digits() {
    const char* first = at_;
    while (at_ < end_ && *at_ >= '0' && *at_ <= '9') ++at_;
    return at_ > first;
  }

  // Short numbers only: the library refuses those that no double holds.
  bool number() {
    const char* first = at_;
    take('-');
    if (!take('0') && !digits()) return false;
    if (take('.') && !digits()) return false;
    if (at_ < end_ && (*at_ == 'e' || *at_ == 'E')) return false;
    return at_ - first < 30;
  }

  bool value(int depth) {
    if (at_ == end_ || depth == kMaxDepth) return false;
    switch (*at_) {
      case '"': return string(nullptr);
      case 't': return word("true");
      case 'f': return word("false");
      case 'n': return word("null");
      case '{':
      case '[': return container(depth);
      default: return number();
    }
  }

  bool container(int depth) {
    const bool object = *at_++ == '{';
    const char close = object ? '}' : ']';
    space();
    if (take(close)) return true;
    do {
      space();
      if (object) {
        if (!string(nullptr)) return false;
        space();
        if (!take(':')) return false;
        space();
      }
      if (!value(depth + 1)) return false;
      space();
    } while (take(','));
    return take(close);
  }

  // Appends to `text` unless it is null; the bytes are checked for UTF-8 as a whole.
  bool string(std::string* text) {
    if (!take('"')) return false;
    const char* first = at_;
    const auto keep = [&] {
      if (text != nullptr) text->append(first, at_);
    };
    for (;;) {
      std::uint64_t bytes = 0;
      while (end_ - at_ >= 8 && (std::memcpy(&bytes, at_, 8), !has_special(bytes))) at_ += 8;
      while (at_ < end_ && *at_ != '"' && *at_ != '\\' && static_cast<unsigned char>(*at_) >= 0x20) ++at_;
      if (at_ == end_ || static_cast<unsigned char>(*at_) < 0x20) return false;
      if (!is_valid_utf8({first, at_})) return false;
      keep();
      if (*at_++ == '"') return true;
      if (!escape(text)) return false;
      first = at_;
    }
  }

  bool hex4(std::uint32_t& code) {
    if (end_ - at_ < 4) return false;
    code = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = *at_++;
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) return false;
      code = code << 4 | static_cast<std::uint32_t>(digit);
    }
    return true;
  }

  bool escape(std::string* text) {
    if (at_ == end_) return false;
    static constexpr std::string_view kNames = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
    const char name = *at_++;
    if (const std::size_t i = kNames.find(name); i != std::string_view::npos) {
      if (text != nullptr) *text += kValues[i];
      return true;
    }
    std::uint32_t code = 0, low = 0;
    if (name != 'u' || !hex4(code)) return false;
    if (code >= 0xdc00 && code <= 0xdfff) return false;
    if (code >= 0xd800 && code <= 0xdbff) {
      if (!word("\\u") || !hex4(low) || low < 0xdc00 || low > 0xdfff) return false;
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    if (text != nullptr) append_utf8(code, *text);
    return true;
  }

  const char* at_;
  const char* end_;
  std::string_view key_;
};

}  // namespace

bool find_json_text(std::string_view line, std::string_view key, std::string& text) { return Scanner(line, key).row(text); }

}  // namespace nanochat
