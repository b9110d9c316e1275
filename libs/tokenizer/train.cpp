#include "tokenizer/train.h"

#include <algorithm>
#include <cmath>
#include <cctype>
#include <unordered_map>
#include <utility>
#include <vector>

#include <sentencepiece_trainer.h>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "core/thread_pool.h"
#include "core/utf8.h"
#include "tokenizer/document_sample.h"
#include "tokenizer/internal/sentencepiece_model.h"
#include "tokenizer/internal/sentencepiece_tokenizer.h"
#include "tokenizer/internal/training_text.h"
#include "tokenizer/special_tokens.h"

namespace nanochat {
namespace {

constexpr std::int64_t kBytePieces = 256;
// The unknown piece, the bytes, the space and the special tokens.
constexpr std::int64_t kFixedTokens = 1 + kBytePieces + 1 + static_cast<std::int64_t>(kChatSpecialTokens.size());
// The rarest characters, together this part of the text, stay without a piece of their own.
constexpr double kRareShare = 1e-4;

// The characters that get a piece: the most frequent ones, at most `most`, until only a `rare_share` of the text is
// left. The others fall back to bytes. Ties go to the lower code point.
std::vector<bool> frequent_characters(const std::vector<std::string>& documents, std::int64_t most, double rare_share) {
  std::vector<std::int64_t> counts(0x110000, 0);
  std::int64_t total = 0;
  for (const std::string& document : documents) {
    for (std::string_view rest = document; !rest.empty();) {
      const std::size_t length = utf8::character_length(rest.substr(0, 4));
      ++counts[utf8::decode_character(rest, length)];
      ++total;
      rest.remove_prefix(length);
    }
  }
  std::vector<char32_t> order;
  for (char32_t character = 0; character < counts.size(); ++character) {
    if (counts[character] > 0) order.push_back(character);
  }
  std::stable_sort(order.begin(), order.end(), [&](char32_t a, char32_t b) { return counts[a] > counts[b]; });
  if (order.size() > static_cast<std::size_t>(most)) order.resize(static_cast<std::size_t>(most));
  std::vector<bool> frequent(counts.size(), false);
  const auto enough = static_cast<std::int64_t>(std::ceil(static_cast<double>(total) * (1 - rare_share)));
  std::int64_t covered = 0;
  for (const char32_t character : order) {
    if (covered >= enough) break;
    covered += counts[character];
    frequent[character] = true;
  }
  return frequent;
}

// Feeds the trainer stretches of frequent characters. sentencepiece counts words, which end at spaces alone; a
// stretch therefore also ends after line breaks, unless a character follows that may share a piece with them, so that
// the same word at the end of two lines is one word and not two.
class StretchIterator : public sentencepiece::SentenceIterator {
 public:
  StretchIterator(const std::vector<std::string>& documents, const std::vector<bool>& frequent)
      : documents_(documents), frequent_(frequent) {
    Next();
  }

  bool done() const override { return done_; }
  const std::string& value() const override { return stretch_; }
  sentencepiece::util::Status status() const override { return {}; }

  void Next() override {
    stretch_.clear();
    while (stretch_.empty() && index_ < documents_.size()) {
      read_stretch();
      if (offset_ == documents_[index_].size()) {
        ++index_;
        offset_ = 0;
      }
    }
    if (!stretch_.empty()) return;
    done_ = space_given_;
    space_given_ = true;
    stretch_.assign(1, ' ');  // the space needs its piece even where no text has one
  }

 private:
  void read_stretch() {
    const std::string& document = documents_[index_];
    while (offset_ < document.size()) {
      const std::string_view rest = std::string_view(document).substr(offset_);
      const std::size_t length = utf8::character_length(rest.substr(0, 4));
      const char32_t character = utf8::decode_character(rest, length);
      const bool line_ended = stretch_.ends_with('\n');
      if (line_ended && (character >= 0x80 || std::isalnum(static_cast<int>(character)) != 0)) return;
      offset_ += length;
      if (!frequent_[character]) return;
      stretch_ += rest.substr(0, length);
    }
  }

