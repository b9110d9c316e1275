#include "tokenizer/load.h"

#include <gmock/gmock.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/testing.h"
#include "tokenizer/byte_bpe.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

using testing::rank_file;
using testing::small_ranks;
using testing::TemporaryDirectory;
using testing::write_text;

TEST(Load, RankFilesGetNanochatsPatternAndSpecialTokens) {
  const TemporaryDirectory folder;
  write_text(folder / "small.tiktoken", rank_file(small_ranks()));
  const auto tokenizer = load_tokenizer(folder / "small.tiktoken");
  EXPECT_EQ(tokenizer->fingerprint(), ByteBpeTokenizer(testing::small_bpe_definition()).fingerprint());
  EXPECT_EQ(load_tokenizer(folder.path())->fingerprint(), tokenizer->fingerprint());  // its only file
}

TEST(Load, RankFilesTakeOptions) {
  const TemporaryDirectory folder;
  write_text(folder / "ranks.txt", rank_file(small_ranks()));  // known by its contents
  const auto tokenizer = load_tokenizer(folder / "ranks.txt", {.pattern = "gpt2", .special = "none"});
  EXPECT_EQ(tokenizer->vocab_size(), 267);
  EXPECT_EQ(dynamic_cast<const ByteBpeTokenizer&>(*tokenizer).pattern(), kGpt2Pattern);
  EXPECT_EQ(load_tokenizer(folder / "ranks.txt", {.pattern = "x|y", .special = "nanochat"})->vocab_size(), 276);
  EXPECT_ERROR(load_tokenizer(folder / "ranks.txt", {.pattern = "(", .special = ""}), TokenizerError,
               "ranks.txt: split pattern");
  EXPECT_ERROR(load_tokenizer(folder / "ranks.txt", {.pattern = "", .special = "chat"}), ConfigError,
               "special tokens \"chat\": expected nanochat or none");
}

TEST(Load, JsonIsKnownByNameOrContents) {
  const TemporaryDirectory folder;
  ByteBpeTokenizer(testing::small_bpe_definition()).save(folder.path());
  std::filesystem::rename(folder / "tokenizer.json", folder / "renamed");
  EXPECT_EQ(load_tokenizer(folder / "renamed")->vocab_size(), 276);
  EXPECT_EQ(load_tokenizer(folder / "renamed", {.pattern = "nanochat", .special = "none"})->vocab_size(), 276);
  EXPECT_ERROR(load_tokenizer(folder / "renamed", {.pattern = "gpt2", .special = ""}), ConfigError,
               "has a split pattern of its own", "(nanochat)", "which is not \"gpt2\"");
}

TEST(Load, BareModelsTakeSpecialTokens) {
  const TemporaryDirectory folder;
  testing::small_sentencepiece()->save(folder.path());
  std::filesystem::remove(folder / "tokenizer.json");
  EXPECT_EQ(load_tokenizer(folder.path())->vocab_size(), 500);
  EXPECT_EQ(load_tokenizer(folder / "tokenizer.model", {.pattern = "", .special = "none"})->vocab_size(), 491);
  std::filesystem::rename(folder / "tokenizer.model", folder / "renamed");
  EXPECT_EQ(load_tokenizer(folder / "renamed")->type(), "sentencepiece");
}

ByteBpeDefinition with_specials(std::vector<std::string> names) {
  ByteBpeDefinition definition = testing::small_bpe_definition();
  definition.specials = std::move(names);
  return definition;
}

TEST(Load, TheTokenThatBeginsADocumentCanBeNamed) {
  const TemporaryDirectory folder;
  ByteBpeTokenizer(with_specials({"<|begin_of_text|>", "<|end_of_text|>"})).save(folder.path());
  EXPECT_FALSE(load_tokenizer(folder.path())->find_bos());
  EXPECT_ERROR(load_tokenizer(folder.path())->bos_id(), TokenizerError, "--bos-token", "<|begin_of_text|> <|end_of_text|>");
  EXPECT_ERROR(load_tokenizer(folder.path(), {.bos_token = "<s>"}), TokenizerError, "--bos-token", "no special token <s>");
  const auto named = load_tokenizer(folder.path(), {.bos_token = "<|begin_of_text|>"});
  EXPECT_EQ(named->bos_id(), named->require_special("<|begin_of_text|>"));
  // Kept with the tokenizer, so that every later stage agrees.
  const TemporaryDirectory copy;
  named->save(copy.path());
  EXPECT_EQ(load_tokenizer(copy.path())->bos_id(), named->bos_id());
  EXPECT_EQ(load_tokenizer(copy / "tokenizer.json")->bos_id(), named->bos_id());
  EXPECT_EQ(load_tokenizer(copy.path())->fingerprint(), load_tokenizer(folder.path())->fingerprint());
}

