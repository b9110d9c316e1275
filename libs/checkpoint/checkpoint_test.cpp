#include "checkpoint/checkpoint.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>

#include "checkpoint/checkpoint_files.h"
#include "checkpoint/model_config.h"
#include "checkpoint/run_folder.h"
#include "checkpoint/testing.h"
#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/sha256.h"
#include "core/testing_memory.h"
#include "tokenizer/special_tokens.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

at::Tensor some_ids(std::int64_t vocab_size) {
  return at::arange(24, at::kInt).mul(11).remainder(vocab_size).to(at::kInt).view({2, 12}).contiguous();
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const CheckpointError& error) {
    return error.what();
  }
  return "";
}

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointContents contents() {
    CheckpointContents result;
    result.config = &model_.config();
    result.weights = model_weights(model_);
    result.optimizer = {{"a.exp_avg", at::randn({3, 2})}, {"a.exp_avg_sq", at::randn({3, 2})}};
    result.tokenizer = tokenizer_.get();
    result.training_state = {{"step", 12}, {"stage", "pretrain"}, {"loader", {{"shard", 3}}}};
    return result;
  }
  std::string load_error(const fs::path& path) {
    return message_of([&] { load_model(path, at::kFloat); });
  }
  // Changes one file of the saved checkpoint, which then has no list of hashes that would notice first.
  void change_config(const std::function<void(json&)>& change) {
    json config = json::parse(read_file(folder_ / "config.json"));
    change(config);
    testing::write_text(folder_ / "config.json", config.dump());
  }

  testing::TemporaryDirectory temporary_;
  fs::path folder_ = temporary_ / "step-000012";
  Gpt model_ = testing::small_model();
  std::shared_ptr<const Tokenizer> tokenizer_ = testing::byte_tokenizer(temporary_.path());
};

TEST_F(CheckpointTest, LoadingGivesBackWhatWasSaved) {
  save_checkpoint(folder_, contents());
  LoadedModel loaded = load_model(folder_, at::kFloat);
  EXPECT_EQ(loaded.folder, fs::canonical(folder_));
  EXPECT_EQ(loaded.model->config(), model_.config());
  ASSERT_EQ(loaded.model->parameters().size(), model_.parameters().size());
  for (std::size_t i = 0; i < model_.parameters().size(); ++i) {
    EXPECT_EQ(loaded.model->parameters()[i].name, model_.parameters()[i].name);
    EXPECT_TRUE(loaded.model->parameters()[i].value.equal(model_.parameters()[i].value)) << model_.parameters()[i].name;
  }
  const at::Tensor ids = some_ids(265);
  EXPECT_TRUE(loaded.model->forward(ids).equal(model_.forward(ids)));
  ASSERT_NE(loaded.tokenizer, nullptr);
  EXPECT_EQ(loaded.tokenizer->fingerprint(), tokenizer_->fingerprint());
  EXPECT_EQ(loaded.training_state.at("step"), 12);
  EXPECT_EQ(loaded.training_state.at("loader"), json({{"shard", 3}}));
  EXPECT_EQ(loaded.training_state.at("format_version"), kTrainingStateVersion);
  EXPECT_TRUE(loaded.training_state.at("versions").contains("libtorch"));
}

TEST_F(CheckpointTest, ATrainingStateIsCheckedAsItIsRead) {
  save_checkpoint(folder_, contents());
  const fs::path file = folder_ / "training_state.json";
  std::string text = read_file(file);
  EXPECT_EQ(parse_training_state(text, file), load_model(folder_, at::kFloat).training_state);
  const std::size_t step = text.find("12", text.find("\"step\""));
  ASSERT_NE(step, std::string::npos);
  text[step] = '2';
  EXPECT_THAT([&] { parse_training_state(text, file); }, ThrowsMessage<CheckpointError>(HasSubstr(file.string())));
  EXPECT_THAT([&] { parse_training_state("{", "somewhere"); }, ThrowsMessage<CheckpointError>(HasSubstr("somewhere")));
}