  const std::vector<std::string>& documents_;
  const std::vector<bool>& frequent_;
  std::size_t index_ = 0, offset_ = 0;
  std::string stretch_;
  bool space_given_ = false, done_ = false;
};

// The model file for `pieces` pieces, or for as many as the text supports.
std::string run_trainer(StretchIterator& sentences, std::int64_t pieces, const TokenizerTrainOptions& options) {
  constexpr std::int64_t kLeastLength = 10, kGreatestLength = 1 << 30;  // what sentencepiece takes
  const std::unordered_map<std::string, std::string> settings = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(pieces)},
      {"hard_vocab_limit", "false"},  // the caller looks at what was reached
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"byte_fallback", "true"},
      {"split_digits", "true"},
      {"allow_whitespace_only_pieces", "true"},
      {"character_coverage", "1.0"},  // StretchIterator has left the rare ones out
      {"max_sentence_length", std::to_string(std::clamp(options.max_document_bytes, kLeastLength, kGreatestLength))},
      {"unk_id", "0"},
      {"bos_id", "-1"},
      {"eos_id", "-1"},
      {"pad_id", "-1"},
      {"num_threads", std::to_string(options.threads > 0 ? options.threads : available_threads())},
      {"minloglevel", "2"},
  };
  std::string model_file;
  const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &sentences, &model_file);
  if (!status.ok()) throw TokenizerError(fmt::format("sentencepiece cannot train: {}", status.ToString()));
  return model_file;
}

}  // namespace

std::shared_ptr<const Tokenizer> train_sentencepiece(const NextDocument& next, const TokenizerTrainOptions& options) {
  constexpr std::int64_t kMostTokens = std::int64_t{1} << 17;
  if (options.vocab_size < kFixedTokens || options.vocab_size > kMostTokens) {
    throw ConfigError(
        fmt::format("vocab_size is {}, expected {} (256 bytes, the space, the unknown piece and nine special "
                    "tokens) to {}",
                    options.vocab_size, kFixedTokens, kMostTokens));
  }
  if (options.max_bytes < 0 || options.max_document_bytes < 4) {  // the longest character
    throw ConfigError(fmt::format("max_bytes is {} and max_document_bytes is {}, expected at least 0 and 4", options.max_bytes,
                                  options.max_document_bytes));
  }
  DocumentSample sample(options.max_bytes > 0 ? options.max_bytes : kSentencePieceBytes,
                        derive_seed(options.seed, "tokenizer sample"));
  for (std::string document; next(document);) {
    make_trainable(document, options.max_document_bytes);
    if (!document.empty()) sample.offer(std::move(document));
    document.clear();
  }
  const std::vector<std::string> documents = sample.take();
  if (documents.empty()) throw TokenizerError("the corpus is empty; a tokenizer needs text to be trained on");

  const auto specials = static_cast<std::int64_t>(kChatSpecialTokens.size());
  const std::int64_t room = options.vocab_size - kFixedTokens;  // for characters and merges
  const std::string source = "the trained model";
  std::string model_file;
  SentencePieceModel model;
  const auto train_with = [&](std::int64_t most_characters, double rare_share) {
    const std::vector<bool> frequent = frequent_characters(documents, most_characters, rare_share);
    StretchIterator sentences(documents, frequent);
    model_file = run_trainer(sentences, options.vocab_size - specials, options);
    model = parse_sentencepiece_model(model_file, source);
    return static_cast<std::int64_t>(model.pieces.size()) + specials;
  };
  // At most half of the vocabulary goes to characters; a small corpus that runs out of merges may fill it with all of
  // its.
  std::int64_t reached = train_with(room / 2, kRareShare);
  if (reached < options.vocab_size) reached = train_with(room, 0);
  if (reached < options.vocab_size) {
    throw TokenizerError(fmt::format("vocab_size {} is too large for this corpus, which supports at most {}",
                                     options.vocab_size, reached));
  }
  return std::make_shared<const SentencePieceTokenizer>(
      define_sentencepiece(model, std::move(model_file), {kChatSpecialTokens.begin(), kChatSpecialTokens.end()}, source));
}

}  // namespace nanochat
