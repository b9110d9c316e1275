#pragma once
// For the backend's .cpp files only: from tensors to the plain pointers that the launchers of kernels.h take.

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>

#include <cstdint>

#include "ops/cuda/kernels.h"
#include "ops/internal/dispatch.h"

namespace nanochat::ops::cuda {

// Makes the tensor's device the current one while it lives, and names the stream to work on.
class On {
 public:
  explicit On(const at::Tensor& tensor) : guard_(tensor.device()), stream_(c10::cuda::getCurrentCUDAStream()) {}
  operator Stream() const { return stream_.stream(); }

 private:
  c10::cuda::CUDAGuard guard_;
  c10::cuda::CUDAStream stream_;
};

inline Element element_of(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_contiguous(), "expected a contiguous tensor, got strides ", tensor.strides());
  if (tensor.scalar_type() == at::kFloat) return Element::kFloat;
  TORCH_CHECK(tensor.scalar_type() == at::kBFloat16, "expected float32 or bfloat16, got ", tensor.scalar_type());
  return Element::kBFloat16;
}

// Memory of a contiguous tensor of the same element type, on the same device.
inline void* data(const at::Tensor& tensor, const at::Tensor& like) {
  TORCH_CHECK(tensor.is_contiguous() && tensor.scalar_type() == like.scalar_type() && tensor.device() == like.device(),
              "expected a contiguous ", like.scalar_type(), " tensor on ", like.device(), ", got ", tensor.scalar_type(),
              " on ", tensor.device(), " with strides ", tensor.strides());
  return tensor.data_ptr();
}

// The same of a tensor that may be undefined.
inline void* optional_data(const at::Tensor& tensor, const at::Tensor& like) {
  return tensor.defined() ? data(tensor, like) : nullptr;
}

template <class T>
T* device_data(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_cuda(), "expected a tensor on a GPU, got one on ", tensor.device());
  return typed<T>(tensor);
}

inline float* optional_floats(const at::Tensor& tensor) { return tensor.defined() ? device_data<float>(tensor) : nullptr; }

}  // namespace nanochat::ops::cuda
