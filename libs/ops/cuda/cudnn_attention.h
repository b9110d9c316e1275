#pragma once
// Attention with a sliding window by cuDNN's kernels, which skip the keys outside. LibTorch uses cuDNN's attention without
// windows; this uses its graph API (cudnn-frontend, in builds that find it: CMakeLists.txt) for rows of one length in bfloat16.

#include <cstdint>

#include "ops/attention.h"

namespace nanochat::ops::cuda {

// Whether the build has cudnn-frontend, and cuDNN a forward and a backward kernel for these shapes and strides. The first call
// for a shape asks cuDNN, which compiles them. NANOCHAT_WINDOW_ATTENTION=flash in the environment keeps them from being used.
bool cudnn_takes_window(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::int64_t window, double scale);

// For what cudnn_takes_window() takes. scale: what scores are multiplied with.
AttentionForward cudnn_window_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::int64_t window,
                                        double scale);
AttentionBackward cudnn_window_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                                  const at::Tensor& v, const AttentionForward& forward, std::int64_t window,
                                                  double scale);

}  // namespace nanochat::ops::cuda
