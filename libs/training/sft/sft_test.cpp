#include "training/sft/sft.h"

#include <ATen/ops/equal.h>

#include <cmath>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/run_folder.h"
#include "checkpoint/safetensors.h"
#include "core/errors.h"
#include "core/options.h"
#include "core/progress.h"
#include "training/finetune/testing_base.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class Sft : public testing::StageTest<SftConfig> {
 protected:
  Sft() {
    config_.base_model = testing::save_base_model(folder_.path(), tokenizer_.get()).string();
    config_.data.data_dir = {testing::write_conversations(folder_.path(), 200).string()};
    config_.num_iterations = 12;
    config_.examples_per_step = 8;
    config_.init_lr_frac = 0.5;
    config_.eval_interval = 6;
    config_.checkpoint_interval = 5;
  }
  TrainingResult train(const std::vector<ScheduledScore>& scores = {}) {
    SilentProgress progress;
    return sft(config_, progress, scores);
  }
};

TEST_F(Sft, LearnsWhatTheAssistantWrites) {
  config_.num_iterations = 40;
  int asked = 0;
  const auto ask = [&](Gpt& model, const Tokenizer& tokenizer) {
    ++asked;
    EXPECT_EQ(model.config().vocab_size, tokenizer.vocab_size());
    return nlohmann::json{{"accuracy_test", 0.5}};
  };
  const TrainingResult result = train({{.every = -1, .ask = ask}});
  EXPECT_EQ(result.steps, 40);
  const auto losses = figures("loss"), validation = figures("validation_loss");
  ASSERT_EQ(losses.size(), 40U);
  EXPECT_NEAR(losses.front(), std::log(265.0), 1e-3) << "the mean over supervised tokens of an untrained model";
  EXPECT_LT(losses.back(), 0.5 * losses.front());
  EXPECT_LT(validation.back(), 0.5 * validation.front());
  EXPECT_DOUBLE_EQ(result.score, validation.back());
  EXPECT_EQ(asked, 1) << "at the end";
  EXPECT_EQ(figures("accuracy_test").size(), 1U);
  // "It is 1." and <|assistant_end|>: 9 bytes of about 25; 8 conversations or so.
  EXPECT_NEAR(figures("supervised_tokens").front(), 72.0, 20.0);
  const LoadedModel loaded = load_model(config_.output_dir, at::kFloat);
  EXPECT_EQ(loaded.training_state.at("stage"), "sft");
  EXPECT_EQ(loaded.tokenizer->vocab_size(), 265);
}

TEST_F(Sft, PackedAndPaddedRowsGiveTheSameLoss) {
  config_.num_iterations = 1;
  config_.data.validation_data_dir = config_.data.data_dir;
  train();
  const double packed = figures("validation_loss").back();
  config_.packing = "padding";
  config_.output_dir = folder_ / "padded";
  config_.init_lr_frac = 0.0;  // the weights stay: the same model is judged
  train();
  const double padded = figures("validation_loss").back();
  config_.packing = "best-fit";
  config_.output_dir = folder_ / "packed";
  train();
  EXPECT_NEAR(figures("validation_loss").back(), padded, 1e-5);
  EXPECT_NE(packed, padded);
}

class SftPackings : public Sft, public ::testing::WithParamInterface<const char*> {};

TEST_P(SftPackings, AResumedRunEqualsAnUninterruptedOneBitForBit) {
  config_.packing = GetParam();
  train();
  const LoadedModel whole = load_model(config_.output_dir, at::kFloat);
  const auto whole_losses = figures("loss");
  forget_after(5);
  config_.resume = "latest";
  EXPECT_EQ(train().steps, 12);
  const LoadedModel resumed = load_model(config_.output_dir, at::kFloat);
  testing::expect_same_weights(*whole.model, *resumed.model);
  EXPECT_EQ(whole.training_state.at("loader"), resumed.training_state.at("loader"));
  EXPECT_EQ(whole_losses, figures("loss"));
}

INSTANTIATE_TEST_SUITE_P(All, SftPackings, ::testing::Values("best-fit", "best-fit-pad", "padding"));

