// Steps of several processes that divide all weights (--shard full), against processes that divide the optimizer's state alone.
#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/errors.h"
#include "core/testing_memory.h"
#include "distributed/testing.h"
#include "model/testing.h"
#include "optim/rank_plan.h"
#include "optim/sharded_weights.h"
#include "training/trainer/batch_tensors.h"
#include "training/trainer/testing_ranks.h"
#include "training/trainer/train_step.h"

namespace nanochat {
namespace {

using testing::batches_of;
using testing::kTime;
using testing::kVocab;
using testing::share_of;
using ::testing::StartsWith;
using ::testing::ThrowsMessage;

constexpr StepSettings kSettings{.muon_weight_decay = 0.1, .grad_clip = 0.5};

// Deep enough that layers take turns in a buffer.
GptConfig config_of(Architecture architecture) {
  GptConfig config = testing::config_of(architecture);
  config.n_layer = 5;
  return config;
}

void fill_as(const Gpt& whole, Gpt& model) {
  for (std::size_t i = 0; i < model.parameters().size(); ++i) {
    model.set_value(model.parameters()[i], [&](at::Tensor& value) { value.copy_(whole.parameters()[i].value); });
  }
  model.refresh_compute();
}

struct ShardedLearner {
  ShardedLearner(const GptConfig& config, at::ScalarType dtype, const OptimizerOptions& options, Communicator& communicator)
      : model(config, dtype, at::kCPU, Purpose::kTraining, Residency::kShared),
        shards(model, communicator, options.gradient_comm_dtype),
        optimizer(model.parameters(), config.n_embd, options, communicator, &shards) {
    fill_as(testing::random_model(config, dtype, 1), model);
  }

  Gpt model;
  ShardedWeights shards;
  Optimizer optimizer;
};

struct Trained {
  std::vector<double> losses, norms;
  std::map<std::string, at::Tensor> values;  // on rank 0
};

struct Task {
  GptConfig config;
  int steps = 3, micro_batches = 1;
  at::ScalarType dtype = at::kFloat;
  bool recompute = false;
};

void take_steps(Gpt& model, Optimizer& optimizer, const Task& task, Trained& trained) {
  model.set_recompute(task.recompute);
  for (int step = 0; step < task.steps; ++step) {
    const auto batches = batches_of(static_cast<std::uint64_t>(step), task.micro_batches);
    const StepResult result = train_step(model, optimizer, share_of(batches, optimizer.communicator()), kSettings);
    trained.losses.push_back(result.loss);
    trained.norms.push_back(result.grad_norm);
  }
  optimizer.gather_values();
}

Trained train_whole(Communicator& communicator, const Task& task) {
  at::set_num_threads(1);
  Trained trained;
  Gpt model = testing::random_model(task.config, task.dtype, 1);
  Optimizer optimizer(model.parameters(), task.config.n_embd, testing::options_for(task.config), communicator);
  take_steps(model, optimizer, task, trained);
  for (const Parameter& parameter : model.parameters()) trained.values.emplace(parameter.name, parameter.value);
  return trained;
}

Trained train_sharded(Communicator& communicator, const Task& task) {
  at::set_num_threads(1);
  Trained trained;
  ShardedLearner learner(task.config, task.dtype, testing::options_for(task.config), communicator);
  take_steps(learner.model, learner.optimizer, task, trained);
  for (const auto& [name, value] : learner.shards.gather_values()) trained.values.emplace(name, value);
  return trained;
}

class ShardedRanks : public ::testing::TestWithParam<std::tuple<int, Architecture>> {
 protected:
  static int ranks() { return std::get<0>(GetParam()); }
  static GptConfig config() { return config_of(std::get<1>(GetParam())); }
};

// With a micro-batch for each process the same sums are added in the same order.
TEST_P(ShardedRanks, TakeTheSameStepsBitForBit) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const bool recompute : {false, true}) {
      const Task task{.config = config(), .micro_batches = ranks(), .dtype = dtype, .recompute = recompute};
      testing::run_ranks(ranks(), [&](Communicator& communicator) {
        const Trained whole = train_whole(communicator, task), sharded = train_sharded(communicator, task);
        EXPECT_EQ(whole.losses, sharded.losses);
        EXPECT_EQ(whole.norms, sharded.norms);
        if (!communicator.is_root()) return;
        ASSERT_EQ(whole.values.size(), sharded.values.size());
        for (const auto& [name, value] : whole.values) EXPECT_TRUE(at::equal(value, sharded.values.at(name))) << name;
      });
    }
  }
}