TEST(Load, TheTokenThatBeginsADocumentIsTakenFromTheConfiguration) {
  const TemporaryDirectory folder;
  ByteBpeTokenizer(with_specials({"<|endoftext|>", "<s>"})).save(folder.path());
  const auto bos = [&](const std::string& config) {
    write_text(folder / "tokenizer_config.json", config);
    const auto tokenizer = load_tokenizer(folder.path());
    return std::string(tokenizer->token_bytes(tokenizer->bos_id()));
  };
  EXPECT_EQ(bos(R"({"bos_token": "<s>"})"), "<s>");
  EXPECT_EQ(bos(R"({"bos_token": {"__type": "AddedToken", "content": "<s>"}})"), "<s>");
  for (const char* without : {"{}", R"({"bos_token": null})", R"({"bos_token": "<other>"})", R"({"bos_token": 7})", "[]"}) {
    EXPECT_EQ(bos(without), "<|endoftext|>") << without;
  }
  EXPECT_ERROR(bos("{"), DataError, "tokenizer_config.json: malformed JSON");
}

TEST(Load, SaysWhatIsMissing) {
  const TemporaryDirectory folder;
  EXPECT_ERROR(load_tokenizer(folder / "absent"), TokenizerError, "absent: no such file or folder; expected a folder");
  EXPECT_ERROR(load_tokenizer(folder.path()), TokenizerError, "holds no tokenizer.json, tokenizer.model or tokenizer.pkl");
  write_text(folder / "a.tiktoken", "x");
  write_text(folder / "b.tiktoken", "x");
  EXPECT_ERROR(load_tokenizer(folder.path()), TokenizerError, "more than one .tiktoken file");
  write_text(folder / "tokenizer.json", "");
  EXPECT_ERROR(load_tokenizer(folder.path()), TokenizerError, "tokenizer.json: the file is empty");
}

TEST(Load, NamesTheDamagedFile) {
  const TemporaryDirectory folder;
  write_text(folder / "a.tiktoken", "no rank file");
  EXPECT_ERROR(load_tokenizer(folder / "a.tiktoken"), TokenizerError, "a.tiktoken:1: ");
  write_text(folder / "b.tiktoken", "YQ== 0\nYg== 1\n");
  EXPECT_ERROR(load_tokenizer(folder / "b.tiktoken"), TokenizerError, "b.tiktoken: byte 0x00 has no token");
  write_text(folder / "c.json", "{\"model\":");
  EXPECT_ERROR(load_tokenizer(folder / "c.json"), TokenizerError, "c.json: not valid JSON");
  write_text(folder / "d.model", "text");
  EXPECT_ERROR(load_tokenizer(folder / "d.model"), TokenizerError, "d.model: not a sentencepiece model");
  write_text(folder / "e.json",
             R"({"model":{"vocab":{"a":0},"merges":[]},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false}})");
  EXPECT_ERROR(load_tokenizer(folder / "e.json"), TokenizerError, "e.json: byte 0x00 has no token");
}

TEST(Load, ModelAndJsonMustBeOfOneTokenizer) {
  const TemporaryDirectory folder, other;
  testing::small_sentencepiece(500)->save(folder.path());
  testing::small_sentencepiece(450)->save(other.path());
  std::filesystem::copy_file(other / "tokenizer.json", folder / "tokenizer.json",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_ERROR(load_tokenizer(folder.path()), TokenizerError, "has 500 tokens with its special tokens", "beside it has 450");

  TokenizerTrainOptions options;
  options.vocab_size = 450;
  std::vector<std::string> documents = testing::small_corpus();
  documents.resize(30);
  train_sentencepiece(testing::stream_of(documents), options)->save(folder.path());
  std::filesystem::copy_file(other / "tokenizer.json", folder / "tokenizer.json",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_ERROR(load_tokenizer(folder.path()), TokenizerError, "differ at token ");
}

}  // namespace
}  // namespace nanochat
