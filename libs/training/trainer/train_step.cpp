#include "training/trainer/train_step.h"

#include <ATen/ops/full.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/elapsed.h"
#include "core/errors.h"
#include "distributed/agree.h"
#include "distributed/communicator.h"
#include "model/stability.h"
#include "optim/gradient.h"
#include "training/trainer/batch_tensors.h"
#include "training/trainer/same_everywhere.h"

namespace nanochat {
namespace {

std::int64_t supervised_tokens(const std::vector<TokenBatch>& micro_batches) {
  std::int64_t supervised = 0;
  for (const TokenBatch& batch : micro_batches) {
    if (!batch.weights.empty()) continue;
    supervised += std::count_if(batch.targets.begin(), batch.targets.end(), [](std::int32_t target) { return target >= 0; });
  }
  return supervised;
}

// Factors of the losses of a batch: its weights, or one over the supervised tokens of the step.
at::Tensor scale_of(const TokenBatch& batch, std::int64_t supervised, at::Device device) {
  if (!batch.weights.empty()) return weights_of(batch);
  const double scale = supervised > 0 ? 1.0 / static_cast<double>(supervised) : 0.0;
  return at::full({batch.rows, batch.sequence_len}, scale, at::TensorOptions(at::kFloat).device(device));
}

// The loss of the step, from the losses of its micro-batches.
double total_loss(const std::vector<TokenBatch>& micro_batches, const std::vector<at::Tensor>& losses,
                  std::int64_t supervised) {
  double weighted = 0.0, nats = 0.0;
  for (std::size_t i = 0; i < micro_batches.size(); ++i) {
    const TokenBatch& batch = micro_batches[i];
    if (batch.weights.empty()) {
      nats += losses[i].sum(at::kDouble).item<double>();
    } else {
      weighted += losses[i].cpu().mul(weights_of(batch)).sum(at::kDouble).item<double>();
    }
  }
  return supervised > 0 ? weighted + nats / static_cast<double>(supervised) : weighted;
}

// How many passes this process takes part in: where weights are sharded, as many as the process with the most micro-batches.
std::size_t passes_of_step(Optimizer& optimizer, const std::vector<TokenBatch>& micro_batches) {
  if (optimizer.shards() == nullptr) return micro_batches.size();
  const auto own = static_cast<std::int64_t>(micro_batches.size());
  return static_cast<std::size_t>(largest_over_ranks(optimizer.communicator(), own));
}

// What is bad in a pass over this process's own batches; nullopt when nothing is.
std::optional<std::string> non_finite_here(Gpt& model, Optimizer& optimizer, const std::vector<TokenBatch>& micro_batches,
                                           std::size_t passes, std::int64_t supervised) {
  std::optional<std::string> found = find_non_finite_weight(model);
  ShardedWeights* shards = optimizer.shards();
  const bool bad = shards == nullptr ? found.has_value()
                                     : largest_over_ranks(optimizer.communicator(), std::int64_t{found.has_value()}) > 0;
  if (bad) return found;
  for (std::size_t i = 0; i < passes; ++i) {
    if (!found && i < micro_batches.size()) {
      const TokenBatch& batch = micro_batches[i];
      found = find_non_finite_in_pass(model, inputs_of(batch), targets_of(batch), scale_of(batch, supervised, model.device()),
                                      documents_of(batch));
    } else if (shards != nullptr) {
      shards->follow_pass(/*backward=*/true);
    }
  }
  model.zero_grad();
  return found;
}

// The same error in every process: that of the first which finds something.
[[noreturn]] void report_non_finite(Gpt& model, Optimizer& optimizer, const std::vector<TokenBatch>& micro_batches,
                                    std::size_t passes, std::int64_t supervised, const StepResult& result, double own_loss) {
  Communicator& communicator = optimizer.communicator();
  std::optional<std::string> here = non_finite_here(model, optimizer, micro_batches, passes, supervised);
  const auto first_with_one = [&] { return agree(communicator, here ? RankStatus::kNonFinite : RankStatus::kFine); };
  Agreement first = first_with_one();
  if (first.status == RankStatus::kFine && !communicator.alone() && !std::isfinite(own_loss)) {
    here = fmt::format("its part of the loss is {}, though every tensor is finite by itself", own_loss);
  }
  if (first.status == RankStatus::kFine) first = first_with_one();
  if (first.status == RankStatus::kFine) {
    throw NumericalError(fmt::format("the loss is {} and the gradient norm {}, though every tensor is finite by itself",
                                     result.loss, result.grad_norm));
  }
  const std::string found = communicator.share_text(here.value_or(""), first.rank);
  throw NumericalError(communicator.alone() ? found : fmt::format("rank {}: {}", first.rank, found));
}

// The figures of all processes instead of this one's. Returns the sum of squares of the gradient, each part of which one
// process has.
double sum_figures(Communicator& communicator, StepResult& result, double squares) {
  BitsPerByte& bpb = result.bits_per_byte;
  const auto as_double = [](std::int64_t count) { return static_cast<double>(count); };  // exact up to 2^53
  const auto as_count = [](double value) { return static_cast<std::int64_t>(value); };
  const std::vector<double> sums = sum_over_ranks(communicator, {result.loss, squares, as_double(result.tokens), bpb.nats,
                                                                 as_double(bpb.bytes), as_double(bpb.tokens)});
  result.loss = sums[0];
  result.tokens = as_count(sums[2]);
  bpb = {sums[3], as_count(sums[4]), as_count(sums[5])};
  return sums[1];
}

// Tells the optimizer while it lives which gradients are final.
class ReducesGradients {
 public:
  ReducesGradients(Gpt& model, Optimizer& optimizer) : model_(model) {
    model_.set_gradients_final([&optimizer](std::int64_t layer) { optimizer.reduce_gradients(layer); });
  }
  ~ReducesGradients() { model_.set_gradients_final({}); }
  ReducesGradients(const ReducesGradients&) = delete;
  ReducesGradients& operator=(const ReducesGradients&) = delete;