// Of several micro-batches, each sum over the processes is added to those before it, and not the sum of each process to the
// others'. Some processes have a micro-batch less than others, or none.
TEST_P(ShardedRanks, TakeTheStepsOfOneProcess) {
  constexpr double kLoss = 1e-5, kNorm = 1e-4;
  for (const int micro_batches : {2 * ranks() + 1, ranks() - 1}) {
    const Task task{.config = config(), .micro_batches = micro_batches};
    const Trained one = train_whole(alone(), task);
    testing::run_ranks(ranks(), [&](Communicator& communicator) {
      const Trained sharded = train_sharded(communicator, task);
      for (std::size_t step = 0; step < one.losses.size(); ++step) {
        EXPECT_NEAR(sharded.losses[step], one.losses[step], kLoss) << micro_batches << " step " << step;
        EXPECT_NEAR(sharded.norms[step], one.norms[step], kNorm) << micro_batches << " step " << step;
      }
    });
  }
}

// Each process may make its own number of passes, with the results of a model that has all weights.
TEST_P(ShardedRanks, MakeUnevenForwardPasses) {
  Gpt whole = testing::random_model(config(), at::kFloat, 1);
  testing::run_ranks(ranks(), [&](Communicator& communicator) {
    at::set_num_threads(1);
    ShardedLearner learner(config(), at::kFloat, testing::options_for(config()), communicator);
    for (int turn = 0; turn < 2; ++turn) {
      // Rank 0 makes none the first time.
      const int passes = turn == 0 ? communicator.rank() : communicator.size() - communicator.rank();
      const int made = uneven_passes(learner.model, [&] {
        for (int pass = 0; pass < passes; ++pass) {
          const TokenBatch batch = batches_of(static_cast<std::uint64_t>(pass), 1).front();
          const at::Tensor losses = learner.model.token_losses(inputs_of(batch), targets_of(batch));
          static std::mutex mutex;
          const std::scoped_lock lock(mutex);  // one model for all threads
          EXPECT_TRUE(at::equal(losses, whole.token_losses(inputs_of(batch), targets_of(batch))));
        }
        return passes;
      });
      EXPECT_EQ(made, passes);
    }
    // And they train on together.
    const double loss = train_step(learner.model, learner.optimizer, share_of(batches_of(0, ranks()), communicator), {}).loss;
    EXPECT_TRUE(std::isfinite(loss));
  });
}

TEST_P(ShardedRanks, SayTheSameOfAGradientThatIsNotFinite) {
  const int bad = ranks() - 1;
  testing::run_ranks(ranks(), [&](Communicator& communicator) {
    at::set_num_threads(1);
    ShardedLearner learner(config(), at::kFloat, testing::options_for(config()), communicator);
    const auto values = [&] {
      std::map<std::string, at::Tensor> found;
      learner.model.visit_values([&](const std::string& name, const at::Tensor& value) { found.emplace(name, value.clone()); });
      return found;
    };
    const auto before = values();
    std::vector<TokenBatch> batches = share_of(batches_of(1, 2 * ranks() - 1), communicator);
    for (TokenBatch& batch : batches) batch.weights.assign(batch.targets.size(), 0.01F);
    if (communicator.rank() == bad) batches[0].weights.back() = std::numeric_limits<float>::quiet_NaN();
    EXPECT_THAT([&] { train_step(learner.model, learner.optimizer, batches, {}); },
                ThrowsMessage<NumericalError>(StartsWith("rank " + std::to_string(bad) + ": ")));
    for (const auto& [name, value] : values()) EXPECT_TRUE(at::equal(value, before.at(name))) << name << ": not applied";
    batches = share_of(batches_of(2, ranks()), communicator);
    EXPECT_TRUE(std::isfinite(train_step(learner.model, learner.optimizer, batches, {}).loss)) << "and they go on together";
  });
}

