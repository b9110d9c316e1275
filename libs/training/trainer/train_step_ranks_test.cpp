// Steps of several processes, here threads with a communicator each, against one process with the same micro-batches.
#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/errors.h"
#include "distributed/testing.h"
#include "model/testing.h"
#include "optim/rank_plan.h"
#include "training/trainer/same_everywhere.h"
#include "training/trainer/testing_ranks.h"
#include "training/trainer/train_step.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using ::testing::ThrowsMessage;

using testing::batches_of;
using testing::config_of;
using testing::kTime;
using testing::kVocab;
using testing::share_of;

struct Trained {
  std::vector<StepResult> steps;
  std::vector<at::Tensor> values, computes;
  std::size_t state_elements = 0;
};

Trained train(Communicator& communicator, const GptConfig& config, int steps, int micro_batches, at::ScalarType dtype) {
  at::set_num_threads(1);
  Gpt model = testing::random_model(config, dtype, 1);
  Optimizer optimizer(model.parameters(), config.n_embd, testing::options_for(config), communicator);
  const std::vector<std::int32_t> bytes(kVocab, 1);
  Trained run;
  for (int step = 0; step < steps; ++step) {
    run.steps.push_back(train_step(model, optimizer,
                                   share_of(batches_of(static_cast<std::uint64_t>(step), micro_batches), communicator),
                                   {.muon_weight_decay = 0.1, .grad_clip = 0.5}, bytes));
  }
  optimizer.gather_values();
  for (const Parameter& parameter : model.parameters()) {
    run.values.push_back(parameter.value);
    run.computes.push_back(parameter.compute);
  }
  for (const auto& [name, tensor] : optimizer.state()) run.state_elements += static_cast<std::size_t>(tensor.numel());
  return run;
}

class Ranks : public ::testing::TestWithParam<std::tuple<int, Architecture>> {
 protected:
  static int ranks() { return std::get<0>(GetParam()); }
  static GptConfig config() { return config_of(std::get<1>(GetParam())); }
};

TEST(SameEverywhere, TheLargestAndTheSmallestOfAnyRank) {
  testing::run_ranks(3, [](Communicator& communicator) {
    EXPECT_EQ(largest_over_ranks(communicator, 10 + communicator.rank()), 12);
    EXPECT_EQ(smallest_over_ranks(communicator, 10 + communicator.rank()), 10);
  });
}

TEST_P(Ranks, TakeTheStepsOfOneProcess) {
  // Sums in another order differ by rounding, which grows from step to step: faster in the newest architecture, whose scalars
  // have large learning rates.
  const int steps = config().is_2026() ? 6 : 12;
  constexpr int kMicroBatches = 6;
  constexpr double kLoss = 1e-5, kNorm = 1e-4;
  const Trained whole = train(alone(), config(), steps, kMicroBatches, at::kFloat);
  std::mutex mutex;
  std::vector<Trained> runs;
  testing::run_ranks(ranks(), [&](Communicator& communicator) {
    Trained run = train(communicator, config(), steps, kMicroBatches, at::kFloat);
    const std::scoped_lock lock(mutex);
    runs.push_back(std::move(run));
  });
  ASSERT_EQ(runs.size(), static_cast<std::size_t>(ranks()));
  for (const Trained& run : runs) {
    ASSERT_EQ(run.steps.size(), whole.steps.size());
    for (std::size_t step = 0; step < run.steps.size(); ++step) {
      EXPECT_NEAR(run.steps[step].loss, whole.steps[step].loss, kLoss) << "step " << step;
      EXPECT_NEAR(run.steps[step].grad_norm, whole.steps[step].grad_norm, kNorm) << "step " << step;
      EXPECT_EQ(run.steps[step].tokens, whole.steps[step].tokens);
      EXPECT_EQ(run.steps[step].bits_per_byte.bytes, whole.steps[step].bits_per_byte.bytes);
      EXPECT_NEAR(run.steps[step].bits_per_byte.nats, whole.steps[step].bits_per_byte.nats, 1e-2);
      EXPECT_EQ(run.steps[step].loss, runs.front().steps[step].loss) << "all ranks say the same";
    }
    for (std::size_t i = 0; i < run.values.size(); ++i) EXPECT_TRUE(at::equal(run.values[i], runs.front().values[i]));
  }
}

