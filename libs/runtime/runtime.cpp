#include "runtime/runtime.h"

#include <ATen/Parallel.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/errors.h"
#include "core/options.h"
#include "core/thread_pool.h"
#include "ops/cpu/kernels.h"
#include "ops/device.h"
#include "ops/fp8.h"
#include "ops/paged_attention.h"
#include "runtime/host_memory.h"
#include "runtime/memory_limits.h"
#include "runtime/precision.h"

namespace nanochat {

void declare_runtime_options(OptionList& options, RuntimeOptions& runtime) {
  options
      .add("device", runtime.device,
           "Device to compute on: cpu, cuda or cuda:N; auto uses the first GPU if "
           "there is one.")
      .may_change();
  options
      .add("dtype", runtime.dtype,
           "Precision of matrix products. auto uses bfloat16 on a GPU that supports it; on a CPU, it measures "
           "both and uses the faster one (see `nanochat info`).")
      .one_of({"auto", "float32", "bfloat16"})
      .may_change();
  options
      .add("memory_limit", runtime.memory_limit,
           "Use at most this much memory of the device, in GB (10^9 bytes); 0 sets no limit. On a GPU, what CUDA and its "
           "libraries take for themselves comes on top. On a CPU, only the check before a training starts knows it.")
      .at_least(0)
      .not_in_resolved();
  options.add("threads", runtime.threads, "Number of threads that compute; 0 uses every core available to the process.")
      .at_least(0)
      .not_in_resolved();
}

namespace {

// The device of --device; nothing is asked of the driver unless a GPU may be meant.
at::Device parse_device(const std::string& name, ProcessPlace place) {
  if (name == "cpu" || (name == "auto" && ops::cuda_devices() == 0)) return at::kCPU;
  const std::string digits = name.size() > 5 ? name.substr(5) : "";
  const bool indexed = name.starts_with("cuda:") && !digits.empty() && digits.size() <= 2 &&
                       digits.find_first_not_of("0123456789") == std::string::npos;
  if (name != "cuda" && name != "auto" && !indexed) {
    throw ConfigError(fmt::format("--device {}: unknown device; use auto, cpu or cuda[:N]", name));
  }
  if (!ops::cuda_built()) {
    throw ConfigError(
        fmt::format("--device {}: this build has no CUDA backend; use --device cpu, or configure with "
                    "-DNANOCHAT_CUDA=ON",
                    name));
  }
  const int devices = ops::cuda_devices();
  if (indexed && place.local_size > 1) {
    throw ConfigError(fmt::format("--device {}: names one GPU for {} processes; use --device cuda, which gives each its own",
                                  name, place.local_size));
  }
  // Where a launcher shows each process its own GPU alone, that is number 0.
  const int index = indexed ? std::stoi(digits) : devices == 1 ? 0 : place.local_rank;
  if (devices == 0) {
    throw ConfigError(fmt::format("--device {}: no usable NVIDIA GPU (or no driver) on this machine; use --device cpu", name));
  }
  if (index >= devices && !indexed) {
    throw ConfigError(fmt::format("local rank {} has no GPU of its own: this machine has {}; start so many processes", index,
                                  devices));
  }
  if (index >= devices) {
    throw ConfigError(fmt::format("--device {}: this machine has GPUs 0 to {}", name, devices - 1));
  }
  return {at::kCUDA, static_cast<at::DeviceIndex>(index)};
}

}  // namespace

at::ScalarType faster_on(at::Device device, int threads, Workload workload) {
  if (device.is_cpu()) return faster_dtype(precision_rates(workload, threads));
  constexpr int kAmpere = 8;
  return ops::describe_gpu(device.index()).major >= kAmpere ? at::kBFloat16 : at::kFloat;
}

at::Device select_device(const RuntimeOptions& options, ProcessPlace place) { return parse_device(options.device, place); }

Runtime select_runtime(const RuntimeOptions& options, Workload workload, ProcessPlace place) {
  prepare_host_memory();
  Runtime runtime;
  runtime.device = parse_device(options.device, place);
  runtime.threads = options.threads > 0 ? options.threads : std::max(1, available_threads() / place.local_size);
  at::set_num_threads(runtime.threads);
  if (options.dtype == "auto") {
    runtime.dtype = faster_on(runtime.device, runtime.threads, workload);
  } else {
    runtime.dtype = options.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  }
  if (runtime.device.is_cuda()) ops::use_device(runtime.device);
  limit_memory(runtime.device, memory_limit_bytes(options));
  set_dtype(runtime, runtime.dtype);
  return runtime;
}

std::int64_t memory_limit_bytes(const RuntimeOptions& options) {
  constexpr double kGiga = 1e9;
  return static_cast<std::int64_t>(kGiga * options.memory_limit);
}

void set_dtype(Runtime& runtime, at::ScalarType dtype) {
  runtime.dtype = dtype;
  if (runtime.device.is_cuda()) {
    runtime.description = fmt::format("GPU {}, {}, {}{}", static_cast<int>(runtime.device.index()),
                                      ops::describe_gpu(runtime.device.index()).name, dtype_name(dtype),
                                      ops::use_reference_kernels() ? ", ATen reference kernels" : "");
  } else {
    runtime.description = fmt::format("CPU, {} thread{}, {}, {} kernels", runtime.threads, runtime.threads == 1 ? "" : "s",
                                      dtype_name(dtype), ops::cpu::kernel_level());
  }
}

void require_fp8(const Runtime& runtime) {
  if (!runtime.device.is_cuda()) throw ConfigError("--fp8 needs a GPU, but training runs on the CPU");
  if (!ops::has_fp8(runtime.device)) {
    throw ConfigError("--fp8 needs a GPU of compute capability 9.0 or later (H100, H200) and cublasLt; this is " +
                      runtime.description);
  }
  if (runtime.dtype != at::kBFloat16) throw ConfigError("--fp8 needs --dtype bfloat16");
}

void require_fp8_cache(at::Device device, at::ScalarType dtype) {
  if (!ops::has_fp8_cache(device)) {
    std::string found = "this is a CPU";
    if (device.is_cuda()) {
      const ops::DeviceDescription gpu = ops::describe_gpu(device.index());
      found = fmt::format("{} has {}.{}", gpu.name, gpu.major, gpu.minor);
    }
    throw ConfigError(
        fmt::format("--kv-cache-dtype fp8 needs a GPU of compute capability 8.9 or later, but {}; use "
                    "--kv-cache-dtype auto",
                    found));
  }
  if (dtype != at::kBFloat16) {
    throw ConfigError(fmt::format("--kv-cache-dtype fp8 needs --dtype bfloat16, but this is {}; use --kv-cache-dtype auto",
                                  dtype_name(dtype)));
  }
}

const char* dtype_name(at::ScalarType dtype) { return dtype == at::kFloat ? "float32" : "bfloat16"; }

}  // namespace nanochat