// Its owner looks at it, and every process says it, though all compute with it.
TEST_P(ShardedRanks, NameAWeightThatIsNotFinite) {
  const int bad = ranks() - 1;
  testing::run_ranks(ranks(), [&](Communicator& communicator) {
    at::set_num_threads(1);
    ShardedLearner learner(config(), at::kFloat, testing::options_for(config()), communicator);
    for (const Parameter& parameter : learner.model.parameters()) {
      Shard* shard = learner.shards.find(parameter);
      if (parameter.spec.slot != WeightSlot::kTokenEmbedding || communicator.rank() != bad) continue;
      shard->value.fill_(std::numeric_limits<float>::quiet_NaN());
    }
    const auto batches = share_of(batches_of(0, ranks()), communicator);
    EXPECT_THAT([&] { train_step(learner.model, learner.optimizer, batches, {}); },
                ThrowsMessage<NumericalError>(StartsWith(fmt::format("rank {}: model.embed_tokens.weight has ", bad))));
  });
}

TEST_P(ShardedRanks, SendWhatTheFormulaSays) {
  // Beside them go agreements, the norm and the loss, and each piece of a tensor is rounded to whole bytes.
  constexpr std::int64_t kFigures = 2000;
  for (const auto& [dtype, sent] :
       std::vector<std::pair<at::ScalarType, at::ScalarType>>{{at::kFloat, at::kFloat}, {at::kBFloat16, at::kBFloat16}}) {
    for (const int micro_batches : {1, 3}) {
      const StepTraffic expected = sharded_step_traffic(config(), ranks(), micro_batches, dtype == at::kFloat ? 4 : 2,
                                                        sent == at::kFloat ? 4 : 2);
      testing::run_ranks(ranks(), [&, dtype = dtype, sent = sent](Communicator& communicator) {
        at::set_num_threads(1);
        OptimizerOptions with = testing::options_for(config());
        with.gradient_comm_dtype = sent;
        ShardedLearner learner(config(), dtype, with, communicator);
        const auto step = [&] {
          const std::int64_t before = communicator.bytes_sent();
          train_step(learner.model, learner.optimizer, share_of(batches_of(0, micro_batches * ranks()), communicator), {});
          return communicator.bytes_sent() - before;
        };
        step();
        EXPECT_NEAR(static_cast<double>(step()), static_cast<double>(expected.total()), kFigures) << micro_batches;
      });
    }
  }
}

// What the tensors of a process hold, each storage counted once.
class Held {
 public:
  void add(const at::Tensor& tensor) {
    if (tensor.defined() && seen_.insert(tensor.storage().data()).second)
      bytes_ += static_cast<std::int64_t>(tensor.storage().nbytes());
  }
  std::int64_t bytes() const { return bytes_; }

 private:
  std::set<const void*> seen_;
  std::int64_t bytes_ = 0;
};

