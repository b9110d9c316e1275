#pragma once
// For tests only: small tokenizers made on the spot, and the ids of a naive encoder to compare with.

#include <memory>
#include <string>
#include <vector>

#include "tokenizer/byte_bpe.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/train.h"

namespace nanochat::testing {

// All bytes in order, then a few merged tokens; id 256 + i is kSmallMerged[i].
inline const std::vector<std::string> kSmallMerged = {"th", "he",   "the",      " the", "in",  "ing",
                                                      "aa", "aaaa", "\xC3\xA9", "  ",   "\n\n"};

inline std::vector<std::string> small_ranks() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(std::string(1, static_cast<char>(byte)));
  tokens.insert(tokens.end(), kSmallMerged.begin(), kSmallMerged.end());
  return tokens;
}

inline ByteBpeDefinition small_bpe_definition(const std::string& pattern = "nanochat") {
  ByteBpeDefinition definition;
  definition.pattern = pattern;
  definition.tokens = small_ranks();
  definition.specials = {kChatSpecialTokens.begin(), kChatSpecialTokens.end()};
  definition.merges = merges_from_ranks(definition.tokens);
  return definition;
}

inline std::string base64(const std::string& bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t j = 0; j < 3; ++j)
      bits = bits << 8 | (i + j < bytes.size() ? static_cast<std::uint8_t>(bytes[i + j]) : 0U);
    for (std::size_t j = 0; j < 4; ++j) text += i + j <= bytes.size() ? kDigits[bits >> (18 - 6 * j) & 63] : '=';
  }
  return text;
}

inline std::string rank_file(const std::vector<std::string>& tokens) {
  std::string lines;
  for (std::size_t rank = 0; rank < tokens.size(); ++rank) lines += base64(tokens[rank]) + " " + std::to_string(rank) + "\n";
  return lines;
}

// A few hundred documents with words, numbers, line breaks, indentation, accents and two scripts.
inline std::vector<std::string> small_corpus() {
  const std::vector<std::string> subjects = {"The old sailor", "A little girl", "My neighbour", "Жёлтый кот", "The café owner"};
  const std::vector<std::string> verbs = {"watched", "remembered", "painted", "is looking for", "could not find"};
  const std::vector<std::string> objects = {"the ships in the harbour", "a letter from 1984", "three red apples",
                                            "her naïve friend"};
  std::vector<std::string> documents;
  for (std::size_t i = 0; i < 300; ++i) {
    std::string text;
    for (std::size_t j = 0; j < 6; ++j) {
      const std::size_t k = 7 * i + 3 * j;
      text += subjects[k % 5] + " " + verbs[(k / 5 + i) % 5] + " " + objects[(k + j) % 4];
      text += j % 3 == 2 ? ".\n\n" : j % 3 == 1 ? ",\n    " : "; ";
    }
    documents.push_back(text + "Chapter " + std::to_string(i * 37) + "\tEnd\r\n");
  }
  return documents;
}

inline std::function<bool(std::string&)> stream_of(std::vector<std::string> documents) {
  auto index = std::make_shared<std::size_t>(0);
  auto held = std::make_shared<std::vector<std::string>>(std::move(documents));
  return [index, held](std::string& document) {
    if (*index == held->size()) return false;
    document = (*held)[(*index)++];
    return true;
  };
}

inline std::shared_ptr<const Tokenizer> small_sentencepiece(std::int64_t vocab_size = 500) {
  TokenizerTrainOptions options;
  options.vocab_size = vocab_size;
  options.threads = 1;
  return train_sentencepiece(stream_of(small_corpus()), options);
}

}  // namespace nanochat::testing

// The statement throws `type` and its message contains every one of the strings that follow.
#define EXPECT_ERROR(statement, type, ...)                                  \
  try {                                                                     \
    statement;                                                              \
    ADD_FAILURE() << "expected an error";                                   \
  } catch (const type& error) {                                             \
    for (const std::string& part : std::vector<std::string>{__VA_ARGS__}) { \
      EXPECT_THAT(error.what(), ::testing::HasSubstr(part));                \
    }                                                                       \
  }
