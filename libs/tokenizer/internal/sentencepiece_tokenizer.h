#pragma once
// Encoding with a lossless SentencePiece BPE model: characters are merged in the order of
// the pieces' scores, and a character without a piece becomes its bytes. The ids are those
// of the SentencePiece library. The merge loop is ours (merge_table.h): text is first split
// into words, and both types of tokenizer share it. Training uses the library (train.h).
//
// A space is stored as U+2581, as in SentencePiece. U+2581 in a text therefore decodes to a space;
// it is the one character that does not round-trip. Invalid UTF-8 becomes U+FFFD before encoding.
//
// Source: Kudo & Richardson 2018, "SentencePiece: A simple and language independent subword tokenizer".

#include <filesystem>
#include <string>
#include <vector>

#include "tokenizer/merge_table.h"
#include "tokenizer/token_strings.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

struct SentencePieceModel;

struct SentencePieceDefinition {
  std::vector<std::string> pieces;    // as spelled in the model: "<unk>", "<0x00>", ..., "▁the"
  std::vector<Merge> merges;          // by rank
  std::vector<std::string> specials;  // ids pieces.size(), pieces.size() + 1, ...
  std::string model_file;             // content of tokenizer.model, written by save(); empty if not known
};

// Checks that the model is lossless and derives its merges.
// Throws TokenizerError with the setting or piece that is wrong.
SentencePieceDefinition define_sentencepiece(const SentencePieceModel& model, std::string model_file,
                                             std::vector<std::string> specials, const std::string& source);

class SentencePieceTokenizer final : public Tokenizer {
 public:
  // Throws TokenizerError if the unknown piece, one of the 256 byte
  // pieces or the space is missing, or if a string occurs twice.
  explicit SentencePieceTokenizer(SentencePieceDefinition definition);

  std::string_view type() const override { return "sentencepiece"; }
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(strings_.size()); }
  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<TokenId>& ids) const override;
  std::string_view token_bytes(TokenId id) const override;
  const std::vector<std::string>& special_tokens() const override { return specials_; }
  // Also writes tokenizer.model if its content is known.
  void save(const std::filesystem::path& folder) const override;

  const std::vector<std::string>& pieces() const { return pieces_; }
  const std::vector<Merge>& merges() const { return merges_; }

 private:
  TokenId piece_of(char32_t character) const;
  void encode_valid(std::string_view text, std::vector<TokenId>& ids) const;
  void encode_word(std::string_view word, std::vector<TokenId>& symbols, std::vector<TokenId>& ids) const;

  std::vector<std::string> pieces_, specials_;
  std::vector<Merge> merges_;
  std::string model_file_;
  MergeTable table_;
  std::vector<TokenId> byte_ids_;       // 256
  std::vector<std::uint16_t> page_of_;  // code point / 256 to a page below
  std::vector<TokenId> character_ids_;  // pages of 256; -1: encoded as bytes
  bool space_begins_word_ = true;       // no piece has a space after anything except a space
  TokenStrings strings_;                // the decoded tokens; finds whole words
};

inline constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581
inline constexpr std::string_view kUnknownPiece = "<unk>";
// "<0x0A>" for 10.
std::string byte_piece(int byte);

}  // namespace nanochat