// What a process holds is what the plan says of the one that has most.
TEST_P(ShardedRanks, HoldWhatThePlanSays) {
  GptConfig c = GptConfig::from_depth(4, 512, kTime, std::get<1>(GetParam()));
  constexpr double kAlignment = 0.002;  // of what lies in buffers
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const TrainingShape shape{.sequence_len = kTime, .compute_bytes = dtype == at::kFloat ? 4 : 2, .shard_weights = true};
    const MemoryEstimate planned = estimate_rank_memory(c, shape, ranks());
    std::mutex mutex;
    std::int64_t most = 0, most_state = 0;
    testing::run_ranks(ranks(), [&](Communicator& communicator) {
      at::set_num_threads(1);
      ShardedLearner learner(c, dtype, testing::options_for(c), communicator);
      learner.model.zero_grad();
      Held held, state;
      for (const Parameter& parameter : learner.model.parameters()) {
        for (const at::Tensor& tensor : {parameter.value, parameter.compute, parameter.grad}) held.add(tensor);
        if (const Shard* shard = learner.shards.find(parameter)) {
          for (const at::Tensor& tensor : {shard->value, shard->compute, shard->grad}) held.add(tensor);
        }
      }
      for (const auto& [name, tensor] : learner.optimizer.state()) state.add(tensor);
      const std::scoped_lock lock(mutex);
      most = std::max(most, held.bytes());
      most_state = std::max(most_state, state.bytes());
    });
    const auto expected = static_cast<double>(planned.weights + planned.gradients);
    EXPECT_NEAR(static_cast<double>(most), expected, kAlignment * expected) << at::toString(dtype);
    EXPECT_GE(most_state, planned.optimizer);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, ShardedRanks,
                         ::testing::Combine(::testing::Values(2, 3),
                                            ::testing::Values(Architecture::kNanochat2025_12, Architecture::kNanochat2026_07)),
                         [](const auto& tested) {
                           return testing::name_of(std::get<1>(tested.param), std::get<0>(tested.param));
                         });

// Resident memory while two processes (here threads) train: of weights, gradients and the optimizer's state each has half, and
// the buffers of a few layers.
TEST(ShardedWeightsMemory, OfTwoProcessesIsThatOfOneAndBuffers) {
  if (testing::kFreedMemoryIsKept) GTEST_SKIP() << "memory in use cannot be measured with AddressSanitizer";
  GptConfig config = testing::config_of(Architecture::kNanochat2025_12);
  config.n_layer = 16;
  config.n_embd = 256;
  config.intermediate_size = 1024;
  const auto step = [](Gpt& model, Optimizer& optimizer) {
    train_step(model, optimizer, share_of(batches_of(0, 2), optimizer.communicator()), {});
    optimizer.wait_for_weights();
  };
  const auto sharded = [&](const GptConfig& of) {
    testing::run_ranks(2, [&](Communicator& communicator) {
      at::set_num_threads(1);
      Gpt model(of, at::kFloat, at::kCPU, Purpose::kTraining, Residency::kShared);
      ShardedWeights shards(model, communicator);
      model.init_weights(1);
      Optimizer optimizer(model.parameters(), of.n_embd, testing::options_for(of), communicator, &shards);
      step(model, optimizer);
    });
  };
  const auto whole = [&](const GptConfig& of) {
    testing::run_ranks(2, [&](Communicator& communicator) {
      at::set_num_threads(1);
      Gpt model(of, at::kFloat);
      model.init_weights(1);
      Optimizer optimizer(model.parameters(), of.n_embd, testing::options_for(of), communicator);
      step(model, optimizer);
    });
  };
  // Tensors go back to the system when they are freed, so that what one run leaves does not count for the next.
  ::mallopt(M_MMAP_THRESHOLD, 1 << 17);
  sharded(config);  // what libraries take on first use
  const auto with_shards = testing::peak_memory_of([&] { sharded(config); });
  const auto with_all = testing::peak_memory_of([&] { whole(config); });
  if (!with_shards || !with_all) GTEST_SKIP() << "the kernel does not reset its record of the peak";
  // Without shards, two processes have weights and gradients twice and the state once: 20 bytes for each weight. With shards, all
  // of it once: 12, and buffers of 2 x 2 of 16 layers, 8 bytes for each weight: 2. Activations are the same. With
  // gradients or weights that are not divided, or twice the buffers, the difference of 6 would be at most 4.
  constexpr double kSaved = 4.2;
  const auto weights = static_cast<double>(config.parameter_count());
  EXPECT_GT(static_cast<double>(*with_all), 18 * weights);
  EXPECT_GT(static_cast<double>(*with_all - *with_shards), kSaved * weights);
  RecordProperty("bytes with shards", std::to_string(*with_shards));
  RecordProperty("bytes with all weights", std::to_string(*with_all));
}

}  // namespace
}  // namespace nanochat
