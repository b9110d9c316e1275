#include "tokenizer/text_normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/errors.h"
#include "core/utf8.h"
#include "tokenizer/internal/unicode_versions.h"

namespace nanochat {
namespace {

using Kind = NormalizerStep::Kind;

void append_utf8(std::string& out, char32_t character) {
  std::array<utf8proc_uint8_t, 4> bytes;
  const utf8proc_ssize_t length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(character), bytes.data());
  out.append(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(length));
}

// Calls visit(code point, bytes) for each character of valid UTF-8.
template <class Visit>
void for_each_character(std::string_view text, Visit visit) {
  while (!text.empty()) {
    const std::size_t length = utf8::character_length(text.substr(0, 4));
    visit(utf8::decode_character(text, length), text.substr(0, length));
    text.remove_prefix(length);
  }
}

int combining_class(char32_t character) {
  return utf8proc_get_property(static_cast<utf8proc_int32_t>(character))->combining_class;
}

// One run of characters in a normalization form.
class FormWriter {
 public:
  FormWriter(Kind form, std::string& out)
      : compose_(form == Kind::kNfc || form == Kind::kNfkc),
        options_(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (form == Kind::kNfkc || form == Kind::kNfkd ? UTF8PROC_COMPAT : 0)),
        out_(out) {}

  void add(char32_t character, std::string_view bytes) {
    if (unicode::is_unknown_to_normalizers(character)) {  // a starter that goes with nothing
      flush();
      out_ += bytes;
      return;
    }
    std::array<utf8proc_int32_t, 32> parts;  // no character decomposes into more than 18
    int boundary = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(character), parts.data(),
                                                           static_cast<utf8proc_ssize_t>(parts.size()),
                                                           static_cast<utf8proc_option_t>(options_), &boundary);
    buffer_.insert(buffer_.end(), parts.begin(), parts.begin() + count);
  }

  void flush() {
    sort_marks();
    if (compose_) {
      const utf8proc_ssize_t length = utf8proc_normalize_utf32(buffer_.data(), static_cast<utf8proc_ssize_t>(buffer_.size()),
                                                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE |
                                                                                              UTF8PROC_COMPOSE));
      buffer_.resize(static_cast<std::size_t>(length));
    }
    for (const utf8proc_int32_t character : buffer_) append_utf8(out_, static_cast<char32_t>(character));
    buffer_.clear();
  }

 private:
  // The canonical order: each run of marks by combining class. utf8proc's own loop is quadratic in the length of a run.
  void sort_marks() {
    const auto by_class = [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(static_cast<char32_t>(a)) < combining_class(static_cast<char32_t>(b));
    };
    const auto is_starter = [](utf8proc_int32_t c) { return combining_class(static_cast<char32_t>(c)) == 0; };
    for (auto begin = buffer_.begin(); begin != buffer_.end();) {
      begin = std::find_if_not(begin, buffer_.end(), is_starter);
      const auto end = std::find_if(begin, buffer_.end(), is_starter);
      std::stable_sort(begin, end, by_class);
      begin = end;
    }
  }

  bool compose_;
  int options_;
  std::string& out_;
  std::vector<utf8proc_int32_t> buffer_;
};

std::string in_form(std::string_view text, Kind form) {
  const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  std::string out;
  out.reserve(text.size());
  FormWriter writer(form, out);
  while (!text.empty()) {
    // ASCII is in every form, and nothing composes across it but with the last of its characters.
    const auto other = std::find_if_not(text.begin(), text.end(), is_ascii);
    const auto ascii = static_cast<std::size_t>(other - text.begin());
    const std::size_t plain = other == text.end() ? ascii : ascii - std::min<std::size_t>(ascii, 1);
    out += text.substr(0, plain);
    text.remove_prefix(plain);
    if (text.empty()) break;
    const auto run_end = std::find_if(text.begin() + static_cast<std::ptrdiff_t>(ascii - plain), text.end(), is_ascii);
    const auto run = static_cast<std::size_t>(run_end - text.begin());
    for_each_character(text.substr(0, run), [&](char32_t c, std::string_view bytes) { writer.add(c, bytes); });
    writer.flush();
    text.remove_prefix(run);
  }
  return out;
}

std::string lower_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for_each_character(text, [&](char32_t c, std::string_view bytes) {
    if (c < 0x80) {
      out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : static_cast<char>(c);
    } else if (c == 0x130) {  // the one capital letter whose lower case is two characters
      out += "i\xCC\x87";
    } else if (const char32_t newer = unicode::newer_lower_case(c); newer != c) {
      append_utf8(out, newer);
    } else if (const auto lower = static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))); lower != c) {
      append_utf8(out, lower);
    } else {
      out += bytes;
    }
  });
  return out;
}

bool is_accent(char32_t c) {
  if (c < 0x300) return false;
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  const bool mark = category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC || category == UTF8PROC_CATEGORY_ME ||
                    c == 0x1CF2 || c == 0x1CF3;  // marks until Unicode 12
  return mark && !unicode::is_kept_by_strip_accents(c);
}

std::string without_accents(std::string_view text) {
  std::string out;
  for_each_character(text, [&](char32_t c, std::string_view bytes) {
    if (!is_accent(c)) out += bytes;
  });
  return out;
}

std::string stripped(std::string_view text, bool left, bool right) {
  std::size_t begin = text.size(), end = 0, at = 0;  // the first and last characters that are no white space
  for_each_character(text, [&](char32_t c, std::string_view bytes) {
    if (!unicode::is_white_space(c)) {
      begin = std::min(begin, at);
      end = at + bytes.size();
    }
    at += bytes.size();
  });
  if (begin == text.size()) return left || right ? "" : std::string(text);
  if (!left) begin = 0;
  if (!right) end = text.size();
  return std::string(text.substr(begin, end - begin));
}

std::string replaced(std::string_view text, const Pretokenizer& pattern, std::string_view content) {
  std::string out;
  Pretokenizer::Position position;
  std::size_t done = 0, begin = 0, end = 0;
  while (!text.empty() && pattern.next(text, position, begin, end)) {
    out += text.substr(done, begin - done);
    out += content;
    done = end;
  }
  return out += text.substr(done);
}

}  // namespace

TextNormalizer::TextNormalizer(std::vector<NormalizerStep> steps) : steps_(std::move(steps)) {
  for (const NormalizerStep& step : steps_) {
    if (step.kind == Kind::kReplace) patterns_.emplace_back(step.pattern);
  }
}

std::string TextNormalizer::apply(std::string_view text) const {
  std::string current(text);
  std::size_t next_pattern = 0;
  for (const NormalizerStep& step : steps_) {
    switch (step.kind) {
      case Kind::kNfc:
      case Kind::kNfd:
      case Kind::kNfkc:
      case Kind::kNfkd: current = in_form(current, step.kind); break;
      case Kind::kLowercase: current = lower_case(current); break;
      case Kind::kStripAccents: current = without_accents(current); break;
      case Kind::kStrip: current = stripped(current, step.left, step.right); break;
      case Kind::kPrepend:
        if (!current.empty()) current.insert(0, step.content);
        break;
      case Kind::kReplace: current = replaced(current, patterns_[next_pattern++], step.content); break;
    }
  }
  return current;
}

}  // namespace nanochat
