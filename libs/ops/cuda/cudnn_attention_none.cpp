// The windows of cuDNN in a build without cudnn-frontend.

#include <c10/util/Exception.h>

#include "ops/cuda/cudnn_attention.h"

namespace nanochat::ops::cuda {

bool cudnn_takes_window(const at::Tensor&, const at::Tensor&, const at::Tensor&, std::int64_t, double) { return false; }

AttentionForward cudnn_window_attention(const at::Tensor&, const at::Tensor&, const at::Tensor&, std::int64_t, double) {
  TORCH_CHECK(false, "this build has no cudnn-frontend");
}

AttentionBackward cudnn_window_attention_backward(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                  const AttentionForward&, std::int64_t, double) {
  TORCH_CHECK(false, "this build has no cudnn-frontend");
}

}  // namespace nanochat::ops::cuda
