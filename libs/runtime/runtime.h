#pragma once
// Device and precision of a model, from the options --device, --dtype and --threads.

#include <ATen/core/Tensor.h>

#include <string>

namespace nanochat {

class OptionList;

struct RuntimeOptions {
  std::string device = "auto";  // auto | cpu | cuda | cuda:N
  std::string dtype = "auto";   // auto | float32 | bfloat16
  int threads = 0;              // 0: every core this process may use
  double memory_limit = 0.0;    // 1e9 bytes, for limit_memory() of memory_limits.h; 0: none
};

void declare_runtime_options(OptionList& options, RuntimeOptions& runtime);

// What a command does most: products of thousands of rows, or a row at a time through all weights.
enum class Workload { kTraining, kDecoding };

// Sets the number of threads, the current GPU and the limit of its memory, and says what was chosen. auto means the first GPU where this build
// and machine have one, else the CPU; and, for what is to be done, the precision of faster_on(). Throws ConfigError for a
// device that this build or machine does not have.
struct Runtime {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
  int threads = 1;
  std::string description;  // "CPU, 2 threads, bfloat16, avx512 kernels"; "GPU 0, NVIDIA H100 80GB HBM3, bfloat16"
};
// This process among those of its machine that work together.
struct ProcessPlace {
  int local_rank = 0, local_size = 1;
};

// Of several processes on a machine each gets a GPU of its own and its share of the cores.
Runtime select_runtime(const RuntimeOptions& options, Workload workload, ProcessPlace place = {});
// The device that this chooses; sets nothing.
at::Device select_device(const RuntimeOptions& options, ProcessPlace place = {});
// Of --memory-limit; 0: none.
std::int64_t memory_limit_bytes(const RuntimeOptions& options);
void set_dtype(Runtime& runtime, at::ScalarType dtype);  // and its description

// bfloat16 on GPUs that multiply it (compute capability 8 and later); on a CPU the one that was measured to be faster.
at::ScalarType faster_on(at::Device device, int threads, Workload workload);

// Throws ConfigError, which names --fp8, if this has no products in 8 bits (ops/fp8.h) for training.
void require_fp8(const Runtime& runtime);

// Throws ConfigError, which names --kv-cache-dtype, if keys and values in 8 bits (ops/paged_attention.h) do not fit the device
// or the precision.
void require_fp8_cache(at::Device device, at::ScalarType dtype);

const char* dtype_name(at::ScalarType dtype);  // "float32", "bfloat16"

}  // namespace nanochat
