#pragma once
// Where tensors live: this machine's processor, or one of its NVIDIA GPUs in a build with CUDA. Nothing here needs a
// CUDA header, and everything works in a build without: there are then no GPUs.

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>

namespace nanochat::ops {

bool cuda_built();   // whether this build has CUDA kernels
int cuda_devices();  // GPUs that this process can use; 0 without a driver

struct DeviceDescription {
  std::string name;  // "NVIDIA H100 80GB HBM3"
  int major = 0, minor = 0;
  std::int64_t total_bytes = 0, free_bytes = 0;
};
// index: of a device; a negative one, which a device without an index has, means the first GPU, as in use_device().
DeviceDescription describe_gpu(int index);

// Makes a GPU the current one of this thread; nothing for the CPU.
void use_device(c10::Device device);
// Waits until everything enqueued on the device is done; nothing for the CPU.
void synchronize(c10::Device device);
// Bytes of device memory that this process has held at most, as LibTorch's caching allocator counts them (what it got
// from the driver); 0 for the CPU.
std::int64_t peak_device_memory(c10::Device device);

// True when this process computes with the ATen reference on a GPU instead of with the kernels:
// NANOCHAT_CUDA_KERNELS=reference in the environment, for comparison.
bool use_reference_kernels();

}  // namespace nanochat::ops
