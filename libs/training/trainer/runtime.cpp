#include "training/trainer/runtime.h"

#include <ATen/Parallel.h>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/options.h"
#include "core/thread_pool.h"
#include "ops/cast.h"
#include "ops/cpu/kernels.h"

namespace nanochat {

void declare_runtime_options(OptionList& options, RuntimeOptions& runtime) {
  options.add("device", runtime.device, "where to compute: auto, cpu or cuda[:N]");
  options.add("dtype", runtime.dtype,
              "precision of the matrix products; auto: bfloat16 where the processor is fast at it, else float32")
      .one_of({"auto", "float32", "bfloat16"});
  options.add("threads", runtime.threads, "threads to compute with; 0: every core this process may use")
      .at_least(0)
      .not_in_resolved();
}

Runtime select_runtime(const RuntimeOptions& options) {
  if (options.device.starts_with("cuda")) {
    throw ConfigError(fmt::format("--device {}: this build has no CUDA backend; use --device cpu", options.device));
  }
  if (options.device != "auto" && options.device != "cpu") {
    throw ConfigError(fmt::format("--device {}: unknown device; use auto, cpu or cuda[:N]", options.device));
  }
  Runtime runtime;
  runtime.threads = options.threads > 0 ? options.threads : available_threads();
  at::set_num_threads(runtime.threads);
  const bool narrow = options.dtype == "bfloat16" || (options.dtype == "auto" && ops::cpu_has_fast_bf16());
  runtime.dtype = narrow ? at::kBFloat16 : at::kFloat;
  runtime.description = fmt::format("CPU, {} thread{}, {}, {} kernels", runtime.threads, runtime.threads == 1 ? "" : "s",
                                    dtype_name(runtime.dtype), ops::cpu::kernel_level());
  return runtime;
}

const char* dtype_name(at::ScalarType dtype) { return dtype == at::kFloat ? "float32" : "bfloat16"; }

}  // namespace nanochat
