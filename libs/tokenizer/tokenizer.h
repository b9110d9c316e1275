#pragma once
// Text to token ids and back. There are two implementations: byte-level BPE (byte_bpe.h)
// and SentencePiece BPE (sentencepiece_tokenizer.h). load.h detects the type of a file.
//
// Ids are [0, vocab_size()). In tokenizers trained by this program, the special tokens have the last
// ids; in a tokenizer.json of another program they may be anywhere. encode() never returns a special
// token, whatever the text spells. Immutable after construction; every const member is thread-safe.

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
  virtual std::int64_t vocab_size() const = 0;  // including special tokens, without the model's padding
  // Appends the ids of `text`. Byte-level BPE accepts any bytes; SentencePiece replaces invalid UTF-8 by U+FFFD.
  virtual void encode(std::string_view text, std::vector<TokenId>& ids) const = 0;
  // The bytes of a token, which decode() concatenates. For a special
  // token, its name. Throws TokenizerError if id is out of range.
  virtual std::string_view token_bytes(TokenId id) const = 0;
  // Special tokens in id order.
  virtual const std::vector<std::string>& special_tokens() const = 0;
  // Writes tokenizer.json and the other files of the type into an existing folder, each atomically.
  virtual void save(const std::filesystem::path& folder) const = 0;

  std::vector<TokenId> encode(std::string_view text) const;
  // Uses `threads` threads (0: all); results are in the order of `texts`.
  std::vector<std::vector<TokenId>> encode_batch(std::span<const std::string> texts, int threads = 0) const;
  // Unchecked bytes, which may end inside a UTF-8 sequence; see StreamDecoder.
  std::string decode(std::span<const TokenId> ids) const;

  std::optional<TokenId> special_id(std::string_view name) const;  // "<|bos|>"
  TokenId require_special(std::string_view name) const;            // throws TokenizerError naming it
  // The token that begins a document: the one set by set_bos_token(), otherwise <|bos|>, otherwise <|endoftext|>.
  std::optional<TokenId> find_bos() const;
  TokenId bos_id() const;  // the same; throws TokenizerError when there is none
  // Sets the special token that begins a document; save() stores it in tokenizer_config.json. Throws
  // TokenizerError if there is no such special token. Call it only before the tokenizer is shared.
  void set_bos_token(std::string_view name);
  bool is_special(TokenId id) const {
    if (!special_ids_.empty()) return std::binary_search(special_ids_.begin(), special_ids_.end(), id);
    return id >= first_special() && id < vocab_size();
  }
  // The id of special_tokens()[index].
  TokenId special_id_at(std::size_t index) const {
    return special_ids_.empty() ? first_special() + static_cast<TokenId>(index) : special_ids_[index];
  }
  // True if every ordinary token has a lower id than every special token, as rank files require.
  bool specials_are_last() const { return special_ids_.empty(); }
  // The first special token's id if specials_are_last(), otherwise vocab_size() minus their number.
  TokenId first_special() const {
    return static_cast<TokenId>(vocab_size() - static_cast<std::int64_t>(special_tokens().size()));
  }

  // Number of bytes of each token, 0 for special tokens: the denominator of bits per byte.
  std::vector<std::int32_t> token_byte_lengths() const;
  // SHA-256 (hex) over type, pattern, tokens and special tokens. Tokenizers that encode alike have
  // equal fingerprints, whatever file they come from. Token shards and checkpoints contain it.
  const std::string& fingerprint() const { return fingerprint_; }

 protected:
  void check_id(TokenId id) const;  // throws TokenizerError if it is out of range
  // Set by the constructor of each implementation.
  std::string fingerprint_;
  std::vector<TokenId> special_ids_;  // ascending; empty if the special tokens have the last ids

 private:
  std::string bos_token_;  // empty: not set
};

// Turns a stream of ids into text that never ends inside a UTF-8 sequence. Incomplete bytes wait for the next token;
// bytes that can no longer become valid are replaced by U+FFFD, as in Python's decode(errors="replace"). All results
// of push() and flush(), concatenated, equal replace_invalid_utf8(decode(all ids)). Use one object per stream.
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
