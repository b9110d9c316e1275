#include "training/pretrain/pretrain.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <csignal>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/run_folder.h"
#include "core/errors.h"
#include "core/folder_lock.h"
#include "core/options.h"
#include "core/progress.h"
#include "training/trainer/testing_run.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::ThrowsMessage;

// Text, and options of a model that trains in a second.
class Pretrain : public testing::StageTest<PretrainConfig> {
 protected:
  // Models of nanochat-2025-12 learn in a few steps.
  explicit Pretrain(const std::string& recipe = "nanochat-2025-12") {
    OptionList options;
    declare_pretrain_options(options, config_);
    config_.recipe = recipe;
    apply_recipe(options, config_);
    std::string text;
    for (int i = 0; i < 400; ++i) {
      text += fmt::format("{{\"text\": \"The number after {} is {}. It is {}.\"}}\n", i % 10, i % 10 + 1,
                          i % 2 == 0 ? "even" : "odd");
    }
    testing::write_text(folder_ / "corpus.jsonl", text);
    config_.data_dir = {(folder_ / "corpus.jsonl").string()};
    config_.tokenizer = folder_ / "bytes.tiktoken";
    config_.runtime.threads = 2;
    config_.depth = 1;
    config_.sequence_len = 32;
    config_.device_batch_size = 4;
    config_.total_batch_size = 256;
    config_.num_iterations = 12;
    config_.eval_interval = 6;
    config_.eval_tokens = 1024;
    config_.sample_interval = -1;
    config_.checkpoint_interval = 5;
    config_.sample_prompts = {"The number after 3 is"};
  }

  PretrainResult train(const std::vector<ScheduledScore>& scores = {}) {
    SilentProgress progress;
    return pretrain(config_, progress, scores);
  }
};

TEST_F(Pretrain, AsksScoresWhenTheCheckpointIsSafe) {
  config_.keep_last = 0;
  std::vector<std::int64_t> saved;
  const auto ask = [&](Gpt&, const Tokenizer&) {
    const auto steps = RunFolder::checkpoint_steps(config_.output_dir);
    saved.push_back(steps.empty() ? -1 : steps.back());
    return nlohmann::json{{"core", 0.25}};
  };
  const auto never = [](Gpt&, const Tokenizer&) -> nlohmann::json { throw std::logic_error("asked"); };
  train({{.every = 4, .ask = ask}, {.every = 0, .ask = never}});
  EXPECT_EQ(saved, (std::vector<std::int64_t>{4, 8, 12}));
  EXPECT_EQ(figures("core").size(), 3U);

  // A run that ends while it is scored goes on, and comes to the same weights as one that is never scored.
  const LoadedModel scored = load_model(config_.output_dir, at::kFloat);
  config_.output_dir = folder_ / "broken";
  const auto fail = [&](Gpt&, const Tokenizer&) -> nlohmann::json { throw DataError("the scores are not to be had"); };
  EXPECT_THROW(train({{.every = 4, .ask = fail}}), DataError);
  config_.resume = "latest";
  EXPECT_EQ(train({{.every = 4, .ask = ask}}).steps, 12);
  EXPECT_EQ(saved, (std::vector<std::int64_t>{4, 8, 12, 4, 8, 12})) << "the score of the step it goes on from comes again";
  testing::expect_same_weights(*scored.model, *load_model(config_.output_dir, at::kFloat).model);
  config_.resume.clear();
  config_.output_dir = folder_ / "unscored";
  train();
  testing::expect_same_weights(*scored.model, *load_model(config_.output_dir, at::kFloat).model);
}

TEST_F(Pretrain, DeterministicTrainingOnACpuIsAnyTraining) {
  config_.num_iterations = 3;
  train();
  EXPECT_THAT(log(), Not(HasSubstr("deterministic")));
  const LoadedModel plain = load_model(config_.output_dir, at::kFloat);
  config_.deterministic = true;
  config_.output_dir = folder_ / "deterministic";
  train();
  EXPECT_THAT(log(), HasSubstr("deterministic"));
  testing::expect_same_weights(*plain.model, *load_model(config_.output_dir, at::kFloat).model);
}