TEST_F(CheckpointTest, FolderHoldsWhatOthersLookFor) {
  save_checkpoint(folder_, contents());
  const json config = json::parse(read_file(folder_ / "config.json"));
  EXPECT_EQ(config.at("vocab_size"), 320);
  EXPECT_EQ(config.at("bos_token_id"), tokenizer_->require_special(kBos));
  EXPECT_EQ(config.at("eos_token_id"), tokenizer_->require_special(kAssistantEnd));
  EXPECT_EQ(json::parse(read_file(folder_ / "generation_config.json")).at("bos_token_id"), config.at("bos_token_id"));
  EXPECT_TRUE(json::parse(read_file(folder_ / "tokenizer_config.json")).contains("chat_template"));
  const SafetensorsFile weights(folder_ / "model.safetensors");
  EXPECT_EQ(weights.metadata().at("format"), "pt");
  EXPECT_EQ(weights.entry("lm_head.weight").shape, (std::vector<std::int64_t>{320, 32}));

  const json hashes = json::parse(read_file(folder_ / "training_state.json")).at("sha256");
  std::size_t files = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    if (name == "training_state.json") continue;
    EXPECT_EQ(hashes.at(name), sha256_hex_of_file(entry.path())) << name;
    ++files;
  }
  EXPECT_EQ(hashes.size(), files);
  EXPECT_EQ(verify_checkpoint(folder_), files);
  EXPECT_GE(files, 6u);
}

TEST_F(CheckpointTest, OptimizerStateComesBack) {
  const CheckpointContents saved = contents();
  save_checkpoint(folder_, saved);
  NamedTensors state = {{"a.exp_avg", at::zeros({3, 2})}, {"a.exp_avg_sq", at::zeros({3, 2})}};
  load_optimizer_state(folder_, state);
  EXPECT_TRUE(state[0].second.equal(saved.optimizer[0].second));
  EXPECT_TRUE(state[1].second.equal(saved.optimizer[1].second));

  NamedTensors fewer = {state[0]};
  EXPECT_THAT(message_of([&] { load_optimizer_state(folder_, fewer); }), HasSubstr("holds 2 tensors, expected 1"));
  NamedTensors renamed = {state[0], {"b", at::zeros({3, 2})}};
  EXPECT_THAT(message_of([&] { load_optimizer_state(folder_, renamed); }), HasSubstr("tensor b is missing"));
  NamedTensors reshaped = {state[0], {"a.exp_avg_sq", at::zeros({2, 3})}};
  EXPECT_THAT(message_of([&] { load_optimizer_state(folder_, reshaped); }), HasSubstr("a.exp_avg_sq has shape (3, 2)"));
  fs::remove(folder_ / "optimizer.rank-0-of-1.safetensors");
  EXPECT_THAT(message_of([&] { load_optimizer_state(folder_, state); }), HasSubstr("saved without what resuming needs"));
}

TEST_F(CheckpointTest, MinimumIsWeightsAndConfig) {
  CheckpointContents only = contents();
  only.optimizer.clear();
  only.tokenizer = nullptr;
  only.training_state = nullptr;
  save_checkpoint(folder_, only);
  EXPECT_FALSE(fs::exists(folder_ / "optimizer.rank-0-of-1.safetensors"));
  EXPECT_FALSE(fs::exists(folder_ / "tokenizer_config.json"));
  EXPECT_EQ(json::parse(read_file(folder_ / "config.json")).at("bos_token_id"), nullptr);
  const LoadedModel loaded = load_model(folder_, at::kFloat);
  EXPECT_EQ(loaded.tokenizer, nullptr);
  EXPECT_TRUE(loaded.training_state.contains("sha256"));
  fs::remove(folder_ / "training_state.json");
  EXPECT_TRUE(load_model(folder_, at::kFloat).training_state.is_null());
  EXPECT_EQ(verify_checkpoint(folder_), 0u);
}

