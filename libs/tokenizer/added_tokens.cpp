#include "tokenizer/added_tokens.h"

#include <algorithm>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/utf8.h"
#include "tokenizer/internal/unicode_versions.h"

namespace nanochat {
namespace {

// The last character of valid UTF-8.
std::string_view last_character(std::string_view text) {
  std::size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<std::uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return text.substr(begin);
}

std::string_view first_character(std::string_view text) { return text.substr(0, utf8::character_length(text.substr(0, 4))); }

bool is_white_space(std::string_view character) {
  return unicode::is_white_space(utf8::decode_character(character, character.size()));
}

// Where the white space at the end of `text` begins.
std::size_t space_at_end(std::string_view text) {
  while (!text.empty()) {
    const std::string_view last = last_character(text);
    if (!is_white_space(last)) break;
    text.remove_suffix(last.size());
  }
  return text.size();
}

// Bytes of white space at the beginning of `text`.
std::size_t space_at_begin(std::string_view text) {
  const std::size_t all = text.size();
  while (!text.empty()) {
    const std::string_view first = first_character(text);
    if (!is_white_space(first)) break;
    text.remove_prefix(first.size());
  }
  return all - text.size();
}

}  // namespace

void AddedTokens::Set::add(const AddedToken& token, std::string_view spelling) {
  if (spelling.empty()) {
    throw TokenizerError(fmt::format("the added token \"{}\" is empty{}", token.content,
                                     token.content.empty() ? "" : " once it is normalized"));
  }
  std::uint32_t node = 0;
  for (const char byte : spelling) {
    const auto next = static_cast<std::uint32_t>(token_at.size());
    const auto [edge, is_new] = edges.emplace(std::uint64_t{node} << 8 | static_cast<std::uint8_t>(byte), next);
    if (is_new) token_at.push_back(-1);
    node = edge->second;
  }
  if (token_at[node] >= 0) {
    throw TokenizerError(fmt::format("the added tokens \"{}\" and \"{}\" are the same text{}",
                                     tokens[static_cast<std::size_t>(token_at[node])].content, token.content,
                                     token.normalized ? " once they are normalized" : ""));
  }
  token_at[node] = static_cast<std::int32_t>(tokens.size());
  begins[static_cast<std::uint8_t>(spelling.front())] = true;
  findable = findable || !token.special;
  tokens.push_back(token);
}

std::int32_t AddedTokens::Set::match(std::string_view text, std::size_t& length) const {
  std::int32_t found = -1;
  std::uint32_t node = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto edge = edges.find(std::uint64_t{node} << 8 | static_cast<std::uint8_t>(text[i]));
    if (edge == edges.end()) break;
    node = edge->second;
    if (token_at[node] < 0) continue;
    found = token_at[node];
    length = i + 1;
  }
  return found;
}

// Rust's \w, which the package asks for here, has the two joiners besides ours, and no numbers of Latin-1.
AddedTokens::AddedTokens(const std::vector<AddedToken>& tokens, const TextNormalizer& normalizer)
    : word_(R"((?![\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE}])[\w\x{200C}\x{200D}])") {
  for (const AddedToken& token : tokens) {
    if (token.normalized) {
      in_normalized_.add(token, normalizer.apply(token.content));
    } else {
      in_text_.add(token, token.content);
    }
  }
}

void AddedTokens::find(std::string_view text, bool normalized, const std::function<void(std::string_view)>& visit_text,
                       const std::function<void(TokenId)>& visit_token) const {
  const Set& tokens = set(normalized);
  const auto is_word = [&](std::string_view character) {
    Pretokenizer::Position position;
    std::size_t begin = 0, end = 0;
    return word_.next(character, position, begin, end);
  };
  std::size_t done = 0;
  for (std::size_t at = 0; tokens.findable && at < text.size();) {
    std::size_t length = 0;
    const std::int32_t index = tokens.begins[static_cast<std::uint8_t>(text[at])] ? tokens.match(text.substr(at), length) : -1;
    if (index < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens.tokens[static_cast<std::size_t>(index)];
    std::size_t begin = at, end = at + length;
    at = end;
    if (token.special) continue;
    if (token.single_word) {
      if (begin > 0 && is_word(last_character(text.substr(0, begin)))) continue;
      if (end < text.size() && is_word(first_character(text.substr(end)))) continue;
    }
    // White space that the token before has taken already stays with that one.
    if (token.lstrip) begin = std::max(space_at_end(text.substr(0, begin)), done);
    if (token.rstrip) end += space_at_begin(text.substr(end));
    if (done < begin) visit_text(text.substr(done, begin - done));
    if (begin != end) visit_token(token.id);
    done = end;
  }
  if (done < text.size()) visit_text(text.substr(done));
}

}  // namespace nanochat
