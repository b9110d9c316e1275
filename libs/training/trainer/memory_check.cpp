#include "training/trainer/memory_check.h"

#include <string>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "core/log.h"
#include "model/memory.h"
#include "runtime/memory_limits.h"

namespace nanochat {

bool save_in_background(const TrainerOptions& options, const GptConfig& model, const Runtime& runtime,
                        std::int64_t device_batch_size) {
  const int bytes = runtime.dtype == at::kFloat ? 4 : 2;
  const bool gpu = runtime.device.is_cuda();
  const MemoryEstimate need = estimate_training_memory(model, device_batch_size, model.sequence_len, bytes, gpu);
  const std::int64_t available = available_memory_bytes(runtime.device);
  const auto human = [](std::int64_t amount) { return human_bytes(static_cast<double>(amount)); };
  log_info("memory: about {} for training, {} available", human(need.total()), human(available));
  if (need.total() <= available) {
    const std::int64_t copy = model.parameter_count() * 4 + need.optimizer;
    const std::int64_t room = gpu ? available_memory_bytes() : available - need.total();
    if (!options.async_save || copy <= room) return options.async_save;
    log_info("training waits while checkpoints are saved: a copy of weights and optimizer state, {}, does not fit",
             human(copy));
    return false;
  }
  const std::int64_t fits = largest_batch_that_fits(model, model.sequence_len, bytes, available, gpu);
  const std::string advice = fits > 0 ? fmt::format("--device-batch-size {} fits", fits)
                                      : "not even one row fits: lower --depth, --sequence-len or the vocabulary";
  throw ConfigError(fmt::format("training needs about {} ({} of it activations), but {} is available; {}", human(need.total()),
                                human(need.activations), human(available), advice));
}

}  // namespace nanochat
