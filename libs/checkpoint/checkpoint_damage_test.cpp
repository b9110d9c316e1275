// Every file of a checkpoint, damaged: the loader says so in one line, or the file is one it does not need.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/testing.h"
#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/random.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class CheckpointDamageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const Gpt model = testing::small_model();
    CheckpointContents contents;
    contents.config = &model.config();
    contents.weights = model_weights(model);
    contents.optimizer = {{"m", model.parameters()[0].value}};
    const auto tokenizer = testing::byte_tokenizer(temporary_.path());
    contents.tokenizer = tokenizer.get();
    contents.training_state = {{"step", 3}};
    save_checkpoint(folder_, contents);
  }
  // Loads everything. The message of the error, empty when there was none.
  std::string load_all() {
    try {
      load_model(folder_, at::kFloat);
      NamedTensors state = {{"m", at::Tensor(testing::small_model().parameters()[0].value)}};
      load_optimizer_state(folder_, state);
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ExitCode::kCheckpoint || error.code() == ExitCode::kData) << error.what();
      return error.what();
    }
    return "";
  }
  testing::TemporaryDirectory temporary_;
  fs::path folder_ = temporary_ / "checkpoint";
};

TEST_F(CheckpointDamageTest, FlippedWeightIsFound) {
  for (const char* name : {"model.safetensors", "optimizer.rank-0-of-1.safetensors"}) {
    const std::string original = read_file(folder_ / name);
    std::string damaged = original;
    damaged[damaged.size() - 5] ^= 1;
    testing::write_text(folder_ / name, damaged);
    EXPECT_THAT(load_all(), HasSubstr(std::string(name) + ": its SHA-256 differs"));
    EXPECT_THROW(verify_checkpoint(folder_), CheckpointError);
    testing::write_text(folder_ / name, original);
  }
  EXPECT_EQ(load_all(), "");
  fs::remove(folder_ / "generation_config.json");
  EXPECT_THROW(verify_checkpoint(folder_), CheckpointError) << "a listed file is missing";
}

TEST_F(CheckpointDamageTest, EveryFileTruncatedOrFlipped) {
  Rng rng(4);
  for (const char* name :
       {"model.safetensors", "optimizer.rank-0-of-1.safetensors", "config.json", "training_state.json", "tokenizer.json"}) {
    const std::string original = read_file(folder_ / name);
    for (int round = 0; round < 40; ++round) {
      std::string damaged = original;
      const bool truncate = round % 2 == 0;
      if (truncate) {
        damaged.resize(round == 0 ? 0 : rng.below(original.size() - 2));
      } else {
        damaged[rng.below(std::min<std::size_t>(damaged.size(), 1000))] ^= static_cast<char>(1 << rng.below(8));
      }
      testing::write_text(folder_ / name, damaged);
      const std::string message = load_all();
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      if (truncate || std::string(name).ends_with(".safetensors")) {
        EXPECT_THAT(message, HasSubstr(std::string(name))) << "round " << round;
      }
    }
    testing::write_text(folder_ / name, original);
  }
  EXPECT_EQ(load_all(), "");
}

}  // namespace
}  // namespace nanochat