TEST_P(Ranks, ShareTheStateOfTheOptimizer) {
  const std::size_t whole = train(alone(), config(), 1, 6, at::kFloat).state_elements;
  std::mutex mutex;
  std::size_t sum = 0;
  testing::run_ranks(ranks(), [&](Communicator& communicator) {
    const std::size_t mine = train(communicator, config(), 1, 6, at::kFloat).state_elements;
    const std::scoped_lock lock(mutex);
    EXPECT_LE(mine, whole * 5 / 4 / static_cast<std::size_t>(ranks()) + 1) << "no rank has much more than its share";
    sum += mine;
  });
  EXPECT_EQ(sum, whole);
}

// In bfloat16 the rounded weights go round after a step, and the masters when they are wanted.
TEST_P(Ranks, AgreeInBFloat16) {
  std::mutex mutex;
  std::vector<Trained> runs;
  testing::run_ranks(ranks(), [&](Communicator& communicator) {
    Trained run = train(communicator, config(), 3, 6, at::kBFloat16);
    const std::scoped_lock lock(mutex);
    runs.push_back(std::move(run));
  });
  for (const Trained& run : runs) {
    for (std::size_t i = 0; i < run.values.size(); ++i) {
      EXPECT_TRUE(at::equal(run.values[i], runs.front().values[i]));
      EXPECT_TRUE(at::equal(run.computes[i], run.values[i].to(run.computes[i].scalar_type())));
    }
  }
}

// Gradients in bfloat16 on their way are those in float32 up to its eight bits.
TEST_P(Ranks, MaySendGradientsInBFloat16) {
  constexpr double kTolerance = 0.01;
  testing::run_ranks(ranks(), [&](Communicator& communicator) {
    at::set_num_threads(1);
    std::vector<std::vector<at::Tensor>> gradients;
    for (const at::ScalarType sent : {at::kFloat, at::kBFloat16}) {
      Gpt model = testing::random_model(config(), at::kFloat, 1);
      OptimizerOptions with = testing::options_for(config());
      with.gradient_comm_dtype = sent;
      Optimizer optimizer(model.parameters(), config().n_embd, with, communicator);
      train_step(model, optimizer, share_of(batches_of(0, ranks()), communicator), {});
      optimizer.wait_for_weights();
      const auto divided = divide_parameters(model.parameters(), ranks());
      gradients.emplace_back();
      for (std::size_t i = 0; i < divided.size(); ++i) {
        for (const OwnedRows& rows : divided[i]) {
          if (rows.owner != communicator.rank()) continue;
          gradients.back().push_back(model.parameters()[i].grad.narrow(0, rows.first, rows.end - rows.first).clone());
        }
      }
    }
    bool rounded = false;
    for (std::size_t i = 0; i < gradients[0].size(); ++i) {
      EXPECT_LE(gradients[1][i].sub(gradients[0][i]).norm().item<double>(),
                kTolerance * gradients[0][i].norm().item<double>() + 1e-12);
      rounded |= !at::equal(gradients[0][i], gradients[1][i]);
    }
    EXPECT_TRUE(rounded);
  });
}

