#include "tokenizer/tokenizer.h"

#include <algorithm>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "core/thread_pool.h"
#include "core/utf8.h"
#include "tokenizer/special_tokens.h"

namespace nanochat {

std::vector<TokenId> Tokenizer::encode(std::string_view text) const {
  std::vector<TokenId> ids;
  encode(text, ids);
  return ids;
}

std::vector<std::vector<TokenId>> Tokenizer::encode_batch(std::span<const std::string> texts, int threads) const {
  std::vector<std::vector<TokenId>> ids(texts.size());
  for_each_index(texts.size(), threads, [&](std::size_t i) { encode(texts[i], ids[i]); });
  return ids;
}

std::string Tokenizer::decode(std::span<const TokenId> ids) const {
  std::string text;
  for (const TokenId id : ids) text += token_bytes(id);
  return text;
}

std::optional<TokenId> Tokenizer::special_id(std::string_view name) const {
  const std::vector<std::string>& names = special_tokens();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) return std::nullopt;
  return special_id_at(static_cast<std::size_t>(found - names.begin()));
}

TokenId Tokenizer::require_special(std::string_view name) const {
  if (const auto id = special_id(name)) return *id;
  throw TokenizerError(fmt::format("the tokenizer has no special token {}; it has {}", name,
                                   special_tokens().empty() ? "none" : fmt::format("{}", fmt::join(special_tokens(), " "))));
}

std::optional<TokenId> Tokenizer::find_bos() const {
  for (const std::string_view name : {std::string_view(bos_token_), kBos, std::string_view("<|endoftext|>")}) {
    if (name.empty()) continue;
    if (const auto id = special_id(name)) return id;
  }
  return std::nullopt;
}

TokenId Tokenizer::bos_id() const {
  if (const auto id = find_bos()) return *id;
  throw TokenizerError(fmt::format(
      "the tokenizer has neither <|bos|> nor <|endoftext|>; {}",
      special_tokens().empty() ? "give it special tokens with --special nanochat, where it is a rank file or tokenizer.model"
                               : fmt::format("name the special token that begins a document with --bos-token; it has {}",
                                             fmt::join(special_tokens(), " "))));
}

void Tokenizer::set_bos_token(std::string_view name) {
  require_special(name);
  bos_token_ = name;
}

std::vector<std::int32_t> Tokenizer::token_byte_lengths() const {
  std::vector<std::int32_t> lengths(static_cast<std::size_t>(vocab_size()), 0);
  for (TokenId id = 0; id < vocab_size(); ++id) {
    if (!is_special(id)) lengths[static_cast<std::size_t>(id)] = static_cast<std::int32_t>(token_bytes(id).size());
  }
  return lengths;
}

void Tokenizer::check_id(TokenId id) const {
  if (id >= 0 && id < vocab_size()) return;
  throw TokenizerError(fmt::format("token id {} is out of range; the vocabulary has {} tokens", id, vocab_size()));
}

std::string StreamDecoder::push(TokenId id) {
  pending_ += tokenizer_.token_bytes(id);
  const std::size_t tail = utf8::incomplete_tail(pending_);
  std::string text = replace_invalid_utf8(std::string_view(pending_).substr(0, pending_.size() - tail));
  pending_.erase(0, pending_.size() - tail);
  return text;
}

std::string StreamDecoder::flush() {
  std::string text = replace_invalid_utf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace nanochat
