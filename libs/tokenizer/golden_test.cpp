// Ids of published tokenizers on real and edge-case texts, computed with tiktoken.
#include <zlib.h>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "core/testing.h"
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

TEST_P(GoldenEncodings, EveryRow) {
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
                                           Golden{"gpt2", "gpt2/gpt2.tiktoken"},
                                           Golden{"gpt2", "gpt2/tokenizer.json"},
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

}  // namespace
}  // namespace nanochat