TEST_P(Ranks, SayTheSameOfAGradientThatIsNotFinite) {
  const int bad = ranks() - 1;
  testing::run_ranks(ranks(), [&](Communicator& communicator) {
    at::set_num_threads(1);
    Gpt model = testing::random_model(config(), at::kFloat, 1);
    Optimizer optimizer(model.parameters(), config().n_embd, testing::options_for(config()), communicator);
    std::vector<at::Tensor> before;
    for (const Parameter& parameter : model.parameters()) before.push_back(parameter.value.clone());
    std::vector<TokenBatch> batches = share_of(batches_of(1, ranks()), communicator);
    for (TokenBatch& batch : batches) batch.weights.assign(batch.targets.size(), 0.01F);
    if (communicator.rank() == bad) batches[0].weights.back() = std::numeric_limits<float>::quiet_NaN();
    EXPECT_THAT([&] { train_step(model, optimizer, batches, {}); },
                ThrowsMessage<NumericalError>(StartsWith("rank " + std::to_string(bad) + ": ")));
    for (std::size_t i = 0; i < before.size(); ++i)
      EXPECT_TRUE(at::equal(model.parameters()[i].value, before[i])) << "not applied";
    EXPECT_EQ(optimizer.steps(), 0);
    // And they go on together.
    batches = share_of(batches_of(2, ranks()), communicator);
    EXPECT_TRUE(std::isfinite(train_step(model, optimizer, batches, {}).loss));
    optimizer.wait_for_weights();
  });
}

// Gradients go out once a step, and weights come back once, however many micro-batches there are.
TEST_P(Ranks, SendGradientsOfTheLastMicroBatchAlone) {
  // Beside them go agreements, the norm and the loss, and each piece of a tensor is rounded to whole bytes.
  constexpr std::int64_t kFigures = 1000;
  for (const auto& [dtype, sent] : std::vector<std::pair<at::ScalarType, at::ScalarType>>{
           {at::kFloat, at::kFloat}, {at::kBFloat16, at::kFloat}, {at::kBFloat16, at::kBFloat16}}) {
    const std::int64_t expected = step_traffic(config(), ranks(), dtype == at::kFloat ? 4 : 2, sent == at::kFloat ? 4 : 2)
                                      .total();
    for (const int micro_batches : {1, 3}) {
      testing::run_ranks(ranks(), [&, dtype = dtype, sent = sent](Communicator& communicator) {
        at::set_num_threads(1);
        Gpt model = testing::random_model(config(), dtype, 1);
        OptimizerOptions with = testing::options_for(config());
        with.gradient_comm_dtype = sent;
        Optimizer optimizer(model.parameters(), config().n_embd, with, communicator);
        train_step(model, optimizer, share_of(batches_of(0, micro_batches * ranks()), communicator), {});
        optimizer.wait_for_weights();
        EXPECT_GE(communicator.bytes_sent(), expected - kFigures) << micro_batches << " " << at::toString(dtype);
        EXPECT_LE(communicator.bytes_sent(), expected + kFigures) << micro_batches << " " << at::toString(dtype);
      });
    }
  }
}

// What a step allocates for the optimizer is what the plan says of the rank that has most.
TEST_P(Ranks, HaveTheStateThatThePlanSays) {
  const GptConfig c = GptConfig::from_depth(4, 512, kTime);
  const std::int64_t planned = estimate_rank_memory(c, {.sequence_len = kTime}, ranks()).optimizer;
  std::mutex mutex;
  std::int64_t most = 0;
  testing::run_ranks(ranks(), [&](Communicator& communicator) {
    Gpt model = testing::random_model(c, at::kFloat, 1);
    const Optimizer optimizer(model.parameters(), c.n_embd, testing::options_for(c), communicator);
    std::int64_t bytes = 0;
    for (const auto& [name, tensor] : optimizer.state()) bytes += static_cast<std::int64_t>(tensor.nbytes());
    const std::scoped_lock lock(mutex);
    most = std::max(most, bytes);
  });
  EXPECT_EQ(most, planned);
}

INSTANTIATE_TEST_SUITE_P(Sizes, Ranks,
                         ::testing::Combine(::testing::Values(2, 3, 4),
                                            ::testing::Values(Architecture::kNanochat2025_12, Architecture::kNanochat2026_07)),
                         [](const auto& tested) {
                           return testing::name_of(std::get<1>(tested.param), std::get<0>(tested.param));
                         });

}  // namespace
}  // namespace nanochat