// Half the bytes in checkpoints. Resumed bit for bit in the same type, and accepted in the other.
TEST_F(Pretrain, OptimizerStateInBfloat16GoesOnFromCheckpoints) {
  config_.num_iterations = 6;
  config_.checkpoint_interval = 3;
  const auto state_bytes = [&] {
    return fs::file_size(config_.output_dir / "checkpoints/step-000006/optimizer.rank-0-of-1.safetensors");
  };
  train();
  const auto wide_bytes = state_bytes();
  config_.output_dir = folder_ / "narrow";
  config_.optimizer_state_dtype = "bfloat16";
  train();
  EXPECT_LT(state_bytes(), 0.6 * wide_bytes);
  const LoadedModel uninterrupted = load_model(config_.output_dir, at::kFloat);
  forget_after(3);
  config_.resume = "latest";
  train();
  testing::expect_same_weights(*uninterrupted.model, *load_model(config_.output_dir, at::kFloat).model);
  forget_after(3);
  config_.optimizer_state_dtype = "float32";
  train();
  EXPECT_THAT(log(), HasSubstr("optimizer_state_dtype"));
}

// From the start, or from a checkpoint on.
TEST_F(Pretrain, RecomputationChangesNoWeight) {
  config_.depth = 3;
  config_.num_iterations = 6;
  config_.checkpoint_interval = 3;
  for (const char* recipe : {"nanochat-2025-12", "nanochat-2026-07"}) {
    config_.recipe = recipe;
    config_.recompute = false;
    config_.resume.clear();
    config_.output_dir = folder_ / recipe / "plain";
    train();
    EXPECT_THAT(log(), Not(HasSubstr("activation recomputation")));
    const LoadedModel plain = load_model(config_.output_dir, at::kFloat);
    forget_after(3);
    config_.recompute = true;
    config_.resume = "latest";
    train();
    EXPECT_THAT(log(), HasSubstr("activation recomputation"));
    testing::expect_same_weights(*plain.model, *load_model(config_.output_dir, at::kFloat).model);
    config_.resume.clear();
    config_.output_dir = folder_ / recipe / "recomputed";
    train();
    testing::expect_same_weights(*plain.model, *load_model(config_.output_dir, at::kFloat).model);
  }
}

TEST_F(Pretrain, ARunThatAnotherProcessTrainsIsRefused) {
  {
    const FolderLock lock(config_.output_dir, "pretrain");
    EXPECT_THAT([&] { train(); }, ThrowsMessage<ConfigError>(HasSubstr("another process is writing to this folder")));
    config_.resume = "latest";
    EXPECT_THAT([&] { train(); }, ThrowsMessage<ConfigError>(HasSubstr("another process is writing to this folder")));
    EXPECT_FALSE(fs::exists(config_.output_dir / "checkpoints"));
  }
  config_.resume.clear();
  EXPECT_EQ(train().steps, 12);
  EXPECT_FALSE(fs::exists(config_.output_dir / FolderLock::kFileName));
}

TEST_F(Pretrain, ReadsTheTextFromTheColumnThatIsNamed) {
  testing::write_text(folder_ / "named.jsonl", "{\"id\": \"1\", \"body\": \"text\"}\n");
  config_.data_dir = {(folder_ / "named.jsonl").string()};
  EXPECT_THAT([&] { train(); }, ThrowsMessage<DataError>(HasSubstr("no key \"text\"; the keys are: body, id")));
  config_.text_column = "other";
  EXPECT_THAT([&] { train(); }, ThrowsMessage<DataError>(HasSubstr("no key \"other\"")));
}

TEST_F(Pretrain, LearnsAndLeavesARunBehind) {
  const PretrainResult result = train();
  EXPECT_EQ(result.steps, 12);
  EXPECT_FALSE(result.interrupted);
  EXPECT_GT(result.tokens_per_second, 0.0);
  ASSERT_EQ(result.samples.size(), 1U);
  EXPECT_THAT(result.samples[0], HasSubstr("The number after 3 is"));

  const auto losses = figures("loss"), validation = figures("validation_bpb");
  ASSERT_EQ(losses.size(), 12U);
  EXPECT_NEAR(losses.front(), std::log(265.0), 1e-3);  // 256 bytes and nine special tokens, all equally likely
  EXPECT_LT(losses.back(), 0.8 * losses.front());
  ASSERT_EQ(validation.size(), 3U);  // steps 0, 6 and 12
  EXPECT_LT(validation.back(), 0.8 * validation.front());
  EXPECT_DOUBLE_EQ(result.validation_bpb(), validation.back());
  for (const char* name :
       {"checkpoints/step-000005", "checkpoints/step-000010", "checkpoints/step-000012", "config.json", "log.txt"}) {
    EXPECT_TRUE(fs::exists(config_.output_dir / name)) << name;
  }
  const LoadedModel loaded = load_model(config_.output_dir, at::kFloat);
  EXPECT_EQ(loaded.training_state.at("step"), 12);
  EXPECT_EQ(loaded.training_state.at("stage"), "pretrain");
  EXPECT_EQ(loaded.training_state.at("config").at("depth"), 1);
}

