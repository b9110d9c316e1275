#pragma once
// What one of several processes that train together needs and sends, and how long a step takes: the formulas of
// docs/scaling.md, which is where their assumptions are. Plans and memory checks read them, and tests compare them with what
// communicators count.
//
//   const StepTraffic traffic = step_traffic(config, cluster.ranks, 2);
//   const StepTime time = estimate_step_time(config, shape, cluster, tokens_of_rank);

#include <cstdint>

#include "model/memory.h"

namespace nanochat {

// The processes of a run, one for each device, and what connects them.
struct Cluster {
  int ranks = 1;
  int ranks_per_node = 8;                    // on one machine
  double link_bytes_per_second = 300e9;      // that a rank sends to another one of its machine
  double network_bytes_per_second = 50e9;    // that a machine sends to others
  double hop_seconds = 5e-6;                 // until the first byte is at the next rank
  int gradient_bytes = 4;                    // of an element between ranks: 4 (float32) or 2 (bfloat16)
  double flops_per_second = 0.0;             // of one device, as training reaches them; 0: unknown

  int nodes() const { return (ranks + ranks_per_node - 1) / ranks_per_node; }
  // That go around a ring of all ranks: the slowest link decides.
  double ring_bytes_per_second() const;
};

// As estimate_training_memory(), of the rank that owns the most of the optimizer's state, and with shape.shard_weights of the
// weights.
MemoryEstimate estimate_rank_memory(const GptConfig& config, const TrainingShape& shape, int ranks);
// As largest_batch_that_fits(), of such a rank.
std::int64_t largest_batch_of_rank(const GptConfig& config, const TrainingShape& shape, int ranks, std::int64_t bytes);

// Bytes that a rank sends in an optimizer step, however many micro-batches it has, unless weights are sharded.
struct StepTraffic {
  std::int64_t gradients = 0;       // beneath the backward pass of the last micro-batch
  std::int64_t last_gradients = 0;  // of them, those of the embedding, which are final when the pass ends
  std::int64_t weights = 0;         // beneath the forward pass of the next step's first micro-batch
  std::int64_t first_weights = 0;   // of them, those of the embedding, which the pass begins with
  std::int64_t backward_weights = 0;  // of them, those that are gathered again for backward passes; only of sharded weights
  std::int64_t gradient_calls = 0, weight_calls = 0;  // one for each layer, the embedding and the head
  std::int64_t total() const { return gradients + weights; }
};
StepTraffic step_traffic(const GptConfig& config, int ranks, int compute_bytes, int gradient_bytes = 4);
// The same for ShardedWeights, which send gradients and weights in the passes of each micro-batch. Of a step that is not the
// first: the weights that a step begins with are sent when the one before ends.
StepTraffic sharded_step_traffic(const GptConfig& config, int ranks, std::int64_t micro_batches, int compute_bytes,
                                 int gradient_bytes = 4);
// Whichever of the two it is, where each rank computes `tokens` in a step.
StepTraffic step_traffic(const GptConfig& config, const TrainingShape& shape, const Cluster& cluster, double tokens);

// Floating-point operations that recomputation adds to each token: the forward pass of all layers but the last, without the
// second product of the MLP.
double recompute_flops_per_token(const GptConfig& config);

// Of a step in which each rank computes `tokens`. Computing takes no time where Cluster::flops_per_second is unknown.
struct StepTime {
  double compute = 0.0;
  double gradients = 0.0, weights = 0.0;                  // of communication, in all
  double exposed_gradients = 0.0, exposed_weights = 0.0;  // of it, what lasts longer than the pass beneath which it goes on
  double total() const { return compute + exposed_gradients + exposed_weights; }
  double communication() const { return gradients + weights; }
};
StepTime estimate_step_time(const GptConfig& config, const TrainingShape& shape, const Cluster& cluster, double tokens);

}  // namespace nanochat
