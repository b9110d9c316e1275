// Ids of published tokenizers on real and edge-case texts, computed with tiktoken.
#include <zlib.h>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/atomic_file.h"
#include "core/sha256.h"
#include "core/testing.h"
#include "core/utf8.h"
#include "tokenizer/byte_bpe.h"
#include "tokenizer/load.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

std::string read_gzip(const std::filesystem::path& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) throw std::runtime_error("cannot open " + path.string());
  std::string contents;
  std::vector<char> buffer(1 << 16);
  for (int got = 0; (got = gzread(file, buffer.data(), static_cast<unsigned>(buffer.size()))) > 0;) {
    contents.append(buffer.data(), static_cast<std::size_t>(got));
  }
  gzclose(file);
  return contents;
}

struct Golden {
  const char* name;
  const char* file;
};

class GoldenEncodings : public ::testing::TestWithParam<Golden> {};

TEST_P(GoldenEncodings, EveryRowHasThePublishedIds) {
  NANOCHAT_SHARED_OR_SKIP(golden, "data/tokenizers/golden_encodings.jsonl.gz");
  NANOCHAT_SHARED_OR_SKIP(file, std::string("data/tokenizers/") + GetParam().file);
  const auto tokenizer = load_tokenizer(file);
  std::istringstream lines(read_gzip(golden));
  int rows = 0;
  for (std::string line; std::getline(lines, line); ++rows) {
    const auto row = nlohmann::json::parse(line);
    const auto text = row.at("text").get<std::string>();
    const auto ids = tokenizer->encode(text);
    EXPECT_EQ(ids, row.at(GetParam().name).get<std::vector<TokenId>>()) << text;
    EXPECT_EQ(tokenizer->decode(ids), text);
  }
  EXPECT_EQ(rows, 105);
}

INSTANTIATE_TEST_SUITE_P(Published, GoldenEncodings,
                         ::testing::Values(Golden{"nanochat", "nanochat_ms/nanochat.tiktoken"},
                                           Golden{"nanochat", "nanochat_ms/tokenizer.pkl"},
                                           Golden{"gpt2", "gpt2/gpt2.tiktoken"}, Golden{"gpt2", "gpt2/tokenizer.json"},
                                           Golden{"cl100k", "cl100k_base/cl100k_base.tiktoken"}),
                         [](const auto& test) { return test.param.name + std::to_string(test.index); });

TEST(Published, FilesAreKnownByTheirSha256) {
  NANOCHAT_SHARED_OR_SKIP(gpt2, "data/tokenizers/gpt2/gpt2.tiktoken");
  NANOCHAT_SHARED_OR_SKIP(cl100k, "data/tokenizers/cl100k_base/cl100k_base.tiktoken");
  NANOCHAT_SHARED_OR_SKIP(nanochat, "data/tokenizers/nanochat_ms/nanochat.tiktoken");
  const auto expect = [](const auto& path, std::string_view pattern, std::int64_t vocab_size) {
    const auto tokenizer = load_tokenizer(path);
    EXPECT_EQ(dynamic_cast<const ByteBpeTokenizer&>(*tokenizer).pattern(), pattern);
    EXPECT_EQ(tokenizer->vocab_size(), vocab_size);
  };
  expect(gpt2, kGpt2Pattern, 50256);
  expect(cl100k, kCl100kPattern, 100256);
  expect(nanochat, kNanochatPattern, 65536);
  EXPECT_EQ(load_tokenizer(gpt2, {.pattern = "", .special = "nanochat"})->bos_id(), 50256);
}

TEST(Published, RanksAndJsonOfGpt2HaveTheSameMerges) {
  NANOCHAT_SHARED_OR_SKIP(ranks, "data/tokenizers/gpt2/gpt2.tiktoken");
  NANOCHAT_SHARED_OR_SKIP(json, "data/tokenizers/gpt2/tokenizer.json");
  const auto from_ranks = load_tokenizer(ranks), from_json = load_tokenizer(json);
  const auto& a = dynamic_cast<const ByteBpeTokenizer&>(*from_ranks).merges();
  const auto& b = dynamic_cast<const ByteBpeTokenizer&>(*from_json).merges();
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].left, b[i].left);
    ASSERT_EQ(a[i].right, b[i].right);
    ASSERT_EQ(a[i].result, b[i].result);
  }
  EXPECT_EQ(from_json->bos_id(), 50256);
}

TEST(Published, SavedAsJsonTheyLoadAsTheSame) {
  NANOCHAT_SHARED_OR_SKIP(nanochat, "data/tokenizers/nanochat_ms/nanochat.tiktoken");
  const auto tokenizer = load_tokenizer(nanochat);
  const testing::TemporaryDirectory folder;
  tokenizer->save(folder.path());
  EXPECT_EQ(load_tokenizer(folder.path())->fingerprint(), tokenizer->fingerprint());
}