// Of nanochat-2026-07: from a base model without midtraining.
class NewestSft : public Sft {
 protected:
  NewestSft() {
    config_.base_model = testing::save_newest_base_model(folder_.path(), *tokenizer_).string();
    SftConfig defaults;
    config_.init_lr_frac = defaults.init_lr_frac;
    config_.examples_per_step = defaults.examples_per_step;
    const std::int64_t interval = config_.eval_interval;
    OptionList options;
    declare_sft_options(options, config_);
    apply_recipe(options, config_);
    config_.eval_interval = interval;
  }
  std::map<std::string, at::Tensor> state(const std::string& checkpoint) const {
    const SafetensorsFile file(std::filesystem::path(checkpoint) / "optimizer.rank-0-of-1.safetensors");
    std::map<std::string, at::Tensor> tensors;
    for (const auto& [name, entry] : file.entries()) tensors.emplace(name, file.tensor(name));
    return tensors;
  }
};

TEST_F(NewestSft, TheRecipeGivesWhatIsNotGiven) {
  EXPECT_EQ(config_.recipe, "nanochat-2026-07") << "that of the base model";
  EXPECT_EQ(config_.packing, "best-fit-pad");
  EXPECT_EQ(config_.init_lr_frac, 0.8);
  EXPECT_EQ(config_.embedding_lr, kInherited);
  EXPECT_EQ(config_.examples_per_step, 0);
  EXPECT_TRUE(config_.load_optimizer);
  SftConfig given;
  OptionList options;
  declare_sft_options(options, given);
  options.apply_json({{"recipe", "nanochat-2026-07"}, {"packing", "padding"}, {"matrix_lr", 0.5}, {"load_optimizer", false}},
                     "here");
  apply_recipe(options, given);
  EXPECT_EQ(given.packing, "padding");
  EXPECT_EQ(given.matrix_lr, 0.5);
  EXPECT_EQ(given.embedding_lr, kInherited);
  EXPECT_FALSE(given.load_optimizer);
  SftConfig old;
  OptionList of_old;
  declare_sft_options(of_old, old);
  apply_recipe(of_old, old);
  EXPECT_EQ(sft_recipe(GptConfig::from_depth(4, 512, 64, Architecture::kNanochat2026_07), "midtrain"), "nanochat-2025-12");
  EXPECT_EQ(old.packing, "best-fit");
  EXPECT_EQ(old.init_lr_frac, 0.02);
  EXPECT_THAT([&] { options.apply_json({{"matrix_lr", -0.5}}, "here"); }, ThrowsMessage<ConfigError>(HasSubstr("or -1")));
}

TEST_F(NewestSft, ContinuesTheOptimizerOfTheBaseModel) {
  config_.num_iterations = 0;
  train();
  const auto before = state(config_.base_model), after = state(config_.output_dir / "checkpoints/step-000000");
  ASSERT_EQ(after.size(), before.size());
  for (const auto& [name, tensor] : before) EXPECT_TRUE(at::equal(after.at(name), tensor)) << name;
  const auto steps = [this] { return load_model(config_.output_dir, at::kFloat).training_state.at("optimizer_steps"); };
  EXPECT_EQ(steps(), 7);
  config_.output_dir = folder_ / "cold";
  config_.load_optimizer = false;
  train();
  EXPECT_EQ(steps(), 0);
  for (const auto& [name, tensor] : state(config_.output_dir / "checkpoints/step-000000")) {
    EXPECT_EQ(tensor.abs().max().item<double>(), 0.0) << name;
  }
}

TEST_F(NewestSft, LearnsAtTheRatesOfPretrainingAndResumesBitForBit) {
  config_.num_iterations = 30;
  config_.checkpoint_interval = 10;
  EXPECT_EQ(train().steps, 30);
  const auto losses = figures("loss"), rates = figures("lr_multiplier");
  ASSERT_EQ(losses.size(), 30U);
  EXPECT_LT(losses.back(), 0.5 * losses.front());
  ASSERT_EQ(rates.size(), 30U);
  EXPECT_EQ(rates[15], 1.0) << "the first half";
  EXPECT_NEAR(rates[24], 6.0 / 15.0, 1e-12) << "falls to zero in the second";
  const LoadedModel whole = load_model(config_.output_dir, at::kFloat);
  EXPECT_EQ(whole.training_state.at("optimizer_steps"), 37);
  EXPECT_EQ(whole.training_state.at("invariants").at("learning_rates"), nlohmann::json({0.3, 0.008, 0.02}));
  forget_after(10);
  config_.resume = "latest";
  EXPECT_EQ(train().steps, 30);
  const LoadedModel resumed = load_model(config_.output_dir, at::kFloat);
  testing::expect_same_weights(*whole.model, *resumed.model);
  EXPECT_EQ(resumed.training_state.at("optimizer_steps"), 37);
  EXPECT_EQ(losses, figures("loss"));
}

