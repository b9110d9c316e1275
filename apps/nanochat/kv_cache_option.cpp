#include "kv_cache_option.h"

#include "runtime/runtime.h"

namespace nanochat::cli {

void KvCacheOption::declare(Subcommand& command) {
  command
      .option(
          "kv_cache_dtype", &dtype,
          "Type of the keys and values in the KV cache. fp8 (E4M3) takes half the memory of bfloat16, so twice as many "
          "tokens fit; results differ a little. It needs --dtype bfloat16 and a GPU of compute capability 8.9 or later. auto "
          "uses the type of --dtype.")
      .one_of({"auto", "fp8"});
}

bool KvCacheOption::fp8(const Runtime& runtime, std::span<const at::Device> others) const {
  if (dtype != "fp8") return false;
  require_fp8_cache(runtime.device, runtime.dtype);
  for (const at::Device device : others) require_fp8_cache(device, runtime.dtype);
  return true;
}

}  // namespace nanochat::cli
