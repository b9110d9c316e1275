#include "training/sft/sft.h"

#include <ATen/ops/equal.h>

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/run_folder.h"
#include "core/errors.h"
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

INSTANTIATE_TEST_SUITE_P(All, SftPackings, ::testing::Values("best-fit", "padding"));

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
