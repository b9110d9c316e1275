#include "tokenizer/byte_bpe.h"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "tokenizer/derive_merges.h"
#include "tokenizer/fingerprint.h"
#include "tokenizer/hf_tokenizer_json.h"
#include "tokenizer/utf8.h"

namespace nanochat {
namespace {

// Longer than any token that was ever trained; a damaged file must not cost time that grows with a token's square.
constexpr std::size_t kMaxTokenBytes = 4096;

std::vector<TokenId> find_byte_ids(const std::vector<std::string>& tokens) {
  std::vector<TokenId> ids(256, -1);
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].size() != 1) continue;
    TokenId& of_byte = ids[static_cast<std::uint8_t>(tokens[id][0])];
    if (of_byte < 0) of_byte = static_cast<TokenId>(id);
  }
  const auto missing = std::find(ids.begin(), ids.end(), -1);
  if (missing != ids.end()) {
    throw TokenizerError(
        fmt::format("byte 0x{:02X} has no token; byte-level BPE needs all 256 single bytes", missing - ids.begin()));
  }
  return ids;
}

std::vector<std::string> with_specials(const std::vector<std::string>& tokens,
                                       const std::vector<std::string>& specials) {
  std::vector<std::string> all = tokens;
  all.insert(all.end(), specials.begin(), specials.end());
  std::unordered_map<std::string_view, std::size_t> seen;
  for (std::size_t id = 0; id < all.size(); ++id) {
    if (all[id].empty()) throw TokenizerError(fmt::format("token {} is empty", id));
    const auto [first, is_new] = seen.emplace(all[id], id);
    if (!is_new) throw TokenizerError(fmt::format("token {} has the same bytes as token {}", id, first->second));
  }
  return all;
}

MergeTable make_table(const std::vector<Merge>& merges) {
  MergeTable table(merges.size());
  for (const Merge& merge : merges) table.add(merge);
  return table;
}

}  // namespace

std::vector<Merge> merges_from_ranks(const std::vector<std::string>& tokens) {
  const std::vector<TokenId> byte_ids = find_byte_ids(tokens);
  std::vector<MergedToken> merged;
  merged.reserve(tokens.size());
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].size() < 2) continue;
    if (tokens[id].size() > kMaxTokenBytes) {
      throw TokenizerError(fmt::format("token {} is {} bytes long; at most {} are supported", id, tokens[id].size(),
                                       kMaxTokenBytes));
    }
    MergedToken token{static_cast<TokenId>(id), tokens[id], {}, std::vector<std::size_t>(tokens[id].size(), 1)};
    for (const char byte : tokens[id]) token.symbols.push_back(byte_ids[static_cast<std::uint8_t>(byte)]);
    merged.push_back(std::move(token));
  }
  return derive_merges(merged);
}

ByteBpeTokenizer::ByteBpeTokenizer(ByteBpeDefinition definition)
    : pretokenizer_(resolve_pattern(definition.pattern)),
      specials_(std::move(definition.specials)),
      merges_(std::move(definition.merges)),
      table_(make_table(merges_)),
      byte_ids_(find_byte_ids(definition.tokens)) {
  // Which tokens merging makes of their own bytes: all of a trained vocabulary.
  std::vector<bool> merges_to_itself(definition.tokens.size());
  std::vector<TokenId> symbols, merged;
  for (std::size_t id = 0; id < definition.tokens.size(); ++id) {
    symbols.clear();
    merged.clear();
    for (const char byte : definition.tokens[id]) symbols.push_back(byte_ids_[static_cast<std::uint8_t>(byte)]);
    table_.merge(symbols, merged);
    merges_to_itself[id] = merged == std::vector<TokenId>{static_cast<TokenId>(id)};
  }
  const bool all_merge = std::find(merges_to_itself.begin(), merges_to_itself.end(), false) == merges_to_itself.end();
  ignore_merges_ = definition.ignore_merges && !all_merge;
  strings_ = TokenStrings(with_specials(definition.tokens, specials_), [&](TokenId id) {
    const auto index = static_cast<std::size_t>(id);
    return index < definition.tokens.size() && (ignore_merges_ || merges_to_itself[index]);
  });
  std::vector<std::string> settings = {"bpe", pattern()};
  if (!all_merge) settings.push_back(ignore_merges_ ? "whole pieces first" : "merges only");
  fingerprint_ = tokenizer_fingerprint(settings, definition.tokens, merges_, specials_);
}

void ByteBpeTokenizer::encode(std::string_view text, std::vector<TokenId>& ids) const {
  // The pattern is defined on characters: it sees each maximal run of them, and the malformed bytes between two runs
  // are a piece of their own.
  while (!text.empty()) {
    const std::size_t valid = utf8::valid_prefix(text);
    encode_valid(text.substr(0, valid), ids);
    text.remove_prefix(valid);
    std::size_t malformed = 0;
    while (malformed < text.size() && utf8::character_length(text.substr(malformed, 4)) == 0) ++malformed;
    if (malformed > 0) encode_piece(text.substr(0, malformed), ids);
    text.remove_prefix(malformed);
  }
}

void ByteBpeTokenizer::encode_valid(std::string_view text, std::vector<TokenId>& ids) const {
  std::size_t done = 0, begin = 0, end = 0;
  while (done < text.size() && pretokenizer_.find(text, done, begin, end)) {
    if (begin > done) encode_piece(text.substr(done, begin - done), ids);  // the pattern leaves a gap
    encode_piece(text.substr(begin, end - begin), ids);
    done = end;
  }
  if (done < text.size()) encode_piece(text.substr(done), ids);
}

void ByteBpeTokenizer::encode_piece(std::string_view piece, std::vector<TokenId>& ids) const {
  if (const TokenId id = strings_.find(piece); id >= 0) {
    ids.push_back(id);
    return;
  }
  const auto to_id = [&](char byte) { return byte_ids_[static_cast<std::uint8_t>(byte)]; };
  constexpr std::size_t kOnStack = 128;
  if (piece.size() <= kOnStack) {
    std::array<TokenId, kOnStack> symbols;
    std::transform(piece.begin(), piece.end(), symbols.begin(), to_id);
    table_.merge({symbols.data(), piece.size()}, ids);
  } else {
    std::vector<TokenId> symbols(piece.size());
    std::transform(piece.begin(), piece.end(), symbols.begin(), to_id);
    table_.merge(symbols, ids);
  }
}

std::string_view ByteBpeTokenizer::token_bytes(TokenId id) const {
  check_id(id);
  return strings_[id];
}

void ByteBpeTokenizer::save(const std::filesystem::path& folder) const {
  write_file_atomically(folder / "tokenizer.json", to_hf_json(*this));
  write_file_atomically(folder / "tokenizer_config.json", hf_tokenizer_config(*this));
}

}  // namespace nanochat
