#pragma once
// Byte-level byte pair encoding: a regular expression splits the text (pretokenizer.h), and the bytes
// of each piece are merged by rank (merge_table.h). Every byte is a token. Any byte string therefore
// round-trips, unless the tokenizer normalizes text, drops parts of it or adds a space (text_steps.h).
//
// Sources: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2: BPE over
// bytes, split by character category); tiktoken (direct lookup of a piece that is a token; the merge loop).

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tokenizer/merge_table.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/text_steps.h"
#include "tokenizer/token_strings.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

struct ByteBpeDefinition {
  std::string pattern;                // see resolve_pattern
  std::vector<std::string> tokens;    // bytes of each ordinary token, by id, including the 256 single bytes
  std::vector<std::string> specials;  // ids tokens.size(), tokens.size() + 1, ...
  std::vector<Merge> merges;          // by rank
  // A piece that is a token becomes that token even if the merges would not make it (always in
  // tiktoken; in Hugging Face with "ignore_merges"). No difference for trained vocabularies.
  bool ignore_merges = true;
  // The other steps of a tokenizer.json. If it names added tokens, `specials`
  // is empty, and a token that only it names is empty among `tokens`.
  TextSteps steps;
};

// The merges of a rank file: the rank of a token is its id.
std::vector<Merge> merges_from_ranks(const std::vector<std::string>& tokens);

class ByteBpeTokenizer final : public Tokenizer {
 public:
  // Throws TokenizerError if a single byte is missing, a token is
  // empty or occurs twice, or the name of a special token is taken.
  explicit ByteBpeTokenizer(ByteBpeDefinition definition);

  std::string_view type() const override { return "bpe"; }
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(strings_.size()); }
  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<TokenId>& ids) const override;
  std::string_view token_bytes(TokenId id) const override;
  const std::vector<std::string>& special_tokens() const override { return specials_; }
  void save(const std::filesystem::path& folder) const override;

  // Empty if several steps split the text.
  const std::string& pattern() const { return pretokenizer_.pattern(); }
  const TextSteps& steps() const { return steps_; }
  bool has_steps() const { return added_ != nullptr; }  // they affect ids
  // Number of tokens that merges can make: the first ids. Added and special tokens come after these.
  std::size_t merged_vocab_size() const { return merged_vocab_size_; }
  // False for a token among the first merged_vocab_size() that is only found as an added token, or never.
  bool is_merged(TokenId id) const { return merged_[static_cast<std::size_t>(id)]; }
  const std::vector<Merge>& merges() const { return merges_; }
  bool ignore_merges() const { return ignore_merges_; }  // true only if it makes a difference

 private:
  void encode_valid(std::string_view text, std::vector<TokenId>& ids) const;
  void encode_stretch(std::string_view text, std::vector<TokenId>& ids) const;
  void encode_piece(std::string_view piece, std::vector<TokenId>& ids) const;

  Pretokenizer pretokenizer_;
  TextSteps steps_;
  TextNormalizer normalizer_;
  std::unique_ptr<const TextSplitter> splitter_;  // used instead of pretokenizer_
  std::unique_ptr<const AddedTokens> added_;      // if there are steps
  std::size_t merged_vocab_size_ = 0;
  std::vector<bool> merged_;
  std::vector<std::string> specials_;
  std::vector<Merge> merges_;
  bool ignore_merges_ = false;
  MergeTable table_;
  std::vector<TokenId> byte_ids_;  // 256
  TokenStrings strings_;
};

}  // namespace nanochat
