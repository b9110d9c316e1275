#include "training/trainer/memory_check.h"

#include <algorithm>
#include <string>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "core/log.h"
#include "optim/rank_plan.h"
#include "runtime/memory_limits.h"

namespace nanochat {

bool save_in_background(const TrainerOptions& options, const GptConfig& model, const Runtime& runtime,
                        std::int64_t device_batch_size, Communicator& communicator) {
  TrainingShape shape{.device_batch_size = device_batch_size,
                      .sequence_len = model.sequence_len,
                      .compute_bytes = runtime.dtype == at::kFloat ? 4 : 2,
                      .gpu = runtime.device.is_cuda(),
                      .recompute = options.recompute,
                      .fp8 = options.fp8,
                      .shard_weights = options.shard == "full"};
  const MemoryEstimate need = estimate_rank_memory(model, shape, communicator.size());
  const std::int64_t host = available_memory_bytes() / communicator.local_size();
  const std::int64_t device = available_memory_bytes(runtime.device);  // at most --memory-limit
  const std::int64_t available = shape.gpu ? device : std::min(host, device);
  communicator.barrier();
  const auto human = [](std::int64_t amount) { return human_bytes(static_cast<double>(amount)); };
  const std::string shared = shape.gpu || communicator.local_size() == 1
                                 ? std::string()
                                 : fmt::format(" to each of {} processes of this machine", communicator.local_size());
  log_info("memory: about {} for training, {} available{}", human(need.total()), human(available), shared);
  if (need.total() <= available) {
    const std::int64_t copy = (communicator.is_root() ? model.parameter_count() * 4 : 0) + need.optimizer;
    const std::int64_t room = shape.gpu ? host : available - need.total();
    if (!options.async_save || copy <= room) return options.async_save;
    log_info("training waits while checkpoints are saved: a copy of weights and optimizer state, {}, does not fit",
             human(copy));
    return false;
  }
  // What others have of weights, gradients and the optimizer's state counts, too.
  const std::int64_t others = estimate_training_memory(model, shape).total() - need.total();
  const std::int64_t fits = largest_batch_that_fits(model, shape, available + others);
  shape.recompute = true;
  const std::int64_t recomputed = options.recompute ? 0 : largest_batch_that_fits(model, shape, available + others);
  std::string advice = "not even one row fits: lower --depth, --sequence-len or the vocabulary";
  if (fits > 0) advice = fmt::format("--device-batch-size {} fits", fits);
  if (recomputed > fits)
    advice = fmt::format("{}{} with --recompute", fits > 0 ? advice + ", or " : "--device-batch-size ", recomputed);
  shape.recompute = options.recompute;
  if (!shape.shard_weights && communicator.size() > 1) {
    shape.shard_weights = true;
    const std::int64_t sharded = estimate_rank_memory(model, shape, communicator.size()).total();
    if (sharded <= available) advice += fmt::format("; with --shard full, {} are needed", human(sharded));
  }
  throw ConfigError(fmt::format("training needs about {} ({} of it activations), but {} is available{}; {}",
                                human(need.total()), human(need.activations), human(available), shared, advice));
}

}  // namespace nanochat
