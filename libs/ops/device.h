#pragma once
// Devices of tensors: the CPU, or an NVIDIA GPU in a build with CUDA. Needs
// no CUDA header. A build without CUDA has all functions and no GPUs.

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>

namespace nanochat::ops {

bool cuda_built();   // true if this build has CUDA kernels
int cuda_devices();  // number of GPUs that this process can use; 0 without a driver

struct DeviceDescription {
  std::string name;  // "NVIDIA H100 80GB HBM3"
  int major = 0, minor = 0;
  std::int64_t total_bytes = 0, free_bytes = 0;
};
// index: device index. A negative index (a device without an index) means the first GPU, as in use_device().
DeviceDescription describe_gpu(int index);

// From now on LibTorch's allocator takes at most so many bytes of a GPU, and free_bytes above is at most what is left of them.
// What CUDA and its libraries take for themselves comes on top.
void limit_device_memory(c10::Device device, std::int64_t bytes);

// Makes a GPU the current device of this thread; does nothing for the CPU.
void use_device(c10::Device device);
// Waits until all enqueued work of the device is done; does nothing for the CPU.
void synchronize(c10::Device device);
// Peak of device memory held by this process in bytes, as counted by
// LibTorch's caching allocator (memory from the driver); 0 for the CPU.
std::int64_t peak_device_memory(c10::Device device);

// While it lives, operations on a GPU give the same bits for the same arguments: the backward pass of attention adds up in a fixed
// order, and 8-bit products are those that cublasLt names first, not the fastest that were measured. An operation of LibTorch that
// has no such kernel throws. The first scope of a process begins before its first product on a GPU. On a CPU, results are repeatable
// in any case. A scope is of the whole process; at its end, it is as before. With `deterministic` false, nothing changes.
class DeterministicScope {
 public:
  explicit DeterministicScope(bool deterministic = true);
  ~DeterministicScope();
  DeterministicScope(const DeterministicScope&) = delete;
  DeterministicScope& operator=(const DeterministicScope&) = delete;

 private:
  bool before_;
};

// True if this process uses the ATen reference on GPUs instead of the kernels,
// for comparison: NANOCHAT_CUDA_KERNELS=reference in the environment.
bool use_reference_kernels();

}  // namespace nanochat::ops