TEST_F(CheckpointTest, ReplacesAnOlderOne) {
  save_checkpoint(folder_, contents());
  model_.parameters()[0].value.add_(1.0);
  CheckpointContents newer = contents();
  newer.optimizer.clear();
  newer.training_state["step"] = 13;
  save_checkpoint(folder_, newer);
  const LoadedModel loaded = load_model(folder_, at::kFloat);
  EXPECT_EQ(loaded.training_state.at("step"), 13);
  EXPECT_TRUE(loaded.model->parameters()[0].value.equal(model_.parameters()[0].value));
  EXPECT_FALSE(fs::exists(folder_ / "optimizer.rank-0-of-1.safetensors"));
}

TEST_F(CheckpointTest, FailureLeavesTheOlderOne) {
  save_checkpoint(folder_, contents());
  CheckpointContents bad = contents();
  bad.optimizer.emplace_back("undefined", at::Tensor());
  EXPECT_THROW(save_checkpoint(folder_, bad), c10::Error);
  bad = contents();
  bad.training_state = 3;
  EXPECT_THROW(save_checkpoint(folder_, bad), c10::Error);
  bad = contents();
  bad.config = nullptr;
  EXPECT_THROW(save_checkpoint(folder_, bad), c10::Error);
  EXPECT_EQ(load_model(folder_, at::kFloat).training_state.at("step"), 12);
  int entries = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(temporary_.path())) ++entries;
  EXPECT_EQ(entries, 2) << "the checkpoint, the rank file of the tokenizer and no temporary";
}

TEST_F(CheckpointTest, MakesParentsOrSaysWhyNot) {
  save_checkpoint(temporary_ / "a/b/c", contents());
  EXPECT_EQ(verify_checkpoint(temporary_ / "a/b/c"), verify_checkpoint(fs::path((temporary_ / "a/b/c").string() + "/")));
  testing::write_text(temporary_ / "file", "x");
  EXPECT_THROW(save_checkpoint(temporary_ / "file/checkpoint", contents()), IoError);
  EXPECT_THROW(save_checkpoint(temporary_ / "file", contents()), IoError);
}

TEST_F(CheckpointTest, LoadsNarrowWeights) {
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf, at::kDouble}) {
    CheckpointContents narrow = contents();
    for (auto& [name, tensor] : narrow.weights) tensor = tensor.to(dtype);
    save_checkpoint(folder_, narrow);
    const LoadedModel loaded = load_model(folder_, at::kFloat);
    for (std::size_t i = 0; i < narrow.weights.size(); ++i) {
      EXPECT_TRUE(loaded.model->parameters()[i].value.equal(narrow.weights[i].second.to(at::kFloat))) << dtype;
    }
  }
  EXPECT_EQ(describe_checkpoint(folder_).dtype, "F64");
}

TEST_F(CheckpointTest, LoadsForBfloat16Compute) {
  save_checkpoint(folder_, contents());
  const LoadedModel served = load_model(folder_, at::kBFloat16);
  const LoadedModel trained = load_model(folder_, at::kBFloat16, at::kCPU, Purpose::kTraining);
  for (std::size_t i = 0; i < model_.parameters().size(); ++i) {
    const at::Tensor exact = model_.parameters()[i].value, narrow = exact.to(at::kBFloat16);
    const Parameter &of_served = served.model->parameters()[i], &of_trained = trained.model->parameters()[i];
    EXPECT_TRUE(of_served.compute.equal(narrow)) << of_served.name;
    EXPECT_EQ(of_served.value.scalar_type(), at::kBFloat16) << "no master weights";
    EXPECT_TRUE(of_trained.compute.equal(narrow)) << of_trained.name;
    EXPECT_TRUE(of_trained.value.equal(exact)) << of_trained.name;
  }
}