 private:
  Gpt& model_;
};

// Waits while it lives for the weights of a layer before the layer computes.
class AwaitsWeights {
 public:
  AwaitsWeights(Gpt& model, Optimizer& optimizer) : model_(model) {
    model_.set_weights_wanted([&optimizer](std::int64_t layer) { optimizer.wait_for_weights(layer); });
  }
  ~AwaitsWeights() { model_.set_weights_wanted({}); }
  AwaitsWeights(const AwaitsWeights&) = delete;
  AwaitsWeights& operator=(const AwaitsWeights&) = delete;

 private:
  Gpt& model_;
};

}  // namespace

StepResult train_step(Gpt& model, Optimizer& optimizer, const std::vector<TokenBatch>& micro_batches,
                      const StepSettings& settings, const std::vector<std::int32_t>& token_bytes) {
  const auto start = SteadyClock::now();
  Communicator& communicator = optimizer.communicator();
  const std::int64_t supervised = sum_over_ranks(communicator, supervised_tokens(micro_batches));
  ShardedWeights* shards = optimizer.shards();
  const std::size_t passes = passes_of_step(optimizer, micro_batches);
  StepResult result;
  result.supervised_tokens = supervised;
  model.zero_grad();
  std::vector<at::Tensor> losses;
  for (const TokenBatch& batch : micro_batches) {
    std::optional<AwaitsWeights> awaits;
    if (!communicator.alone() && losses.empty()) awaits.emplace(model, optimizer);
    std::optional<ReducesGradients> reduces;  // gradients go out once: with the last micro-batch
    if (!communicator.alone() && shards == nullptr && losses.size() + 1 == micro_batches.size())
      reduces.emplace(model, optimizer);
    losses.push_back(model.forward_backward(inputs_of(batch), targets_of(batch), scale_of(batch, supervised, model.device()),
                                            documents_of(batch)));
    result.tokens += batch.rows * batch.sequence_len;
  }
  for (std::size_t i = micro_batches.size(); i < passes; ++i) shards->follow_pass(/*backward=*/true);
  // Where weights are sharded, those that are not divided have few numbers, and processes may end with different passes.
  if (micro_batches.empty() || shards != nullptr) optimizer.reduce_all_gradients();
  result.loss = total_loss(micro_batches, losses, supervised);
  const double own_loss = result.loss;
  result.forward_backward_seconds = seconds_since(start);
  for (std::size_t i = 0; i < micro_batches.size() && !token_bytes.empty(); ++i) {
    result.bits_per_byte.add(losses[i], micro_batches[i], token_bytes);
  }
  if (communicator.alone()) {
    result.grad_norm = gradient_norm(model.parameters());
  } else {
    optimizer.wait_for_gradients();
    result.grad_norm = std::sqrt(sum_figures(communicator, result, optimizer.sum_of_squares()));
  }
  if (!std::isfinite(result.loss) || !std::isfinite(result.grad_norm)) {
    report_non_finite(model, optimizer, micro_batches, passes, supervised, result, own_loss);
  }
  optimizer.step(settings.lr_multiplier, settings.muon_momentum, clip_scale(result.grad_norm, settings.grad_clip),
                 settings.muon_weight_decay);
  return result;
}

}  // namespace nanochat
