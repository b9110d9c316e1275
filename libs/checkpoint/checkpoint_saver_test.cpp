#include "checkpoint/checkpoint_saver.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "checkpoint/testing.h"
#include "core/errors.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

void nothing(const SaveTimes&) {}

// Fails as a disk does that is full after the weights.
class FullDisk : public Tokenizer {
 public:
  using Tokenizer::encode;
  std::string_view type() const override { return "full"; }
  std::int64_t vocab_size() const override { return 265; }
  void encode(std::string_view, std::vector<TokenId>&) const override {}
  std::string_view token_bytes(TokenId) const override { return "x"; }
  const std::vector<std::string>& special_tokens() const override {
    static const std::vector<std::string> none;
    return none;
  }
  void save(const fs::path&) const override { throw IoError("No space left on device"); }
};

class CheckpointSaverTest : public ::testing::Test {
 protected:
  CheckpointContents contents(std::int64_t step) const {
    CheckpointContents result;
    result.config = &model_.config();
    result.weights = model_weights(model_);
    result.optimizer = {{"m", model_.parameters()[0].value}};
    result.training_state = {{"step", step}};
    return result;
  }
  std::size_t entries() const {  // of the folder, hidden ones included
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder_.path()), fs::directory_iterator()));
  }

  testing::TemporaryDirectory folder_;
  Gpt model_ = testing::small_model();
  fs::path first_ = folder_ / "first", second_ = folder_ / "second";
};

TEST_F(CheckpointSaverTest, SavesTheValuesOfTheCallWhateverComesAfter) {
  for (const bool background : {true, false}) {
    const at::Tensor before = model_.parameters()[0].value.clone();
    CheckpointSaver saver(background);
    SaveTimes times;
    saver.save(first_, contents(1), [&](const SaveTimes& measured) { times = measured; });
    model_.parameters()[0].value.add_(1.0);
    saver.wait();
    EXPECT_TRUE(at::equal(load_model(first_, at::kFloat).model->parameters()[0].value, before));
    NamedTensors state = {{"m", at::zeros_like(before)}};
    load_optimizer_state(first_, state);
    EXPECT_TRUE(at::equal(state[0].second, before));
    EXPECT_EQ(saver.last_saved(), first_);
    EXPECT_GT(times.written, 0.0);
    EXPECT_EQ(times.stalled == times.waited + times.copied, background);
  }
}

TEST_F(CheckpointSaverTest, ReturnsBeforeTheCheckpointStandsAndTheNextWaits) {
  CheckpointSaver saver(true);
  std::promise<void> go;
  std::atomic<int> done = 0;
  saver.then([&, may_go = go.get_future().share()] { may_go.wait(); });
  // Nothing of the first save can be done while the thread is held up.
  auto releasing = std::async(std::launch::async, [&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_FALSE(fs::exists(first_));
    go.set_value();
  });
  SaveTimes times;
  saver.save(first_, contents(1), [&](const SaveTimes& measured) {
    times = measured;
    ++done;
  });
  saver.save(second_, contents(2), [&](const SaveTimes&) { EXPECT_EQ(done++, 1); });
  saver.wait();
  EXPECT_EQ(done, 2);
  EXPECT_GE(times.waited, 0.02);  // for the task before
  EXPECT_EQ(load_model(second_, at::kFloat).training_state.at("step"), 2);
}

TEST_F(CheckpointSaverTest, AFailedSaveHarmsNothingAndIsReportedOnce) {
  const FullDisk full;
  for (const bool background : {true, false}) {
    CheckpointSaver saver(background);
    saver.save(first_, contents(1), nothing);
    saver.wait();
    CheckpointContents failing = contents(2);
    failing.tokenizer = &full;
    bool marked = false, afterwards = false;
    const auto fail = [&] {
      saver.save(first_, failing, [&](const SaveTimes&) { afterwards = true; });  // of the same name: the worst case
      saver.then([&] { marked = true; });
      saver.wait();
    };
    EXPECT_THAT(fail, ThrowsMessage<IoError>(HasSubstr("No space left")));
    EXPECT_NO_THROW(saver.check());
    EXPECT_FALSE(marked || afterwards);
    EXPECT_EQ(saver.last_saved(), first_);
    EXPECT_EQ(load_model(first_, at::kFloat).training_state.at("step"), 1);
    EXPECT_GT(verify_checkpoint(first_), 3u);
    EXPECT_EQ(entries(), 1u) << "something half-written was left";
    saver.save(first_, contents(3), nothing);  // and it can go on
    saver.wait();
    EXPECT_EQ(load_model(first_, at::kFloat).training_state.at("step"), 3);
  }
}

TEST_F(CheckpointSaverTest, TheEndWaits) {
  {
    CheckpointSaver saver(true);
    saver.save(first_, contents(1), nothing);
  }
  EXPECT_GT(verify_checkpoint(first_), 3u);
}

}  // namespace
}  // namespace nanochat
