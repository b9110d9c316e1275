#include "tokenizer/tiktoken_file.h"

#include <array>
#include <charconv>
#include <cstdint>
#include <optional>
#include <unordered_map>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/sha256.h"
#include "tokenizer/byte_bpe.h"
#include "tokenizer/pretokenizer.h"

namespace nanochat {
namespace {

constexpr std::string_view kGpt2Sha256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930";
constexpr std::string_view kCl100kSha256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7";

// RFC 4648, padded; nullopt when malformed.
std::optional<std::string> decode_base64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  std::size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
  std::string bytes;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text.substr(0, text.size() - padding)) {
    std::uint32_t value = 0;
    if (c >= 'A' && c <= 'Z') {
      value = static_cast<std::uint32_t>(c - 'A');
    } else if (c >= 'a' && c <= 'z') {
      value = static_cast<std::uint32_t>(c - 'a' + 26);
    } else if (c >= '0' && c <= '9') {
      value = static_cast<std::uint32_t>(c - '0' + 52);
    } else if (c == '+') {
      value = 62;
    } else if (c == '/') {
      value = 63;
    } else {
      return std::nullopt;
    }
    bits = bits << 6 | value;
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes += static_cast<char>(bits >> count & 0xFF);
    }
  }
  return bytes;
}

// RFC 4648, padded.
std::string encode_base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t j = i; j < i + 3; ++j) {
      bits = bits << 8 | (j < bytes.size() ? static_cast<std::uint8_t>(bytes[j]) : 0U);
    }
    for (std::size_t j = 0; j < 4; ++j) text += i + j <= bytes.size() ? kDigits[bits >> (18 - 6 * j) & 63] : '=';
  }
  return text;
}

}  // namespace

std::vector<std::string> parse_tiktoken_ranks(std::string_view contents, const std::string& source) {
  std::vector<std::string> tokens;
  std::unordered_map<std::string, std::size_t> line_of_token;
  std::vector<std::size_t> line_of_rank;  // 0: not seen
  std::size_t line_number = 0, highest_line = 0;
  while (!contents.empty()) {
    ++line_number;
    const std::size_t newline = contents.find('\n');
    std::string_view line = contents.substr(0, newline);
    contents.remove_prefix(newline == std::string_view::npos ? contents.size() : newline + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const std::size_t space = line.find(' ');
    const std::optional<std::string> token = decode_base64(line.substr(0, space));
    std::size_t rank = 0;
    const char* const end = line.data() + line.size();
    const bool has_rank = space != std::string_view::npos && space + 1 < line.size() && [&] {
      const auto parsed = std::from_chars(line.data() + space + 1, end, rank);
      return parsed.ec == std::errc() && parsed.ptr == end;
    }();
    if (!token || token->empty() || !has_rank) {
      throw TokenizerError(fmt::format("{}:{}: not a line of a tiktoken rank file; expected \"BASE64 RANK\"", source,
                                       line_number));
    }
    constexpr std::size_t kMostRanks = std::size_t{1} << 24;
    if (rank >= kMostRanks) {
      throw TokenizerError(fmt::format("{}:{}: rank {} is too large; at most {} tokens are supported", source, line_number,
                                       rank, kMostRanks));
    }
    const auto [first, is_new] = line_of_token.emplace(*token, line_number);
    if (!is_new) {
      throw TokenizerError(fmt::format("{}:{}: the same token as on line {}", source, line_number, first->second));
    }
    if (rank >= tokens.size()) {
      tokens.resize(rank + 1);
      line_of_rank.resize(rank + 1);
      highest_line = line_number;
    }
    if (line_of_rank[rank] != 0) {
      throw TokenizerError(fmt::format("{}:{}: rank {} stands on line {} already", source, line_number, rank,
                                       line_of_rank[rank]));
    }
    tokens[rank] = *token;
    line_of_rank[rank] = line_number;
  }
  if (tokens.empty()) throw TokenizerError(fmt::format("{}: no ranks; expected lines \"BASE64 RANK\"", source));
  for (std::size_t rank = 0; rank < tokens.size(); ++rank) {
    if (line_of_rank[rank] == 0) {
      throw TokenizerError(fmt::format("{}: rank {} is missing; line {} goes up to {}", source, rank, highest_line,
                                       tokens.size() - 1));
    }
  }
  return tokens;
}

std::string_view published_pattern(std::string_view contents) {
  const std::string digest = sha256_hex(contents);
  if (digest == kGpt2Sha256) return kGpt2Pattern;
  if (digest == kCl100kSha256) return kCl100kPattern;
  return {};
}

std::string to_tiktoken_ranks(const ByteBpeTokenizer& tokenizer) {
  require_rank_order(tokenizer);
  std::string lines;
  for (TokenId id = 0; id < tokenizer.first_special(); ++id) {
    lines += fmt::format("{} {}\n", encode_base64(tokenizer.token_bytes(id)), id);
  }
  return lines;
}

void require_rank_order(const ByteBpeTokenizer& tokenizer) {
  if (tokenizer.has_steps() || !tokenizer.specials_are_last()) {
    throw TokenizerError(
        "this tokenizer normalizes text, cuts it by several steps or has tokens added amid its vocabulary, which tiktoken's "
        "files cannot say");
  }
  ByteBpeDefinition definition;
  definition.pattern = tokenizer.pattern();
  definition.specials = tokenizer.special_tokens();
  for (TokenId id = 0; id < tokenizer.first_special(); ++id) {
    definition.tokens.emplace_back(tokenizer.token_bytes(id));
  }
  definition.merges = merges_from_ranks(definition.tokens);
  if (ByteBpeTokenizer(std::move(definition)).fingerprint() == tokenizer.fingerprint()) return;
  throw TokenizerError("the merges of this tokenizer are not in the order of its ids, by which tiktoken merges");
}

}  // namespace nanochat