// Ids of the PyPI package tokenizers 0.23 with encode_special_tokens: how many, and the SHA-256 of "1 2 3".
struct PackageIds {
  const char* tokenizer;
  const char* text;
  std::size_t count;
  const char* sha256;
};
constexpr PackageIds kPackageIds[] = {
    {"qwen2", "botchan.txt", 105253, "3c6ad8738310562b111a8ed52a3c803cd72f234e982a573dcb384f47d10bbb5a"},
    {"qwen2", "moby_dick.txt", 108691, "ae3b88980cb44a8df9dcf561f0b265b4e037bcdf8dbf3772f51de62f78e30916"},
    {"qwen2", "pride_and_prejudice.txt", 106386, "19bcdcd37f2bcf5d47883715afcbcc828f5ffd5d34c114b5342f506efd0b0ee5"},
    {"qwen2", "state_union.txt", 104257, "dc3d5c11abe75f412d46b3f5eaccc67da32a0c31f3b3be99dc8390fd874711da"},
    {"qwen2", "the-verdict.txt", 10752, "18e917f5b3c320583a391cc27ab23672acdb3fff367954b727ad4df6c7fa57a8"},
    {"qwen2", "tinyshakespeare.txt", 112662, "6a81c382f9196bea5178c9b4eb3949cab928db45a79fcd837bcd9016c1041a7d"},
    {"qwen2", "war_and_peace.txt", 110872, "b100b4286011b543275589f728f3e7f15e554cde0efae815870b534c4266aba2"},
    {"qwen2", "wiki_demo.txt", 109575, "8e5392f3257bfb30c5e00928bd09674a7bc63df9d0a7dc1e3179fcaa4fc37421"},
    {"qwen2", "wikitext-2-test.txt", 113705, "88318ce63abb375b598ec2ff8d9d476fb0c092cf016d6fb39905772f3e1b8eef"},
    {"qwen2", "wikitext-2-valid.txt", 114182, "3565f25bf126a514da02bd833d4fddc1d2afd5241420f9370f3ce6b9c40a2366"},
    {"deepseek", "botchan.txt", 105167, "966ed96a349b25e7e5a86589f2e2c9a266c0d3ae1aba14a876c9ac1c53830117"},
    {"deepseek", "moby_dick.txt", 108599, "30a0ba394df85765b78408873116c3f01e2e898f08024bb2d5b8d8cf02a16a3d"},
    {"deepseek", "pride_and_prejudice.txt", 106291, "9f61f440542d97b20ecb72d1e5f9d20d650c793a64ada2868f937780380c0a6b"},
    {"deepseek", "state_union.txt", 104143, "ce3c5278ff770de741ad1e73e5c1d06e3081d12321ba6a215f2df8d83a530f31"},
    {"deepseek", "the-verdict.txt", 10740, "0bafb7fd11be610a263dcb010b1f39a0c90b5d056baa3663ea5fc6cf4e39d56e"},
    {"deepseek", "tinyshakespeare.txt", 112598, "4d89ae03659e1da72d1705a9428a0f61336d6d2315bc3b4f8813c8056639c141"},
    {"deepseek", "war_and_peace.txt", 110770, "b0a26a8457a1c9ad96bd3e10a030c375dc4a7991dc5f3987b3d57c6674af763e"},
    {"deepseek", "wiki_demo.txt", 109328, "dc0b2057acafaa2b4c0de8da1dbb4877f4517eee616dfdc63fbb6e81c58f8c75"},
    {"deepseek", "wikitext-2-test.txt", 113521, "be9a0d1ffa6454973bddd8454d0e29c4ba16bfc5faefd5bc6380de5ee97bc531"},
    {"deepseek", "wikitext-2-valid.txt", 114036, "917c6dea4317292b6cd69703e1e803b4479a1aea12ef9916b3d9c6bc7c471f58"},
};

// With NFC, and with several splits: the first 200,000 bytes of each text, here and after saving.
TEST(Published, TokenizersOfOthersGiveThePackagesIds) {
  for (const PackageIds& expected : kPackageIds) {
    NANOCHAT_SHARED_OR_SKIP(folder, std::string("cases/tok/") + expected.tokenizer);
    NANOCHAT_SHARED_OR_SKIP(file, std::string("data/pretrain/") + expected.text);
    std::string text = read_file(file).substr(0, 200'000);
    text.resize(text.size() - utf8::incomplete_tail(text));
    const auto tokenizer = load_tokenizer(folder);
    const testing::TemporaryDirectory again;
    tokenizer->save(again.path());
    const auto saved = load_tokenizer(again.path());
    EXPECT_EQ(saved->fingerprint(), tokenizer->fingerprint());
    for (const Tokenizer* one : {tokenizer.get(), saved.get()}) {
      const std::vector<TokenId> ids = one->encode(text);
      EXPECT_EQ(ids.size(), expected.count) << expected.tokenizer << " " << expected.text;
      EXPECT_EQ(sha256_hex(fmt::format("{}", fmt::join(ids, " "))), expected.sha256)
          << expected.tokenizer << " " << expected.text;
    }
  }
}

}  // namespace
}  // namespace nanochat
