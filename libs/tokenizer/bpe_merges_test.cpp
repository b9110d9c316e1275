#include "tokenizer/internal/bpe_merges.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <zlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "core/random.h"
#include "core/testing.h"
#include "tokenizer/byte_bpe.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/tiktoken_file.h"
#include "tokenizer/train.h"
#include "tokenizer/word_counts.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using Merges = std::vector<std::pair<TokenId, TokenId>>;

std::string contents_of(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

NextDocument from(std::vector<std::string> documents) {
  return [documents = std::move(documents), next = std::size_t{0}](std::string& document) mutable {
    if (next == documents.size()) return false;
    document = documents[next++];
    return true;
  };
}

// The algorithm as the paper has it: count every pair anew for each merge.
Merges plain_merges(const std::vector<std::string>& words, std::int64_t count) {
  std::vector<std::vector<TokenId>> symbols;
  for (const std::string& word : words) {
    symbols.emplace_back();
    for (const char c : word) symbols.back().push_back(static_cast<std::uint8_t>(c));
  }
  Merges merges;
  while (static_cast<std::int64_t>(merges.size()) < count) {
    std::map<std::pair<TokenId, TokenId>, std::int64_t> counts;
    for (const auto& word : symbols) {
      for (std::size_t i = 0; i + 1 < word.size(); ++i) ++counts[{word[i], word[i + 1]}];
    }
    // std::map is ascending, so the first among equals is the smallest pair.
    const auto best = std::max_element(counts.begin(), counts.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    if (best == counts.end()) break;
    const auto id = static_cast<TokenId>(256 + merges.size());
    merges.push_back(best->first);
    for (auto& word : symbols) {
      std::vector<TokenId> merged;
      for (std::size_t i = 0; i < word.size(); ++i) {
        const bool here = i + 1 < word.size() && word[i] == best->first.first && word[i + 1] == best->first.second;
        merged.push_back(here ? id : word[i]);
        if (here) ++i;
      }
      word = std::move(merged);
    }
  }
  return merges;
}

TEST(LearnMerges, EqualsThePlainAlgorithm) {
  const Pretokenizer words("[^ ]+");
  EXPECT_TRUE(rc::check([&](std::uint64_t seed) {
    Rng rng(seed);
    // Two letters make overlapping and repeated pairs, and ties.
    const std::uint64_t letters = 2 + rng.below(3);
    std::vector<std::string> pieces;
    std::string text;
    for (std::uint64_t i = 0, n = 1 + rng.below(40); i < n; ++i) {
      pieces.emplace_back();
      for (std::uint64_t j = 0, m = 1 + rng.below(12); j < m; ++j) {
        pieces.back() += static_cast<char>('a' + rng.below(letters));
      }
      text += pieces.back() + ' ';
    }
    WordCounts counts(words, 1 << 20, 2);
    counts.add({text});
    RC_ASSERT(learn_merges(counts, 60) == plain_merges(pieces, 60));
  }));
}

TEST(LearnMerges, EndsWhereNoPairIsLeftAndTellsHowFarItIs) {
  const Pretokenizer words("[^ ]+");
  WordCounts counts(words, 1 << 20, 1);
  counts.add({"aa b aaaa"});
  EXPECT_EQ(learn_merges(counts, 10), (Merges{{'a', 'a'}, {256, 256}}));
  WordCounts none(words, 1 << 20, 1);
  EXPECT_TRUE(learn_merges(none, 10).empty());

  std::string text;
  Rng rng(1);
  for (int i = 0; i < 30000; ++i) text += static_cast<char>('a' + rng.below(26));
  WordCounts many(words, 1 << 24, 1);
  many.add({text});
  std::vector<std::int64_t> reports;
  EXPECT_EQ(learn_merges(many, 600, [&](std::int64_t done) { reports.push_back(done); }).size(), 600U);
  EXPECT_EQ(reports, (std::vector<std::int64_t>{256, 512}));
}

TEST(WordCounts, CountsWhateverTheThreadsAndDropsTheRarest) {
  const Pretokenizer words("[^ ]+");
  std::vector<std::string> documents;
  Rng rng(3);
  for (int i = 0; i < 200; ++i) {
    documents.emplace_back();
    for (int j = 0; j < 200; ++j) documents.back() += "w" + std::to_string(rng.below(1 + rng.below(5000))) + " ";
  }
  const auto collect = [&](int threads, std::size_t max_bytes, std::size_t& dropped) {
    WordCounts counts(words, max_bytes, threads);
    counts.add({documents.begin(), documents.begin() + 100});
    counts.add({documents.begin() + 100, documents.end()});
    std::map<std::string, std::int64_t> found;
    for (const StringCounts& shard : counts.shards()) {
      for (const auto& entry : shard.entries()) found[std::string(shard.text(entry))] = entry.count;
    }
    dropped = counts.dropped();
    return found;
  };
  std::map<std::string, std::int64_t> expected;
  for (const std::string& document : documents) {
    std::istringstream stream(document);
    for (std::string word; stream >> word;) ++expected[word];
  }
  std::size_t dropped = 0;
  EXPECT_EQ(collect(1, 1 << 30, dropped), expected);
  EXPECT_EQ(dropped, 0U);
  EXPECT_EQ(collect(3, 1 << 30, dropped), expected);
  std::size_t dropped_again = 0;
  const auto few = collect(1, 60000, dropped), again = collect(4, 60000, dropped_again);
  EXPECT_GT(dropped, 100U);
  EXPECT_EQ(dropped, dropped_again);
  EXPECT_EQ(few, again);
  EXPECT_TRUE(few.contains("w0")) << "frequent words stay";
}

TEST(StringCounts, AddsUpAndForgets) {
  StringCounts counts;
  for (int i = 0; i < 1000; ++i) {
    const std::string word = std::to_string(i % 300);
    counts.add(word, hash_bytes(word), 1);
  }
  EXPECT_EQ(counts.size(), 300U);
  EXPECT_GT(counts.bytes(), 300U * 20);
  counts.drop_rare(3);
  EXPECT_EQ(counts.size(), 100U);  // 0 to 99 came four times
  EXPECT_EQ(counts.text(counts.entries()[7]), "7");
  EXPECT_NE(hash_bytes("abcdefgh"), hash_bytes("abcdefgi"));
  EXPECT_NE(hash_bytes("a"), hash_bytes(std::string_view("a\0", 2)));
}

// Ranks that rustbpe found on the same text.
void expect_ranks(const NextDocument& next, const fs::path& rank_file) {
  const std::vector<std::string> ranks = parse_tiktoken_ranks(contents_of(rank_file), rank_file.string());
  TokenizerTrainOptions options;
  options.vocab_size = static_cast<std::int64_t>(ranks.size() + kChatSpecialTokens.size());
  options.max_document_bytes = 1 << 30;
  const auto tokenizer = train_byte_bpe(next, options);
  for (std::size_t id = 0; id < ranks.size(); ++id) {
    ASSERT_EQ(tokenizer->token_bytes(static_cast<TokenId>(id)), ranks[id]) << "token " << id;
  }
}

TEST(TrainByteBpe, ReproducesRustbpeOnShakespeare) {
  NANOCHAT_SHARED_OR_SKIP(shared, "data/tokenizers/rustbpe_train");
  expect_ranks(from({contents_of(shared.parent_path().parent_path() / "pretrain/tinyshakespeare.txt")}),
               shared / "tinyshakespeare_v1024.tiktoken");
}

TEST(TrainByteBpe, ReproducesRustbpeOnWebText) {
  NANOCHAT_SHARED_OR_SKIP(shared, "data/tokenizers/rustbpe_train");
  const fs::path corpus = shared.parent_path().parent_path() / "pretrain/c4_demo.jsonl.gz";
  std::vector<std::string> documents;
  const gzFile file = gzopen(corpus.c_str(), "rb");
  ASSERT_NE(file, nullptr);
  std::string line(1 << 20, '\0');
  while (gzgets(file, line.data(), static_cast<int>(line.size())) != nullptr) {
    documents.push_back(nlohmann::json::parse(line.c_str()).at("text"));
  }
  gzclose(file);
  ASSERT_EQ(documents.size(), 300U);
  expect_ranks(from(documents), shared / "c4_demo_v4096.tiktoken");
}

std::string numbered(std::uint64_t seed) {
  Rng rng(seed);
  std::string text;
  for (int i = 0; i < 3000; ++i)
    text += (rng.below(7) == 0 ? "\n" : " ") + std::to_string(rng.below(500)) + "x" + std::to_string(rng.below(50));
  return text;
}

TEST(TrainByteBpe, GivesATokenizerThatRoundTripsWhateverTheThreads) {
  TokenizerTrainOptions options;
  options.vocab_size = 330;
  options.threads = 1;
  const auto one = train_byte_bpe(from({numbered(1), numbered(2)}), options);
  options.threads = 3;
  const auto three = train_byte_bpe(from({numbered(1), numbered(2)}), options);
  EXPECT_EQ(one->vocab_size(), 330);
  EXPECT_EQ(one->fingerprint(), three->fingerprint());
  const std::string text = numbered(3);
  EXPECT_EQ(one->decode(one->encode(text)), text);
  EXPECT_LT(one->encode(text).size(), text.size());
  EXPECT_EQ(one->special_tokens().front(), "<|bos|>");
}

TEST(TrainByteBpe, CutsDocumentsAndStopsAtMaxBytes) {
  TokenizerTrainOptions options;
  options.vocab_size = 266;  // one merge
  options.max_document_bytes = 4;
  EXPECT_EQ(train_byte_bpe(from({"aabbbbbbbb"}), options)->token_bytes(256), "aa");
  options.max_document_bytes = 1000;
  options.max_bytes = 4;
  EXPECT_EQ(train_byte_bpe(from({"aaa", "bbbbbbbbb"}), options)->token_bytes(256), "aa");
}

TEST(TrainByteBpe, SaysWhatIsWrong) {
  const auto message = [](const NextDocument& next, const TokenizerTrainOptions& options) {
    try {
      train_byte_bpe(next, options);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  TokenizerTrainOptions options;
  EXPECT_NE(message(from({}), options).find("empty"), std::string::npos);
  EXPECT_NE(message(from({"ab ab"}), options).find("at most 267"), std::string::npos);
  options.vocab_size = 264;
  EXPECT_NE(message(from({"ab"}), options).find("expected 265"), std::string::npos);
  options = {};
  options.pattern = "(";
  EXPECT_NE(message(from({"ab"}), options).find("does not compile"), std::string::npos);
  options = {};
  options.max_document_bytes = 3;
  EXPECT_NE(message(from({"ab"}), options).find("max_document_bytes"), std::string::npos);
}

}  // namespace
}  // namespace nanochat
