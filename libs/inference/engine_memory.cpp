#include "inference/engine_memory.h"

#include <ATen/ops/empty.h>
#include <c10/core/ScalarType.h>

#include <algorithm>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "inference/internal/block_pool.h"
#include "inference/internal/paged_kv_cache.h"
#include "model/config.h"
#include "model/layout.h"
#include "ops/matrix_product.h"

namespace nanochat {

EngineMemory plan_engine_memory(const GptConfig& config, at::ScalarType dtype, at::Device device, const EngineOptions& options,
                                std::int64_t limit) {
  EngineMemory memory;
  const auto element = static_cast<std::int64_t>(c10::elementSize(dtype));
  const bool packs = ops::has_product_kernels(at::empty({1, 1}, at::TensorOptions(dtype).device(device)));
  for_each_tensor(config, [&](const TensorSpec& tensor) {
    const std::int64_t copies = packs && tensor.role == TensorRole::kMatrix ? 2 : 1;
    memory.weights += tensor.numel() * (tensor.role == TensorRole::kScalars ? 4 : element * copies);
  });
  const std::int64_t block = PagedKvCache::bytes_per_block(config, kv_cache_dtype(dtype, options.fp8_cache),
                                                           options.block_size);
  const std::int64_t context = blocks_for(config.sequence_len, options.block_size);
  memory.kv_blocks = options.kv_blocks;
  if (memory.kv_blocks == 0) {
    const std::int64_t room = std::min(limit / 4, limit - memory.weights) / block;
    memory.kv_blocks = std::clamp(room, context, context * options.max_running);
  }
  memory.kv_cache = memory.kv_blocks * block;
  if (memory.total() <= limit) return memory;
  throw OutOfMemoryError(fmt::format("the weights take {} and the KV cache takes {}, together more than the limit of {}",
                                     human_bytes(static_cast<double>(memory.weights)),
                                     human_bytes(static_cast<double>(memory.kv_cache)),
                                     human_bytes(static_cast<double>(limit))));
}

}  // namespace nanochat
