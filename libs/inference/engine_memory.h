#pragma once
// The memory that an engine takes of its device, computed before its model is loaded. A server that loads models on first use
// decides with it what has to be unloaded.

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "inference/engine.h"

namespace nanochat {

struct GptConfig;

struct EngineMemory {
  std::int64_t weights = 0;    // bytes; with packed copies (Gpt::pack_weights), if this processor has kernels for them
  std::int64_t kv_blocks = 0;  // for EngineOptions::kv_blocks
  std::int64_t kv_cache = 0;   // bytes
  std::int64_t total() const { return weights + kv_cache; }
};

// The memory of an engine with these options, within `limit` bytes. Without options.kv_blocks, the KV cache has one context for
// each of max_running sequences, but at most a quarter of the limit, and at most what the weights leave. Activations, a few MiB,
// are not counted. Throws OutOfMemoryError with all three figures if the weights and a cache of one context, or of
// options.kv_blocks, do not fit.
EngineMemory plan_engine_memory(const GptConfig& config, at::ScalarType dtype, at::Device device, const EngineOptions& options,
                                std::int64_t limit);

}  // namespace nanochat
