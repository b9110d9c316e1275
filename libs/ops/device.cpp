#include "ops/device.h"

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

bool use_reference_kernels() {
  static const bool use = [] {
    const char* value = std::getenv("NANOCHAT_CUDA_KERNELS");
    return value != nullptr && std::string_view(value) == "reference";
  }();
  return use;
}

}  // namespace nanochat::ops
