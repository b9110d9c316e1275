#include "checkpoint/export.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "checkpoint/import.h"
#include "checkpoint/testing.h"
#include "checkpoint/torch_file.h"
#include "core/atomic_file.h"
#include "core/errors.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ExportTest : public ::testing::Test {
 protected:
  // Writes a checkpoint of this shape and keeps its model.
  void make(GptConfig config, std::shared_ptr<const Tokenizer> tokenizer) {
    if (tokenizer != nullptr) config.vocab_size = tokenizer->vocab_size();
    model_ = std::make_unique<Gpt>(testing::small_model(config));
    tokenizer_ = std::move(tokenizer);
    CheckpointContents contents;
    contents.config = &model_->config();
    contents.weights = model_weights(*model_);
    contents.tokenizer = tokenizer_.get();
    contents.training_state = {{"step", 77}};
    save_checkpoint(checkpoint_, contents);
  }
  static GptConfig reference_shape() {
    GptConfig config = testing::small_config();
    config.intermediate_size = 4 * config.n_embd;
    config.rope_table_bf16 = true;
    return config;
  }
  static std::shared_ptr<const Tokenizer> bpe() { return std::make_shared<ByteBpeTokenizer>(testing::small_bpe_definition()); }
  // Imports what was exported and compares everything.
  void expect_circle(const fs::path& exported, at::ScalarType tables = at::kFloat, at::ScalarType rest = at::kFloat) {
    ImportOptions options;
    options.overwrite = true;
    import_checkpoint(exported, temporary_ / "back", options);
    const LoadedModel back = load_model(temporary_ / "back", at::kFloat);
    EXPECT_EQ(back.model->config(), model_->config());
    for (std::size_t i = 0; i < model_->parameters().size(); ++i) {
      const at::Tensor expected = model_->parameters()[i].value.to(i == 0 ? tables : rest).to(at::kFloat);
      EXPECT_TRUE(at::equal(back.model->parameters()[i].value, expected)) << model_->parameters()[i].name;
    }
    ASSERT_EQ(back.tokenizer == nullptr, tokenizer_ == nullptr);
    if (tokenizer_ != nullptr) {
      EXPECT_EQ(back.tokenizer->fingerprint(), tokenizer_->fingerprint());
    }
    if (tables != at::kFloat) return;
    const at::Tensor ids = at::arange(20, at::kInt).view({1, 20});
    EXPECT_TRUE(at::equal(back.model->forward(ids), load_model(checkpoint_, at::kFloat).model->forward(ids)));
  }
  testing::TemporaryDirectory temporary_;
  fs::path checkpoint_ = temporary_ / "checkpoint", output_ = temporary_ / "exported";
  std::unique_ptr<Gpt> model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST_F(ExportTest, HuggingFaceFolder) {
  make(testing::small_config(), bpe());
  const ExportResult result = export_hugging_face(checkpoint_, output_);
  EXPECT_THAT(result.notes, IsEmpty());
  EXPECT_THAT(result.files,
              ElementsAre(output_ / "config.json", output_ / "generation_config.json", output_ / "model.safetensors",
                          output_ / "tokenizer.json", output_ / "tokenizer_config.json"));
  expect_circle(output_);
  EXPECT_THROW(export_hugging_face(checkpoint_, output_), ConfigError) << "it is there already";
  ExportOptions options;
  options.overwrite = true;
  options.dtype = at::kBFloat16;
  options.max_shard_bytes = 20'000;
  EXPECT_THAT(export_hugging_face(checkpoint_, output_, options).files, SizeIs(::testing::Gt(8)));
  EXPECT_FALSE(fs::exists(output_ / "model.safetensors"));
  EXPECT_EQ(json::parse(read_file(output_ / "config.json")).at("dtype"), "bfloat16");
  expect_circle(output_, at::kBFloat16, at::kBFloat16);
}

TEST_F(ExportTest, KeepsSentencepieceTokenizers) {
  make(reference_shape(), testing::small_sentencepiece());
  EXPECT_THAT(export_hugging_face(checkpoint_, output_).notes, ElementsAre(HasSubstr("rotary tables in float32")));
  expect_circle(output_);
  EXPECT_THAT(export_reference(checkpoint_, temporary_ / "pt").notes, ElementsAre(HasSubstr("no sentencepiece")));
  expect_circle(temporary_ / "pt");
  EXPECT_THROW(export_tiktoken(checkpoint_, temporary_ / "a.tiktoken"), TokenizerError);
}

