// Several processes that write one checkpoint together, here as threads with a board in memory.
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <future>
#include <map>
#include <mutex>

#include "checkpoint/checkpoint.h"
#include "checkpoint/testing.h"
#include "core/errors.h"
#include "distributed/communicator.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

struct Messages {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::string, std::string> texts;
};

class BoardInMemory : public MessageBoard {
 public:
  explicit BoardInMemory(Messages& messages) : messages_(messages) {}
  void post(const std::string& name, const std::string& text) override {
    const std::scoped_lock lock(messages_.mutex);
    messages_.texts[name] = text;
    messages_.changed.notify_all();
  }
  std::string wait(const std::string& name) override {
    std::unique_lock lock(messages_.mutex);
    messages_.changed.wait(lock, [&] { return messages_.texts.contains(name); });
    return messages_.texts.at(name);
  }

 private:
  Messages& messages_;
};

// Of 10 rows the rank's share, as Optimizer divides them; and a matrix that belongs to one rank.
constexpr std::int64_t kRows = 10;
std::int64_t first_row(int rank, int ranks) { return kRows * rank / ranks; }
at::Tensor whole_table() { return at::arange(kRows * 3, at::kFloat).view({kRows, 3}); }
at::Tensor matrix() { return at::arange(8, at::kFloat).view({4, 2}).add(100); }

NamedTensors state_of(int rank, int ranks) {
  const std::int64_t first = first_row(rank, ranks), end = first_row(rank + 1, ranks);
  NamedTensors state{{"table.exp_avg", whole_table().narrow(0, first, end - first)}};
  if (rank == ranks - 1) state.emplace_back("matrix.momentum_buffer", matrix());
  return state;
}

class SharedSaveTest : public ::testing::Test {
 protected:
  // Message of the error of each rank, or "".
  std::vector<std::string> save(int ranks, int bad = -1) {
    std::vector<std::future<std::string>> saving;
    for (int rank = 0; rank < ranks; ++rank) {
      saving.push_back(std::async(std::launch::async, [this, rank, ranks, bad, number = number_] {
        BoardInMemory board(messages_);
        CheckpointContents contents;
        contents.optimizer = state_of(rank, ranks);
        if (rank == bad) contents.optimizer.emplace_back("undefined", at::Tensor());
        contents.shared = {&board, rank, ranks, number};
        if (rank == 0) {
          contents.config = &model_.config();
          contents.weights = model_weights(model_);
          contents.training_state = {{"step", 7}};
        }
        try {
          save_checkpoint(folder_, contents);
        } catch (const std::exception& error) {
          return std::string(error.what());
        }
        return std::string();
      }));
    }
    ++number_;
    std::vector<std::string> errors;
    for (auto& one : saving) errors.push_back(one.get());
    return errors;
  }

  testing::TemporaryDirectory parent_;
  fs::path folder_ = parent_ / "step-000007";
  Gpt model_ = testing::small_model();
  Messages messages_;
  std::int64_t number_ = 0;
};

TEST_F(SharedSaveTest, AnyNumberOfProcessesReadsWhatAnyNumberWrote) {
  for (const int writers : {1, 2, 3, 4}) {
    for (const std::string& error : save(writers)) EXPECT_EQ(error, "");
    EXPECT_EQ(verify_checkpoint(folder_), 3u + static_cast<std::size_t>(writers)) << "all files are listed with their hashes";
    EXPECT_TRUE(describe_checkpoint(folder_).has_optimizer);
    EXPECT_EQ(load_model(folder_, at::kFloat).training_state.at("step"), 7);
    for (const int readers : {1, 2, 3, 4, 7}) {
      for (int rank = 0; rank < readers; ++rank) {
        const std::int64_t first = first_row(rank, readers), rows = first_row(rank + 1, readers) - first;
        NamedTensors state{{"table.exp_avg", at::zeros({rows, 3})}, {"matrix.momentum_buffer", at::zeros({4, 2})}};
        load_optimizer_state(folder_, state, {first, 0});
        EXPECT_TRUE(state[0].second.equal(whole_table().narrow(0, first, rows)))
            << writers << " to " << readers << ", rank " << rank;
        EXPECT_TRUE(state[1].second.equal(matrix()));
      }
    }
    NamedTensors all{{"table.exp_avg", at::zeros({kRows, 3})}, {"matrix.momentum_buffer", at::zeros({4, 2})}};
    load_optimizer_state(folder_, all);
    EXPECT_TRUE(all[0].second.equal(whole_table()));
  }
}

TEST_F(SharedSaveTest, OneThatFailsFailsAllAndHarmsNothing) {
  for (const std::string& error : save(3)) EXPECT_EQ(error, "");
  for (const int bad : {0, 2}) {
    const std::vector<std::string> errors = save(3, bad);
    for (const std::string& error : errors) EXPECT_THAT(error, HasSubstr("undefined")) << "rank " << bad << " failed";
    if (bad != 0) {
      EXPECT_THAT(errors[0], HasSubstr("rank 2: "));
      EXPECT_THAT(errors[1], HasSubstr("rank 2: "));
    }
    EXPECT_EQ(verify_checkpoint(folder_), 6u);
    EXPECT_EQ(std::distance(fs::directory_iterator(parent_.path()), fs::directory_iterator()), 1)
        << "nothing half-written is left";
  }
}

TEST_F(SharedSaveTest, RefusesAStateWithMissingParts) {
  save(3);
  const auto load = [&] {
    NamedTensors state{{"table.exp_avg", at::zeros({kRows, 3})}};
    load_optimizer_state(folder_, state, {0});
  };
  EXPECT_NO_THROW(load());
  const auto beyond = [&] {
    NamedTensors state{{"table.exp_avg", at::zeros({2, 3})}};
    load_optimizer_state(folder_, state, {kRows - 1});
  };
  EXPECT_THAT(beyond,
              ThrowsMessage<CheckpointError>(HasSubstr("has 10 rows of table.exp_avg, but 2 from row 9 on are needed")));
  const fs::path file = folder_ / "optimizer.rank-1-of-3.safetensors", elsewhere = parent_ / "elsewhere";
  fs::rename(file, elsewhere);
  EXPECT_THAT(load, ThrowsMessage<CheckpointError>(HasSubstr("rank-1-of-3.safetensors: is missing")));
  fs::rename(elsewhere, file);
  fs::copy(file, folder_ / "optimizer.rank-0-of-1.safetensors");
  EXPECT_THAT(load, ThrowsMessage<CheckpointError>(HasSubstr("do not belong together")));
}

}  // namespace
}  // namespace nanochat