// Neither a second model nor the pages of the file stand beside the model that is read.
TEST_F(CheckpointTest, LoadingTakesTheMemoryOfOneModel) {
  const GptConfig large = GptConfig::from_depth(4, 65536, 64);
  {
    Gpt model(large, at::kFloat);
    model.init_weights(1);
    CheckpointContents checkpoint;
    checkpoint.config = &large;
    checkpoint.weights = model_weights(model);
    save_checkpoint(folder_, checkpoint);
  }
  const StoredModel stored = open_model(folder_);
  load_model(folder_, at::kBFloat16);  // what libraries take on first use
  const auto taken = testing::peak_memory_of([&] {
    Gpt model(stored.config, at::kBFloat16, at::kCPU, Purpose::kInference);
    read_weights(stored, model);
  });
  if (!taken) GTEST_SKIP() << "the peak cannot be reset";
  const std::int64_t weights = 2 * large.parameter_count();
  constexpr std::int64_t kPart = 24 << 20;  // of the file, and what the allocator rounds up
  EXPECT_LE(*taken, weights + kPart);
  EXPECT_GE(*taken, weights - kPart) << "the peak was not measured";
}

// transformers stores as many rows as there are tokens.
TEST_F(CheckpointTest, LoadsTablesWithoutPadding) {
  CheckpointContents bare = contents();
  for (auto& [name, tensor] : bare.weights) {
    if (tensor.size(0) == 320) tensor = tensor.narrow(0, 0, 265);
  }
  bare.training_state = nullptr;
  save_checkpoint(folder_, bare);
  fs::remove(folder_ / "training_state.json");  // as in a folder of another program
  change_config([](json& config) {
    config["vocab_size"] = 265;
    config.erase("unpadded_vocab_size");
  });
  const LoadedModel loaded = load_model(folder_, at::kFloat);
  EXPECT_EQ(loaded.model->config().vocab_size, 265);
  const at::Tensor ids = some_ids(265);
  EXPECT_TRUE(loaded.model->forward(ids).equal(model_.forward(ids)));
  EXPECT_EQ(loaded.model->parameters()[0].value.narrow(0, 265, 55).abs().sum().item<float>(), 0.0f);
}

TEST_F(CheckpointTest, FindsCheckpointsOfRuns) {
  const fs::path run_path = temporary_ / "run";
  RunFolder run(run_path, false);
  EXPECT_THAT(message_of([&] { find_checkpoint(run_path); }), HasSubstr("this run has no checkpoint yet"));
  save_checkpoint(run.checkpoint_path(5), contents());
  save_checkpoint(run.checkpoint_path(20), contents());
  EXPECT_EQ(find_checkpoint(run_path), run.checkpoint_path(20)) << "without a link, the newest";
  run.mark_latest(5);
  EXPECT_EQ(find_checkpoint(run_path), fs::canonical(run.checkpoint_path(5)));
  EXPECT_EQ(find_checkpoint(run_path / "checkpoints" / "latest"), fs::canonical(run.checkpoint_path(5)));
  const fs::path file = run.checkpoint_path(20) / "model.safetensors";
  EXPECT_EQ(find_checkpoint(file), file);
  EXPECT_EQ(load_model(file, at::kFloat).training_state.at("step"), 12);
  fs::copy_file(file, run.checkpoint_path(20) / "other.safetensors");
  EXPECT_TRUE(load_model(run.checkpoint_path(20) / "other.safetensors", at::kFloat).training_state.is_null());
  EXPECT_EQ(verify_checkpoint(run.checkpoint_path(20) / "other.safetensors"), 0u);
}

TEST_F(CheckpointTest, SaysWhatIsNotThere) {
  EXPECT_THAT(load_error(temporary_ / "absent"), HasSubstr("no such checkpoint or run"));
  EXPECT_THAT(load_error("nothing-of-this-name"), HasSubstr("there is no nothing-of-this-name, nor runs/nothing-of-this-name"));
  EXPECT_THAT(load_error(temporary_.path()), HasSubstr("holds neither model.safetensors (a checkpoint) nor checkpoints/"));
  testing::write_text(temporary_ / "notes.txt", "x");
  EXPECT_THAT(load_error(temporary_ / "notes.txt"), HasSubstr("is a file, expected a checkpoint folder"));
  save_checkpoint(folder_, contents());
  fs::remove(folder_ / "config.json");
  EXPECT_THAT(load_error(folder_), AllOf(HasSubstr("config.json"), HasSubstr("no such file")));
}