TEST_F(Pretrain, AResumedRunEqualsAnUninterruptedOneBitForBit) {
  const auto weights = [this] { return load_model(config_.output_dir / "checkpoints/step-000012", at::kFloat); };
  train();
  const LoadedModel whole = weights();
  const auto whole_metrics = metrics();

  config_.output_dir = folder_ / "resumed";
  train();
  forget_after(5);
  config_.resume = "latest";
  const PretrainResult result = train();
  EXPECT_EQ(result.steps, 12);
  const LoadedModel resumed = weights();
  testing::expect_same_weights(*whole.model, *resumed.model);
  EXPECT_EQ(whole.training_state.at("loader"), resumed.training_state.at("loader"));
  const auto resumed_metrics = metrics();
  ASSERT_EQ(whole_metrics.size(), resumed_metrics.size());
  for (std::size_t i = 0; i < whole_metrics.size(); ++i) {
    for (const char* key : {"step", "loss", "grad_norm", "validation_bpb"}) {
      EXPECT_EQ(whole_metrics[i].value(key, nlohmann::json()), resumed_metrics[i].value(key, nlohmann::json())) << i << key;
    }
  }
}

TEST_F(Pretrain, AnAutomaticDeviceBatchIsTheSameStep) {
  const auto rows = [this] {
    return load_model(config_.output_dir, at::kFloat).training_state.at("config").at("device_batch_size");
  };
  train();
  const auto losses = figures("loss");
  config_.output_dir = folder_ / "automatic";
  config_.device_batch_size = kAutoDeviceBatch;
  train();
  EXPECT_EQ(rows(), 8) << "the rows of a step";
  const auto automatic = figures("loss");
  ASSERT_EQ(automatic.size(), losses.size());
  for (std::size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(automatic[i], losses[i], 1e-4) << i;

  config_.output_dir = folder_ / "resumed";
  config_.device_batch_size = 2;
  train();
  forget_after(5);
  config_.device_batch_size = kAutoDeviceBatch;
  config_.resume = "latest";
  train();
  EXPECT_EQ(rows(), 2) << "as before";
  config_.total_batch_size = 300;
  EXPECT_THAT([this] { train(); }, ThrowsMessage<ConfigError>(HasSubstr("is not a multiple of --sequence-len 32 = 32")));
}

TEST_F(Pretrain, ARecipeGivesWhatIsNotGiven) {
  PretrainConfig newest;
  OptionList of_newest;
  declare_pretrain_options(of_newest, newest);
  apply_recipe(of_newest, newest);
  EXPECT_EQ(newest.recipe, "nanochat-2026-07");
  EXPECT_EQ(newest.total_batch_size, -1);
  EXPECT_EQ(newest.warmup_steps, 40);
  EXPECT_EQ(newest.grad_clip, 0.0);
  EXPECT_EQ(newest.embedding_lr, 0.3);
  EXPECT_EQ(newest.rope_base, 100000.0);
  PretrainConfig old;
  OptionList of_old;
  declare_pretrain_options(of_old, old);
  of_old.apply_json({{"recipe", "nanochat-2025-12"}, {"warmup_steps", 7}}, "here");
  apply_recipe(of_old, old);
  EXPECT_EQ(old.total_batch_size, 524288);
  EXPECT_EQ(old.warmup_steps, 7) << "as given";
  EXPECT_EQ(old.grad_clip, 1.0);
  EXPECT_EQ(old.embedding_lr, 0.2);
  EXPECT_EQ(old.rope_base, 10000.0);
  of_old.apply_json({{"total_batch_size", -1}}, "here");
  EXPECT_THAT([&] { apply_recipe(of_old, old); }, ThrowsMessage<ConfigError>(HasSubstr("needs --recipe nanochat-2026-07")));
}

TEST_F(Pretrain, AResumedRunKeepsItsRecipe) {
  const auto recipe_after_resume = [&](const nlohmann::json& stored) {
    config_.output_dir = folder_ / "stored";
    fs::create_directories(config_.output_dir);
    testing::write_text(config_.output_dir / "config.json", stored.dump());
    PretrainConfig config;
    OptionList options;
    declare_pretrain_options(options, config);
    options.apply_json({{"output_dir", config_.output_dir.string()}, {"resume", "latest"}}, "here");
    apply_recipe(options, config);
    return config.recipe;
  };
  EXPECT_EQ(recipe_after_resume({{"recipe", "nanochat-2025-12"}}), "nanochat-2025-12");
  EXPECT_EQ(recipe_after_resume({{"recipe", "nanochat-2026-07"}}), "nanochat-2026-07");
  EXPECT_EQ(recipe_after_resume({{"depth", 4}}), "nanochat-2025-12") << "written before there were recipes";
}

class NewestPretrain : public Pretrain {
 protected:
  NewestPretrain() : Pretrain("nanochat-2026-07") {}
};

TEST_F(NewestPretrain, LearnsAndResumesBitForBit) {
  const GptConfig model = config_.model_config(265);
  EXPECT_TRUE(model.is_2026());
  const ScalingPlan plan = config_.scaling(model);
  EXPECT_EQ(plan.num_iterations, 12) << "as num_iterations says";
  EXPECT_DOUBLE_EQ(config_.trainer_options(model).matrix_lr, 0.02 * plan.lr_scale);
  config_.warmup_steps = 2;
  config_.runtime.dtype = "float32";
  EXPECT_EQ(config_.packing, "best-fit") << "keeps all text";
  config_.packing = "best-fit-crop";
  const PretrainResult whole = train();
  EXPECT_EQ(whole.steps, 12);
  const LoadedModel uninterrupted = load_model(config_.output_dir, at::kFloat);
  EXPECT_TRUE(uninterrupted.model->config().is_2026());
  const auto bpb = figures("validation_bpb");
  ASSERT_GE(bpb.size(), 2U);
  EXPECT_LT(bpb.back(), bpb.front());
  config_.output_dir = folder_ / "resumed";
  config_.num_iterations = 12;
  const auto interrupted = [&](Gpt&, const Tokenizer&) -> nlohmann::json { throw DataError("stop"); };
  EXPECT_THROW(train({{.every = 6, .ask = interrupted}}), DataError);
  config_.resume = "latest";
  EXPECT_EQ(train().steps, 12);
  testing::expect_same_weights(*uninterrupted.model, *load_model(config_.output_dir, at::kFloat).model);
}

TEST_F(Pretrain, SavingInTheBackgroundChangesNothing) {
  const auto weights = [this] { return load_model(config_.output_dir, at::kFloat); };
  config_.checkpoint_interval = 1;
  const PretrainResult asynchronous = train();
  const LoadedModel one = weights();
  config_.output_dir = folder_ / "synchronous";
  config_.async_save = false;
  const PretrainResult synchronous = train();
  const LoadedModel other = weights();
  EXPECT_EQ(one.training_state.at("sha256"), other.training_state.at("sha256"));
  EXPECT_GT(synchronous.checkpoint_seconds, 0.0);
  EXPECT_GT(asynchronous.checkpoint_seconds, 0.0);
  EXPECT_EQ(asynchronous.checkpoint.filename(), "step-000012");
}

TEST_F(Pretrain, TheBestCheckpointIsMarkedAndKept) {
  // What is held out is half what training sees and half what it never does: first better, then ever more surprising.
  std::string text;
  for (int i = 0; i < 400; ++i) {
    text += i % 20 == 19 && i % 40 == 19 ? "{\"text\": \"ZQXJ KVWY ~~## QQZZ XJXJ WVKQ ##~~ YZQX\"}\n"
                                         : "{\"text\": \"one two three one two three one two three\"}\n";
  }
  testing::write_text(folder_ / "corpus.jsonl", text);
  config_.keep_best = true;
  config_.keep_last = 1;
  config_.eval_interval = 2;
  config_.checkpoint_interval = -1;
  config_.num_iterations = 14;
  config_.warmdown_ratio = 0;
  config_.unembedding_lr = 0.04;
  train();
  double minimum = std::numeric_limits<double>::infinity();
  std::int64_t best = 0;
  for (const auto& row : metrics()) {
    if (!row.contains("validation_bpb") || row.at("step") == 0) continue;
    if (row.at("validation_bpb") > minimum) continue;
    minimum = row.at("validation_bpb");
    best = row.at("step");
  }
  ASSERT_NE(best, 14) << "the test needs a run whose best step is not its last";
  ASSERT_GT(best, 0);
  const fs::path name = RunFolder::checkpoint_path("", best).filename();
  EXPECT_EQ(fs::read_symlink(config_.output_dir / "checkpoints/best"), name);
  EXPECT_EQ(fs::read_symlink(config_.output_dir / "checkpoints/latest"), "step-000014");
  EXPECT_EQ(RunFolder::checkpoint_steps(config_.output_dir), (std::vector<std::int64_t>{best, 14}));
  EXPECT_EQ(load_model(config_.output_dir / "checkpoints/best", at::kFloat).training_state.at("step"), best);
}

TEST_F(Pretrain, ARunThatEndedBeforeItsFirstCheckpointBeginsAnew) {
  train();
  const auto whole = metrics();
  for (const auto& entry : fs::directory_iterator(config_.output_dir / "checkpoints")) fs::remove_all(entry.path());
  const fs::path leftover = config_.output_dir / ".config.json.tmp-1073741824-1";  // no process has that number
  testing::write_text(leftover, "left by a kill");
  config_.resume = "latest";
  EXPECT_EQ(train().steps, 12);
  EXPECT_EQ(metrics().size(), whole.size()) << "figures of the first attempt must be gone";
  EXPECT_FALSE(fs::exists(leftover));
  for (const auto& entry : fs::directory_iterator(config_.output_dir / "checkpoints")) fs::remove_all(entry.path());
  config_.matrix_lr = 0.5;
  EXPECT_THAT([this] { train(); }, ThrowsMessage<ConfigError>(HasSubstr("matrix_lr")));
}

TEST_F(Pretrain, AFailedSaveStopsTrainingAndNamesTheCheckpointBefore) {
  // A file where the second checkpoint would be.
  fs::create_directories(config_.output_dir);
  struct Blocking : SilentProgress {
    fs::path path;
    int steps = 0;
    void advance(std::int64_t amount) override {
      if (amount == 1 && ++steps == 7) testing::write_text(path, "in the way");
    }
  } progress;
  progress.path = config_.output_dir / "checkpoints/step-000010";
  EXPECT_THAT([&] { pretrain(config_, progress); },
              ThrowsMessage<IoError>(AllOf(HasSubstr("step-000010"), HasSubstr("the last good checkpoint is"),
                                           HasSubstr("step-000005"))));
  EXPECT_GT(verify_checkpoint(config_.output_dir), 3u);
  EXPECT_EQ(fs::read_symlink(config_.output_dir / "checkpoints/latest"), "step-000005");
}

TEST_F(Pretrain, AnotherConfigurationIsRefusedOnResumeByName) {
  train();
  config_.resume = "latest";
  config_.matrix_lr = 0.5;
  EXPECT_THAT([this] { train(); }, ThrowsMessage<ConfigError>(HasSubstr("matrix_lr")));
}

TEST_F(Pretrain, AResumedRunMayHaveMoreSteps) {
  train();
  config_.resume = "latest";
  config_.num_iterations = 20;
  EXPECT_EQ(train().steps, 20);
  EXPECT_EQ(figures("loss").size(), 20U);
  EXPECT_THAT(log(), HasSubstr("resumed with other options: num_iterations: 12 → 20"));
  EXPECT_EQ(nlohmann::json::parse(std::ifstream(config_.output_dir / "config.json")).at("num_iterations"), 20);
  // The schedule is that of the new whole: at step 12 of 20 the learning rates have not begun to fall.
  const auto rates = figures("lr_multiplier");
  EXPECT_LT(rates[11], 1.0);
  EXPECT_EQ(rates[12], 1.0);
  EXPECT_LT(rates[19], 0.5);

  config_.num_iterations = 15;
  EXPECT_THAT([this] { train(); },
              ThrowsMessage<ConfigError>(AllOf(HasSubstr("steps of the whole: 20 → 15; there can be more, not fewer"),
                                               HasSubstr("num_iterations: 20 → 15"))));
}

TEST_F(Pretrain, AResumedRunMayHaveAnotherDeviceBatchSize) {
  config_.muon_dtype = "float32";
  train();
  const auto whole = figures("loss");
  const LoadedModel one = load_model(config_.output_dir, at::kFloat);
  config_.output_dir = folder_ / "other";
  train();
  forget_after(5);
  config_.resume = "latest";
  config_.device_batch_size = 8;  // 256 tokens are one micro-batch then, and were two
  train();
  EXPECT_THAT(log(), HasSubstr("device_batch_size: 4 → 8"));
  constexpr double kRounding = 1e-4;  // of float32 sums in another order, after seven steps
  const auto resumed = figures("loss");
  ASSERT_EQ(resumed.size(), whole.size());
  for (std::size_t i = 0; i < whole.size(); ++i) EXPECT_NEAR(resumed[i], whole[i], kRounding) << i;

  config_.total_batch_size = 512;
  EXPECT_THAT([this] { train(); }, ThrowsMessage<ConfigError>(HasSubstr("total_batch_size: 256 → 512")));
}

TEST_F(Pretrain, WhatChangesNothingOfWhatIsLearntMayChange) {
  train();
  forget_after(5);
  config_.resume = "latest";
  config_.eval_interval = 4;
  config_.eval_tokens = 512;
  config_.sample_interval = 0;
  config_.sample_prompts = {"other"};
  config_.checkpoint_interval = 3;
  config_.keep_last = 1;
  config_.keep_best = true;
  config_.log_interval = 1;
  config_.skip_bad_steps = 1;
  config_.runtime.threads = 1;
  const PretrainResult result = train();
  EXPECT_EQ(result.steps, 12);
  EXPECT_TRUE(result.samples.empty()) << "--sample-interval 0: never";
  const auto refused = [this](auto change, const char* key) {
    PretrainConfig other = config_;
    change(other);
    SilentProgress progress;
    EXPECT_THAT([&] { pretrain(other, progress); }, ThrowsMessage<ConfigError>(HasSubstr(key))) << key;
  };
  refused([](auto& c) { c.seed = 1; }, "seed: 42 → 1");
  refused([](auto& c) { c.depth = 2; }, "depth: 1 → 2");
  refused([](auto& c) { c.embedding_lr = 1; }, "embedding_lr");
  refused([](auto& c) { c.warmdown_ratio = 1; }, "warmdown_ratio");
  refused([](auto& c) { c.packing = "stream"; }, "packing");
  refused([](auto& c) { c.validation_every = 10; }, "validation_every: 20 → 10");
}

TEST_F(Pretrain, TheDataMayHaveMovedButAreTheSame) {
  train();
  forget_after(5);
  config_.resume = "latest";
  fs::create_directories(folder_ / "elsewhere");
  fs::copy_file(folder_ / "corpus.jsonl", folder_ / "elsewhere/corpus.jsonl");
  fs::copy_file(folder_ / "bytes.tiktoken", folder_ / "elsewhere/bytes.tiktoken");
  config_.data_dir = {(folder_ / "elsewhere/corpus.jsonl").string()};
  config_.tokenizer = folder_ / "elsewhere/bytes.tiktoken";
  EXPECT_EQ(train().steps, 12);
  testing::write_text(folder_ / "elsewhere/other.jsonl", "{\"text\": \"other\"}\n");
  config_.data_dir = {(folder_ / "elsewhere/other.jsonl").string()};
  EXPECT_THAT([this] { train(); }, ThrowsMessage<ConfigError>(AllOf(HasSubstr("data: "), HasSubstr("(by data_dir)"))));
}

// float32 and bfloat16 share checkpoints: weights and optimizer state are float32 in both.
class PretrainPrecisions : public Pretrain, public ::testing::WithParamInterface<std::pair<const char*, const char*>> {};

TEST_P(PretrainPrecisions, AResumedRunMayComputeInAnother) {
  config_.runtime.dtype = GetParam().first;
  train();
  const auto whole = figures("loss");
  EXPECT_EQ(describe_checkpoint(config_.output_dir).dtype, "F32");
  forget_after(5);
  config_.resume = "latest";
  config_.runtime.dtype = GetParam().second;
  EXPECT_EQ(train().steps, 12);
  EXPECT_THAT(log(), HasSubstr(fmt::format("dtype: \"{}\" → \"{}\"", GetParam().first, GetParam().second)));
  EXPECT_THAT(log(), HasSubstr("computed until here by"));
  EXPECT_EQ(describe_checkpoint(config_.output_dir).dtype, "F32");
  const auto resumed = figures("loss");
  ASSERT_EQ(resumed.size(), whole.size());
  for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(resumed[i], whole[i]) << i;
  constexpr double kPrecision = 0.03;  // of a loss of 4 to 5, which bfloat16 keeps to two or three digits
  for (std::size_t i = 5; i < whole.size(); ++i) EXPECT_NEAR(resumed[i], whole[i], kPrecision) << i;
}

INSTANTIATE_TEST_SUITE_P(All, PretrainPrecisions,
                         ::testing::Values(std::pair("float32", "bfloat16"), std::pair("bfloat16", "float32")));

TEST_F(Pretrain, NothingIsValidatedWhereNothingIsHeldOut) {
  config_.validation_every = 0;
  const PretrainResult result = train();
  EXPECT_EQ(result.steps, 12);
  EXPECT_TRUE(std::isnan(result.validation_bpb()));
  EXPECT_EQ(result.samples.size(), 1U) << "samples need no validation";
  EXPECT_TRUE(figures("validation_bpb").empty());
  EXPECT_THAT(log(), HasSubstr("--validation-every is 0"));
}

TEST_F(Pretrain, FewDocumentsAreTrainedOnWithoutValidation) {
  std::string text;
  for (int i = 0; i < 19; ++i) text += "{\"text\": \"one two three one two three\"}\n";
  testing::write_text(folder_ / "corpus.jsonl", text);
  const PretrainResult result = train();
  EXPECT_EQ(result.steps, 12);
  EXPECT_TRUE(std::isnan(result.validation_bpb()));
  EXPECT_THAT(log(), HasSubstr("--validation-every is 20, and there are fewer than 20 documents"));
}

TEST_F(Pretrain, HeldOutTextThatFillsNoBatchIsMeasuredInASmallerOne) {
  std::string text;
  for (int i = 0; i < 20; ++i) text += "{\"text\": \"one two three\"}\n";
  testing::write_text(folder_ / "corpus.jsonl", text);
  const PretrainResult result = train();  // 14 tokens held out, where a row takes 33
  EXPECT_TRUE(std::isfinite(result.validation_bpb()));
  EXPECT_EQ(figures("validation_tokens").back(), 8.0) << "one row of eight: half of the half of 32";
}

TEST_F(Pretrain, MfuIsAShare) {
  train();
  for (const double mfu : figures("mfu")) {
    EXPECT_GT(mfu, 0.0);
    EXPECT_LE(mfu, 1.0);
  }
}

TEST_F(Pretrain, TrainsForATimeWithASchedule) {
  constexpr double kSeconds = 4.0;  // enough for steps on a busy machine, too
  config_.eval_interval = 0;
  config_.num_iterations = -1;
  config_.target_minutes = kSeconds / 60.0;
  config_.warmdown_ratio = 0.5;
  const PretrainResult result = train();
  EXPECT_GE(result.training_seconds, kSeconds);
  EXPECT_FALSE(result.interrupted);
  EXPECT_GT(result.steps, 4);
  const auto rates = figures("lr_multiplier");
  EXPECT_EQ(rates.front(), 1.0);
  EXPECT_LT(rates.back(), 0.5);
}

TEST_F(Pretrain, TrainsAtLeastTheStepsOfATime) {
  config_.target_minutes = 1e-9;
  EXPECT_EQ(train().steps, 12);
  EXPECT_LT(figures("lr_multiplier").back(), 0.6);
  config_.resume = "latest";
  config_.num_iterations = 14;
  EXPECT_EQ(train().steps, 14);
}

TEST_F(Pretrain, ARunIsNotOverwritten) {
  train();
  EXPECT_THAT([this] { train(); }, ThrowsMessage<ConfigError>(HasSubstr("--resume")));
}

// Asks for an interrupt after some steps, as a signal would.
class InterruptingProgress : public SilentProgress {
 public:
  explicit InterruptingProgress(int signal) : signal_(signal) {}
  void advance(std::int64_t amount) override {
    if (amount == 1 && ++steps_ == 3) std::raise(signal_);
  }

 private:
  int signal_, steps_ = 0;
};

class PretrainInterrupts : public Pretrain, public ::testing::WithParamInterface<int> {};

TEST_P(PretrainInterrupts, SaveAndTheRunGoesOn) {
  train();
  const LoadedModel whole = load_model(config_.output_dir, at::kFloat);
  config_.output_dir = folder_ / "interrupted";
  if (GetParam() == SIGHUP) std::signal(SIGHUP, SIG_DFL);  // these tests may run under nohup
  install_interrupt_handlers();
  InterruptingProgress interrupting(GetParam());
  const PretrainResult stopped = pretrain(config_, interrupting);
  EXPECT_TRUE(stopped.interrupted);
  EXPECT_EQ(stopped.steps, 3);
  EXPECT_EQ(stopped.checkpoint.filename(), "step-000003");
  reset_interrupt_for_testing();
  config_.resume = "latest";
  EXPECT_EQ(train().steps, 12);
  const LoadedModel resumed = load_model(config_.output_dir, at::kFloat);
  testing::expect_same_weights(*whole.model, *resumed.model);
}

INSTANTIATE_TEST_SUITE_P(All, PretrainInterrupts, ::testing::Values(SIGINT, SIGTERM, SIGHUP));

TEST_F(Pretrain, HorizonComesFromStepsFlopsOrRatio) {
  config_.eval_interval = -1;
  config_.num_iterations = -1;
  const GptConfig model = config_.model_config(265);
  config_.target_flops = 3.0 * 256.0 * model.flops_per_token();
  EXPECT_EQ(train().steps, 3);
  config_.output_dir = folder_ / "ratio";
  config_.target_flops = -1;
  config_.target_param_data_ratio = 4.5 * 256.0 / static_cast<double>(model.parameter_count());
  EXPECT_EQ(train().steps, 4);  // rounded down, as the reference does
  config_.output_dir = folder_ / "none";
  config_.target_param_data_ratio = -1;
  EXPECT_THAT([this] { train(); }, ThrowsMessage<ConfigError>(HasSubstr("--num-iterations")));
}

TEST(PretrainOptions, RefuseAHorizonThatMeansNothing) {
  PretrainConfig config;
  OptionList options;
  declare_pretrain_options(options, config);
  const std::vector<std::pair<std::string, double>> wrong = {
      {"num_iterations", -5},          {"target_flops", -3},    {"target_flops", 0},      {"target_minutes", -2},
      {"target_param_data_ratio", -2}, {"validation_every", 1}, {"validation_every", -1}, {"eval_interval", -2},
      {"checkpoint_interval", 0},      {"sample_interval", -5}};
  for (const auto& entry : wrong) {
    const auto set = [&] { options.apply_json({{entry.first, entry.second}}, "test"); };
    EXPECT_THAT(set, ThrowsMessage<ConfigError>(HasSubstr(entry.first))) << entry.second;
  }
  for (const char* name : {"num_iterations", "target_flops", "target_minutes", "target_param_data_ratio", "eval_interval"}) {
    options.apply_json({{name, -1}}, "test");
  }
}

TEST_F(Pretrain, SaysWhatDoesNotFit) {
  const auto failing = [this](auto change) {
    PretrainConfig broken = config_;
    change(broken);
    return [broken] {
      SilentProgress progress;
      pretrain(broken, progress);
    };
  };
  EXPECT_THAT(failing([](auto& c) { c.total_batch_size = 300; }), ThrowsMessage<ConfigError>(HasSubstr("nearest is 256")));
  EXPECT_THAT(failing([](auto& c) { c.tokenizer.clear(); }), ThrowsMessage<ConfigError>(HasSubstr("--tokenizer")));
  EXPECT_THAT(failing([](auto& c) { c.data_dir.clear(); }), ThrowsMessage<ConfigError>(HasSubstr("--data-dir")));
  EXPECT_THAT(failing([](auto& c) { c.data_dir = {"/nowhere.txt"}; }), ThrowsMessage<DataError>(HasSubstr("/nowhere.txt")));
  EXPECT_THAT(failing([](auto& c) { c.output_dir.clear(); }), ThrowsMessage<ConfigError>(HasSubstr("--output-dir")));
  EXPECT_THAT(failing([](auto& c) { c.n_head = 7; }), ThrowsMessage<ConfigError>(HasSubstr("n_head 7")));
  EXPECT_THAT(failing([](auto& c) { c.device_batch_size = 1 << 24, c.total_batch_size = std::int64_t{32} << 24; }),
              ThrowsMessage<ConfigError>(ContainsRegex("--device-batch-size [0-9]+ fits")));
  EXPECT_THAT(failing([](auto& c) { c.depth = 200; }), ThrowsMessage<ConfigError>(HasSubstr("not even one row fits")));
}

TEST_F(Pretrain, ABadStepIsNotAppliedAndNamesItsPlace) {
  config_.embedding_lr = 1e30;  // the first step ruins the embedding, the second one meets it
  config_.grad_clip = 0;
  config_.unembedding_lr = 1e38;
  config_.matrix_lr = 1e38;
  EXPECT_THAT([this] { train(); }, ThrowsMessage<NumericalError>(HasSubstr("the step was not applied")));
}

TEST_F(Pretrain, BadBatchesAreSkippedAsOftenAsAllowed) {
  config_.embedding_lr = 1e30;
  config_.grad_clip = 0;
  config_.unembedding_lr = 1e38;
  config_.matrix_lr = 1e38;
  config_.skip_bad_steps = 2;
  EXPECT_THAT([this] { train(); }, ThrowsMessage<NumericalError>(HasSubstr("the step was not applied")));
  std::int64_t skipped = 0;
  for (const auto& row : metrics()) skipped += row.contains("skipped_batch") ? 1 : 0;
  EXPECT_EQ(skipped, 2);
}

TEST_F(Pretrain, EveryOptionReachesTheConfiguration) {
  PretrainConfig config;
  OptionList options;
  declare_pretrain_options(options, config);
  options.apply_json({{"recipe", "nanochat-2025-12"},
                      {"depth", 3},
                      {"n_kv_head", 1},
                      {"rope_table_dtype", "bfloat16"},
                      {"muon_dtype", "float32"},
                      {"weight_decay", 0.25},
                      {"embedding_lr", 0.5}},
                     "test");
  const GptConfig model = config.model_config(1000);
  EXPECT_EQ(model.n_layer, 3);
  EXPECT_EQ(model.n_kv_head, 1);
  EXPECT_TRUE(model.rope_table_bf16);
  const OptimizerOptions optimizer = config.optimizer_options(Runtime{}, model);
  EXPECT_EQ(optimizer.muon.dtype, at::kFloat);
  EXPECT_EQ(optimizer.adamw.weight_decay, 0.25);
  EXPECT_EQ(optimizer.embedding_lr, 0.5);
  config.n_embd = 256;
  config.intermediate_size = 700;
  EXPECT_EQ(config.model_config(1000).n_head, 4);
  EXPECT_EQ(config.model_config(1000).intermediate_size, 700);
}

}  // namespace
}  // namespace nanochat
