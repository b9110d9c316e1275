#include "training/trainer/memory_check.h"

#include <algorithm>
#include <bit>
#include <string>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/json_file.h"
#include "core/errors.h"
#include "core/format.h"
#include "core/log.h"
#include "ops/device.h"
#include "optim/rank_plan.h"
#include "runtime/memory_limits.h"
#include "training/trainer/same_everywhere.h"

namespace nanochat {
namespace {

std::string human(std::int64_t amount) { return human_bytes(static_cast<double>(amount)); }

// Of the host, for each process of this machine.
std::int64_t host_memory(const Communicator& communicator) { return available_memory_bytes() / communicator.local_size(); }

// For the training of this process: at most --memory-limit.
std::int64_t training_memory(const Runtime& runtime, const Communicator& communicator) {
  const std::int64_t device = available_memory_bytes(runtime.device);
  return runtime.device.is_cuda() ? device : std::min(host_memory(communicator), device);
}

// Of the host's memory, what a chosen batch may take: data, caches of files and other programs need the rest.
std::int64_t share_for_batch(std::int64_t host) { return host / 10 * 9; }

int compute_bytes_of(const Runtime& runtime) { return runtime.dtype == at::kFloat ? 4 : 2; }

// That the run which is resumed had; 0 if it is not known.
std::int64_t earlier_device_batch(const TrainerOptions& options) {
  const auto stored = options.output_dir / "config.json";
  if (options.resume.empty() || !std::filesystem::exists(stored)) return 0;
  const nlohmann::json config = read_json_object(stored);
  const auto value = config.find("device_batch_size");
  return value != config.end() && value->is_number_integer() ? value->get<std::int64_t>() : 0;
}

}  // namespace

TrainingShape training_shape(const TrainerOptions& options, const GptConfig& model, std::int64_t rows, int compute_bytes,
                             bool gpu) {
  return {.device_batch_size = rows,
          .sequence_len = model.sequence_len,
          .compute_bytes = compute_bytes,
          .gpu = gpu,
          .recompute = options.recompute,
          .fp8 = options.fp8,
          .shard_weights = options.shard == "full",
          .state_bytes = options.optimizer_state_dtype == "bfloat16" ? 2 : 4};
}

bool save_in_background(const TrainerOptions& options, const GptConfig& model, const Runtime& runtime,
                        std::int64_t device_batch_size, Communicator& communicator) {
  TrainingShape shape = training_shape(options, model, device_batch_size, compute_bytes_of(runtime), runtime.device.is_cuda());
  const MemoryEstimate need = estimate_rank_memory(model, shape, communicator.size());
  const std::int64_t host = host_memory(communicator), available = training_memory(runtime, communicator);
  communicator.barrier();
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
  const std::int64_t fits = largest_batch_of_rank(model, shape, communicator.size(), available);
  shape.recompute = true;
  const std::int64_t recomputed = options.recompute ? 0 : largest_batch_of_rank(model, shape, communicator.size(), available);
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

std::int64_t largest_micro_batch(std::int64_t fits, std::int64_t rows) {
  const std::int64_t most = std::max<std::int64_t>(1, fits);
  if (rows <= 0) return static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(most)));
  std::int64_t size = std::min(most, rows);
  while (rows % size != 0) --size;
  return size;
}

std::int64_t choose_device_batch(const TrainerOptions& options, const GptConfig& model, const Runtime& runtime,
                                 Communicator& communicator, std::int64_t rows) {
  std::int64_t memory = training_memory(runtime, communicator);
  if (runtime.device.is_cpu()) memory = std::min(memory, share_for_batch(host_memory(communicator)));
  const TrainingShape shape = training_shape(options, model, 1, compute_bytes_of(runtime), runtime.device.is_cuda());
  const std::int64_t fits = smallest_over_ranks(communicator, largest_batch_of_rank(model, shape, communicator.size(), memory));
  // The folder may be on the machine of rank 0 alone.
  const std::int64_t earlier = largest_over_ranks(communicator, communicator.is_root() ? earlier_device_batch(options) : 0);
  const bool keeps = earlier > 0 && earlier <= fits && (rows == 0 || rows % earlier == 0);
  const std::int64_t chosen = keeps ? earlier : largest_micro_batch(fits, rows);
  log_info("device batch size: {} rows, {}", chosen,
           keeps ? std::string("as the run had before") : fmt::format("of {} that fit", fits));
  return chosen;
}

std::int64_t plan_device_batch(const RuntimeOptions& runtime, const GptConfig& model, const TrainingShape& shape, int ranks,
                               std::int64_t rows) {
  std::int64_t memory = memory_limit_bytes(runtime);
  if (memory == 0 && shape.gpu) {
    if (ops::cuda_devices() == 0) {
      throw ConfigError(
          "--device-batch-size auto: there is no GPU here whose memory could be asked for; give the memory of the planned "
          "one with --memory-limit");
    }
    memory = available_memory_bytes(at::Device(at::kCUDA, 0));
  } else if (memory == 0) {
    memory = share_for_batch(available_memory_bytes());
  }
  const std::int64_t fits = largest_batch_of_rank(model, shape, ranks, memory);
  if (fits == 0) {
    TrainingShape one = shape;
    one.device_batch_size = 1;
    throw ConfigError(fmt::format("--device-batch-size auto: one row takes about {}, but {} is available",
                                  human(estimate_rank_memory(model, one, ranks).total()), human(memory)));
  }
  return largest_micro_batch(fits, rows);
}

}  // namespace nanochat