TEST_F(CheckpointTest, SaysWhatDoesNotFit) {
  save_checkpoint(folder_, contents());
  const std::string config = read_file(folder_ / "config.json");
  const auto with = [&](const char* key, const json& value) {
    testing::write_text(folder_ / "config.json", config);
    change_config([&](json& object) { object[key] = value; });
    return load_error(folder_);
  };
  EXPECT_THAT(with("num_hidden_layers", 3), HasSubstr("tensor model.layers.2.self_attn.q_proj.weight is missing"));
  EXPECT_THAT(with("num_hidden_layers", 1), HasSubstr("holds 14 tensors, but the 1 layers of config.json have 8"));
  EXPECT_THAT(with("intermediate_size", 64),
              HasSubstr("model.layers.0.mlp.fc1.weight has shape (96, 32), but config.json asks for (64, 32)"));
  EXPECT_THAT(with("num_key_value_heads", 4), HasSubstr("k_proj.weight has shape (16, 32)"));
  EXPECT_THAT(with("hidden_size", 1 << 24), HasSubstr("model.embed_tokens.weight has shape (320, 32)"));
  EXPECT_THAT(with("num_hidden_layers", 1 << 24), HasSubstr("is missing"));
  EXPECT_THAT(with("hidden_act", "gelu"), HasSubstr("hidden_act"));
  EXPECT_THAT(with("rms_norm_eps", 1e-5), HasSubstr("config.json: its SHA-256 differs")) << "what nothing else would tell";
  // 260 tokens pad to 320 as well, but the tokenizer has 265.
  fs::remove(folder_ / "training_state.json");
  EXPECT_THAT(with("unpadded_vocab_size", 260), HasSubstr("its tokenizer has 265 tokens, but its model only 260"));
}

TEST_F(CheckpointTest, WeightsMustBeFloats) {
  CheckpointContents wrong = contents();
  wrong.weights[1].second = wrong.weights[1].second.to(at::kInt);
  save_checkpoint(folder_, wrong);
  EXPECT_THAT(load_error(folder_), HasSubstr("q_proj.weight holds I32, expected F32, BF16 or F16"));
}

TEST_F(CheckpointTest, TrainingStateOfANewerProgramIsRefused) {
  save_checkpoint(folder_, contents());
  testing::write_text(folder_ / "training_state.json", R"({"format_version": 2})");
  EXPECT_THAT(load_error(folder_), HasSubstr("format_version is 2, expected 1"));
  testing::write_text(folder_ / "training_state.json", R"({"sha256": 3})");
  EXPECT_THAT(message_of([&] { verify_checkpoint(folder_); }), HasSubstr("\"format_version\" is missing"));
  testing::write_text(folder_ / "training_state.json", R"({"format_version": 1, "sha256": {}})");
  EXPECT_THAT(message_of([&] { verify_checkpoint(folder_); }), HasSubstr("its checksum is not that of its contents"));
}

TEST_F(CheckpointTest, DescribesItselfWithoutReadingWeights) {
  save_checkpoint(folder_, contents());
  const CheckpointSummary summary = describe_checkpoint(folder_);
  EXPECT_EQ(summary.config, model_.config());
  EXPECT_EQ(summary.dtype, "F32");
  EXPECT_TRUE(summary.has_optimizer);
  EXPECT_TRUE(summary.has_tokenizer);
  EXPECT_EQ(summary.folder, fs::canonical(folder_));
  EXPECT_EQ(summary.weight_bytes, fs::file_size(summary.weights));
  EXPECT_EQ(summary.training_state.at("stage"), "pretrain");
}

}  // namespace
}  // namespace nanochat
