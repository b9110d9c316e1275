#include "ops/device.h"

#include <ATen/Context.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "ops/cuda/backend.h"

namespace nanochat::ops {

bool cuda_built() { return cuda::built(); }

int cuda_devices() { return cuda::device_count(); }

DeviceDescription describe_gpu(int index) { return cuda::describe(std::max(index, 0)); }

void limit_device_memory(c10::Device device, std::int64_t bytes) {
  if (device.is_cuda()) cuda::limit_memory(device.has_index() ? device.index() : 0, bytes);
}

void use_device(c10::Device device) {
  if (device.is_cuda()) cuda::use_device(device.has_index() ? device.index() : 0);
}

void synchronize(c10::Device device) {
  if (device.is_cuda()) cuda::synchronize();
}

std::int64_t peak_device_memory(c10::Device device) { return device.is_cuda() ? cuda::peak_allocated_bytes() : 0; }

DeterministicScope::DeterministicScope(bool deterministic) : before_(at::globalContext().deterministicAlgorithms()) {
  if (!deterministic) return;
  // LibTorch insists on it before deterministic products. It is also what LibTorch takes for Hopper without being told.
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);  // nothing here reads what it has not written
}

DeterministicScope::~DeterministicScope() { at::globalContext().setDeterministicAlgorithms(before_, /*warn_only=*/false); }

bool use_reference_kernels() {
  static const bool use = [] {
    const char* value = std::getenv("NANOCHAT_CUDA_KERNELS");
    return value != nullptr && std::string_view(value) == "reference";
  }();
  return use;
}

}  // namespace nanochat::ops
