#include "tokenizer/byte_bpe.h"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/utf8.h"
#include "tokenizer/internal/derive_merges.h"
#include "tokenizer/internal/fingerprint.h"
#include "tokenizer/internal/hf_tokenizer_json.h"
#include "tokenizer/internal/regex_dialect.h"

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
    throw TokenizerError(fmt::format("byte 0x{:02X} has no token; byte-level BPE needs all 256 single bytes",
                                     missing - ids.begin()));
  }
  return ids;
}

// The special tokens of the definition as added tokens, or its added tokens, by id.
std::vector<AddedToken> added_tokens(const ByteBpeDefinition& definition) {
  std::vector<AddedToken> added = definition.steps.added;
  for (const std::string& name : definition.specials) {
    AddedToken token;
    token.id = static_cast<TokenId>(definition.tokens.size() + added.size());
    token.content = name;
    token.special = true;
    added.push_back(std::move(token));
  }
  return added;
}

// What every token stands for, by id.
std::vector<std::string> all_tokens(const ByteBpeDefinition& definition, const std::vector<AddedToken>& added) {
  std::vector<std::string> all = definition.tokens;
  std::unordered_map<std::string_view, std::size_t> seen;
  for (std::size_t id = 0; id < definition.tokens.size(); ++id) {
    if (definition.tokens[id].empty()) continue;
    const auto [first, is_new] = seen.emplace(definition.tokens[id], id);
    if (!is_new) throw TokenizerError(fmt::format("token {} has the same bytes as token {}", id, first->second));
  }
  std::unordered_map<std::string_view, std::size_t> names;
  for (const AddedToken& token : added) {
    const auto id = static_cast<std::size_t>(token.id);
    if (const auto [first, is_new] = names.emplace(token.content, id); !is_new) {
      throw TokenizerError(fmt::format("token {} has the same bytes as token {}", id, first->second));
    }
    if (id == all.size()) {
      // A tokenizer.json spells merged tokens otherwise than added ones, so that both may stand for the same bytes.
      const auto first = seen.find(token.content);
      if (definition.steps.added.empty() && first != seen.end()) {
        throw TokenizerError(fmt::format("token {} has the same bytes as token {}", id, first->second));
      }
      all.push_back(token.content);
    } else if (id > all.size()) {
      throw TokenizerError(fmt::format("no token has the id {}", all.size()));
    } else if (all[id].empty()) {
      all[id] = token.content;
    }
  }
  for (std::size_t id = 0; id < all.size(); ++id) {
    if (all[id].empty()) throw TokenizerError(fmt::format("token {} is empty", id));
  }
  return all;
}

// As a file would give it back, so that a tokenizer and what was saved of it are the same one.
std::string canonical_pattern(const std::string& pattern) {
  const std::string resolved = resolve_pattern(pattern);
  return pattern_name(resolved) == "custom" ? from_oniguruma(to_oniguruma(resolved)) : resolved;
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
    : pretokenizer_(canonical_pattern(definition.pattern)), merged_vocab_size_(definition.tokens.size()),
      merges_(std::move(definition.merges)), table_(make_table(merges_)), byte_ids_(find_byte_ids(definition.tokens)) {
  const std::vector<AddedToken> added = added_tokens(definition);
  const std::vector<std::string> all = all_tokens(definition, added);
  // Which tokens merging makes of their own bytes: all of a trained vocabulary.
  std::vector<bool> merges_to_itself(definition.tokens.size(), true);
  merged_.resize(definition.tokens.size());
  std::vector<TokenId> symbols, merged;
  for (std::size_t id = 0; id < definition.tokens.size(); ++id) {
    merged_[id] = !definition.tokens[id].empty();
    if (!merged_[id]) continue;
    symbols.clear();
    merged.clear();
    for (const char byte : definition.tokens[id]) symbols.push_back(byte_ids_[static_cast<std::uint8_t>(byte)]);
    table_.merge(symbols, merged);
    merges_to_itself[id] = merged == std::vector<TokenId>{static_cast<TokenId>(id)};
  }
  const bool all_merge = std::find(merges_to_itself.begin(), merges_to_itself.end(), false) == merges_to_itself.end();
  ignore_merges_ = definition.ignore_merges && !all_merge;
  strings_ = TokenStrings(all, [&](TokenId id) {
    const auto index = static_cast<std::size_t>(id);
    return index < merged_.size() && merged_[index] && (ignore_merges_ || merges_to_itself[index]);
  });
  for (const AddedToken& token : added) {
    if (!token.special) continue;
    specials_.push_back(token.content);
    special_ids_.push_back(token.id);
  }
  if (special_ids_.empty() || special_ids_.front() == first_special()) special_ids_.clear();

  steps_ = std::move(definition.steps);
  if (steps_.matter(merged_vocab_size_)) {
    normalizer_ = TextNormalizer(steps_.normalizer);
    if (!steps_.splits.empty()) splitter_ = std::make_unique<const TextSplitter>(steps_.splits);
    added_ = std::make_unique<const AddedTokens>(added, normalizer_);
  }
  std::vector<std::string> settings = {"bpe", pattern()};
  if (!all_merge) settings.push_back(ignore_merges_ ? "whole pieces first" : "merges only");
  for (std::string& part : steps_.description(merged_vocab_size_)) settings.push_back(std::move(part));
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
  if (added_ == nullptr) return encode_stretch(text, ids);
  const auto token = [&](TokenId id) { ids.push_back(id); };
  const auto normalized_text = [&](std::string_view stretch) { encode_stretch(stretch, ids); };
  added_->find(
      text, /*normalized=*/false,
      [&](std::string_view stretch) {
        std::string normalized;
        if (!normalizer_.empty()) {
          normalized = normalizer_.apply(stretch);
          stretch = normalized;
        }
        added_->find(stretch, /*normalized=*/true, normalized_text, token);
      },
      token);
}

// A stretch without added tokens.
void ByteBpeTokenizer::encode_stretch(std::string_view text, std::vector<TokenId>& ids) const {
  const auto piece = [&](std::string_view bytes) { encode_piece(bytes, ids); };
  if (splitter_ != nullptr) {
    splitter_->split(text, piece);
  } else {
    pretokenizer_.for_each_piece(text, piece);
  }
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