// The reference's packing never uses conversations that are longer than a row, until its rows are empty and the loss is NaN.
TEST_F(NewestSft, LongConversationsAreCutAndTheLossStaysANumber) {
  std::string text;
  for (int i = 0; i < 120; ++i) {
    text += R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":")" + std::string(200, 'x') + "\"}]}\n";
  }
  testing::write_text(folder_ / "chat.jsonl", text);
  train();
  ASSERT_EQ(figures("loss").size(), 12U);
  for (const double loss : figures("loss")) EXPECT_TRUE(std::isfinite(loss) && loss > 0.0) << loss;
  for (const double supervised : figures("supervised_tokens")) EXPECT_GT(supervised, 0.0);
}

TEST_F(NewestSft, SaysWhatTheCheckpointOrTheRecipeLacks) {
  config_.num_iterations = 1;
  fs::remove(fs::path(config_.base_model) / "optimizer.rank-0-of-1.safetensors");
  train();
  EXPECT_THAT(log(), HasSubstr("no state of the optimizer"));
  EXPECT_THAT(log(), ::testing::Not(HasSubstr("--recipe")));
  config_.recipe = "nanochat-2025-12";
  config_.output_dir = folder_ / "old";
  config_.load_optimizer = false;
  train();
  EXPECT_THAT(log(), HasSubstr("--recipe nanochat-2026-07"));
}

TEST_F(Sft, ATrialEndsEarlyAndGoesOn) {
  config_.max_steps = 2;
  const TrainingResult trial = train();
  EXPECT_EQ(trial.steps, 2);
  EXPECT_FALSE(trial.interrupted);
  config_.max_steps = -1;
  config_.resume = "latest";
  EXPECT_EQ(train().steps, 12);
  config_.resume.clear();
  config_.output_dir = folder_ / "whole";
  train();
  EXPECT_TRUE(at::equal(load_model(folder_ / "run", at::kFloat).model->parameters()[3].value,
                        load_model(folder_ / "whole", at::kFloat).model->parameters()[3].value));
}

TEST_F(Sft, NoEpochIsNoStep) {
  config_.num_iterations = -1;
  config_.num_epochs = 0;
  const TrainingResult result = train();
  EXPECT_EQ(result.steps, 0);
  EXPECT_TRUE(figures("loss").empty());
  testing::expect_same_weights(*load_model(config_.output_dir, at::kFloat).model,
                               *load_model(config_.base_model, at::kFloat).model);
}

TEST_F(Sft, NothingIsHeldOutWhereTheShareIsZero) {
  config_.data.validation_share = 0;
  ::testing::internal::CaptureStderr();  // there is no log.txt while data are read
  const TrainingResult result = train();
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(result.steps, 12);
  EXPECT_TRUE(std::isnan(result.score));
  EXPECT_TRUE(figures("validation_loss").empty());
  EXPECT_THAT(said, HasSubstr("--validation-share 0"));
  EXPECT_THAT(said, HasSubstr("training: 200 conversations"));
}

TEST_F(Sft, AResumedRunMayHaveMoreStepsAndOtherMicroBatches) {
  config_.muon_dtype = "float32";
  config_.total_batch_size = 512;  // eight rows: two micro-batches of the base model's four
  train();
  const auto whole = figures("loss");
  forget_after(5);
  config_.resume = "latest";
  config_.device_batch_size = 8;
  EXPECT_EQ(train().steps, 12);
  constexpr double kRounding = 1e-4;  // of float32 sums in another order, after seven steps
  const auto resumed = figures("loss");
  ASSERT_EQ(resumed.size(), whole.size());
  for (std::size_t i = 0; i < whole.size(); ++i) EXPECT_NEAR(resumed[i], whole[i], kRounding) << i;
  config_.num_iterations = 15;
  EXPECT_EQ(train().steps, 15);
  EXPECT_THAT(log(), HasSubstr("num_iterations: 12 → 15"));
  config_.device_batch_size = 3;  // three micro-batches of three rows are nine
  EXPECT_THAT([this] { train(); }, ThrowsMessage<ConfigError>(::testing::AllOf(HasSubstr("tokens_per_step: 512 → 576"),
                                                                               HasSubstr("device_batch_size"))));
}

TEST_F(Sft, AnAutomaticDeviceBatchTakesAStepInOnePass) {
  config_.num_iterations = 2;
  config_.device_batch_size = kAutoDeviceBatch;
  train();
  const LoadedModel trained = load_model(config_.output_dir, at::kFloat);
  EXPECT_GT(trained.training_state.at("config").at("device_batch_size"), 8) << "of what fits, more than a step needs";
}

