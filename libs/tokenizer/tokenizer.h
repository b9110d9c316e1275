#pragma once
// Text to token ids and back. Two implementations stand behind this interface: byte-level BPE (byte_bpe.h) and
// sentencepiece BPE (sentencepiece_tokenizer.h); load.h tells them apart on disk.
//
// Ids are [0, vocab_size()). In tokenizers of our own the special tokens have the last ids; a tokenizer.json of others
// may have them anywhere. encode() never yields a special token, whatever the text spells. Immutable after construction;
// every const member is thread-safe.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

using TokenId = std::int32_t;

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual std::string_view type() const = 0;    // "bpe" or "sentencepiece"
  virtual std::int64_t vocab_size() const = 0;  // special tokens included, model padding not
  // Appends the ids of `text`. Byte-level BPE takes any bytes; sentencepiece replaces invalid UTF-8 by U+FFFD.
  virtual void encode(std::string_view text, std::vector<TokenId>& ids) const = 0;
  // The bytes that a token stands for: what decode() concatenates. For a special token its name. Throws
  // TokenizerError if id is out of range.
  virtual std::string_view token_bytes(TokenId id) const = 0;
  // Special tokens in id order.
  virtual const std::vector<std::string>& special_tokens() const = 0;
  // Writes tokenizer.json and whatever else the kind needs into an existing folder, each file atomically.
  virtual void save(const std::filesystem::path& folder) const = 0;

  std::vector<TokenId> encode(std::string_view text) const;
  // On `threads` threads (0: all); results in the order of `texts`.
  std::vector<std::vector<TokenId>> encode_batch(std::span<const std::string> texts, int threads = 0) const;
  // Bytes as they are: may end inside a UTF-8 sequence, see StreamDecoder.
  std::string decode(std::span<const TokenId> ids) const;

  std::optional<TokenId> special_id(std::string_view name) const;  // "<|bos|>"
  TokenId require_special(std::string_view name) const;            // throws TokenizerError naming it
  // The token that begins a document: the one that set_bos_token() named, else <|bos|>, else <|endoftext|>.
  std::optional<TokenId> find_bos() const;
  TokenId bos_id() const;  // the same; throws TokenizerError when there is none
  // Names the special token that begins a document; save() keeps it in tokenizer_config.json. Throws TokenizerError when
  // there is no such special token. Only before the tokenizer is shared.
  void set_bos_token(std::string_view name);
  bool is_special(TokenId id) const {
    if (!special_ids_.empty()) return std::binary_search(special_ids_.begin(), special_ids_.end(), id);
    return id >= first_special() && id < vocab_size();
  }
  // The id of special_tokens()[index].
  TokenId special_id_at(std::size_t index) const {
    return special_ids_.empty() ? first_special() + static_cast<TokenId>(index) : special_ids_[index];
  }
  // True when every ordinary token has a lower id than every special token, as rank files need it.
  bool specials_are_last() const { return special_ids_.empty(); }
  // The first special token's id where specials_are_last(), else only vocab_size() less their number.
  TokenId first_special() const {
    return static_cast<TokenId>(vocab_size() - static_cast<std::int64_t>(special_tokens().size()));
  }

  // Bytes each token stands for, 0 for special tokens: the denominator of bits per byte.
  std::vector<std::int32_t> token_byte_lengths() const;
  // SHA-256 (hex) over kind, pattern, tokens and special tokens: equal for tokenizers that encode alike, wherever
  // they were loaded from. Token shards and checkpoints carry it.
  const std::string& fingerprint() const { return fingerprint_; }

 protected:
  void check_id(TokenId id) const;  // throws TokenizerError if it is out of range
  // Set by the constructor of each implementation.
  std::string fingerprint_;
  std::vector<TokenId> special_ids_;  // ascending; empty where the special tokens have the last ids

 private:
  std::string bos_token_;  // empty: not named
};

// Turns a stream of ids into text that never ends inside a UTF-8 sequence. Incomplete bytes wait for the next token;
// bytes that can no longer become valid are replaced by U+FFFD, as Python's decode(errors="replace") does, so that
// the concatenation of every push() and the flush() equals replace_invalid_utf8(decode(all ids)). One per stream.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(TokenId id);
  std::string flush();

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;
};

}  // namespace nanochat