TEST_F(ExportTest, WritesTheFilesOfTheReference) {
  make(reference_shape(), bpe());
  const ExportResult result = export_reference(checkpoint_, output_);
  EXPECT_THAT(result.notes, IsEmpty());
  EXPECT_THAT(result.files, ElementsAre(output_ / "model_000077.pt", output_ / "meta_000077.json", output_ / "tokenizer.pkl"));
  const json meta = json::parse(read_file(output_ / "meta_000077.json"));
  EXPECT_EQ(meta.at("model_config"),
            (json{{"sequence_len", 32}, {"vocab_size", 276}, {"n_layer", 2}, {"n_head", 4}, {"n_kv_head", 2}, {"n_embd", 32}}));
  const TorchFile file(output_ / "model_000077.pt");
  EXPECT_EQ(file.entries().size(), 14U);
  EXPECT_EQ(file.entry("transformer.wte.weight").shape, (std::vector<std::int64_t>{320, 32}));
  EXPECT_EQ(file.entry("transformer.h.1.attn.c_k.weight").shape, (std::vector<std::int64_t>{16, 32}));
  EXPECT_EQ(file.entry("transformer.h.1.mlp.c_proj.weight").shape, (std::vector<std::int64_t>{32, 128}));
  EXPECT_TRUE(file.contains("lm_head.weight"));
  EXPECT_EQ(file.dtype_text(), "F32");
  expect_circle(output_);

  EXPECT_THROW(export_reference(checkpoint_, output_), ConfigError) << "it is there already";
  ExportOptions options;
  options.step = 3;
  options.dtype = at::kBFloat16;
  export_reference(checkpoint_, output_, options);
  EXPECT_EQ(TorchFile(output_ / "model_000003.pt").entry("transformer.wte.weight").dtype, at::kBFloat16);
  EXPECT_EQ(TorchFile(output_ / "model_000003.pt").entry("lm_head.weight").dtype, at::kFloat);
  expect_circle(output_ / "model_000003.pt", at::kBFloat16, at::kFloat);
}

TEST_F(ExportTest, RefusesWhatTheReferenceWouldComputeOtherwise) {
  const auto refused = [&](const std::function<void(GptConfig&)>& change) {
    GptConfig config = reference_shape();
    change(config);
    make(config, nullptr);
    try {
      const ExportResult result = export_reference(checkpoint_, output_);
      expect_circle(output_);
      fs::remove_all(output_);
      return result.notes.empty() ? std::string() : "note: " + result.notes[0];
    } catch (const CheckpointError& error) {
      EXPECT_FALSE(fs::exists(output_));
      return std::string(error.what());
    }
  };
  EXPECT_EQ(refused([](GptConfig&) {}), "");
  EXPECT_THAT(refused([](GptConfig& c) { c.intermediate_size = 96; }),
              HasSubstr("intermediate_size is 96, but the reference computes with 128 only"));
  EXPECT_THAT(refused([](GptConfig& c) { c.rope_base = 5e5; }), HasSubstr("rope_base is 500000"));
  EXPECT_THAT(refused([](GptConfig& c) { c.softcap = 0; }), HasSubstr("softcap is 0"));
  EXPECT_THAT(refused([](GptConfig& c) { c.rope_table_bf16 = false; }), HasSubstr("note: the reference rounds rotary tables"));
  EXPECT_EQ(refused([](GptConfig& c) { c.rms_norm_eps = 1e-5; }), "") << "kept in the file for importing it again";
}

TEST_F(ExportTest, WritesRankFilesThatLoadAsTheSameTokenizer) {
  make(testing::small_config(), bpe());
  const ExportResult result = export_tiktoken(checkpoint_, temporary_ / "ranks/a.tiktoken");
  EXPECT_THAT(result.notes, IsEmpty());
  EXPECT_EQ(read_file(temporary_ / "ranks/a.tiktoken"), testing::rank_file(testing::small_ranks()));
  EXPECT_EQ(load_tokenizer(temporary_ / "ranks/a.tiktoken")->fingerprint(), tokenizer_->fingerprint());
  EXPECT_THROW(export_tiktoken(checkpoint_, temporary_ / "ranks/a.tiktoken"), ConfigError);

  ByteBpeDefinition definition = testing::small_bpe_definition("cl100k");
  definition.specials = {"<|endoftext|>"};
  ByteBpeTokenizer(definition).save(temporary_.path());
  EXPECT_THAT(export_tiktoken(temporary_ / "tokenizer.json", temporary_ / "b.tiktoken").notes,
              ElementsAre(HasSubstr("--pattern 'cl100k'"), HasSubstr("does not say its special tokens")));
}

TEST_F(ExportTest, RefusesDamage) {
  make(reference_shape(), nullptr);
  std::string bytes = read_file(checkpoint_ / "model.safetensors");
  bytes.back() ^= 1;
  testing::write_text(checkpoint_ / "model.safetensors", bytes);
  EXPECT_THROW(export_hugging_face(checkpoint_, output_), CheckpointError);
  EXPECT_THROW(export_reference(checkpoint_, output_), CheckpointError);
  EXPECT_FALSE(fs::exists(output_));
}

}  // namespace
}  // namespace nanochat