TEST_F(Sft, TheHorizonIsTheEpochs) {
  config_.num_iterations = -1;
  config_.num_epochs = 0.25;  // 190 conversations of 25 positions, two a row of 64; 8 a step make 4 rows
  config_.eval_interval = -1;
  EXPECT_EQ(train().steps, 5);
}

TEST_F(Sft, ConversationsThatTeachNothingAreLeftOutOrAnError) {
  const auto cut = [](char c) {  // the context of 64 ends before the answer begins
    return "{\"messages\":[{\"role\":\"user\",\"content\":\"" + std::string(200, c) +
           "\"},{\"role\":\"assistant\",\"content\":\"cut\"}]}\n";
  };
  testing::write_text(folder_ / "chat.jsonl", cut('x') + cut('y'));
  EXPECT_THAT([this] { train(); },
              ThrowsMessage<DataError>(HasSubstr("training: nothing can be learned from any of the 2 conversations")));
  EXPECT_FALSE(fs::exists(config_.output_dir)) << "no run is left behind";

  // Beside two that are good: every step learns something, and what is measured is a number. One has an empty answer, of which
  // <|assistant_end|> alone is learned, which stands for no bytes.
  const std::string good = R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":""}]})"
                           "\n";
  testing::write_text(folder_ / "chat.jsonl", cut('x') + good + cut('y') + good);
  config_.examples_per_step = 1;
  EXPECT_TRUE(std::isfinite(train().score));
  for (const double supervised : figures("supervised_tokens")) EXPECT_GT(supervised, 0);
  for (const double loss : figures("loss")) EXPECT_GT(loss, 0.0);
  EXPECT_TRUE(figures("bpb").empty()) << "bits per no bytes are not written";
}

TEST_F(Sft, AMessageOfWeightZeroIsNotLearned) {
  int runs = 0;
  const auto supervised = [&](const std::string& more) {
    testing::write_text(folder_ / "chat.jsonl",
                        R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"BAD")" + more +
                            R"(},{"role":"user","content":"r"},{"role":"assistant","content":"GOOD"}]})"
                            "\n");
    config_.data.validation_share = 0.0;
    config_.num_iterations = config_.examples_per_step = 1;
    config_.output_dir = folder_ / ("run" + std::to_string(++runs));
    const TrainingResult result = train();
    EXPECT_TRUE(std::isnan(result.score)) << "nothing is held out";
    return figures("supervised_tokens").front();
  };
  const double whole = supervised("");
  EXPECT_EQ(whole - supervised(R"(,"weight":0)"), 4) << "BAD and <|assistant_end|>";
  EXPECT_EQ(whole - supervised(R"(,"train":false)"), 4);
  EXPECT_EQ(whole - supervised(R"(,"weight": 1.0)"), 0);
}

TEST_F(Sft, SaysWhatDoesNotFit) {
  const auto failing = [this](auto change) {
    SftConfig broken = config_;
    change(broken);
    return [broken] {
      SilentProgress progress;
      sft(broken, progress);
    };
  };
  EXPECT_THAT(failing([](auto& c) { c.data.data_dir.clear(); }),
              ThrowsMessage<ConfigError>(HasSubstr("--data-dir is missing")));
  EXPECT_THAT(failing([](auto& c) { c.data.mixture = "[]"; }), ThrowsMessage<ConfigError>(HasSubstr("both given")));
  EXPECT_THAT(failing([](auto& c) { c.output_dir.clear(); }), ThrowsMessage<ConfigError>(HasSubstr("--output-dir")));
  EXPECT_THAT(failing([](auto& c) { c.total_batch_size = 100; }), ThrowsMessage<ConfigError>(HasSubstr("nearest is 128")));
  EXPECT_THAT(failing([](auto& c) { c.resume = "latest"; }), ::testing::Throws<CheckpointError>());
  train();
  config_.resume = "latest";
  config_.matrix_lr = 1.0;
  EXPECT_THAT([this] { train(); }, ThrowsMessage<ConfigError>(HasSubstr("matrix_lr")));
}

TEST_F(Sft, DoesNotResumeFromACheckpointOfAnotherStage) {
  config_.resume = config_.base_model;
  EXPECT_THAT([this] { train(); }, ThrowsMessage<ConfigError>(HasSubstr("give it as --base-model")));
}

}  // namespace
}  // namespace nanochat
