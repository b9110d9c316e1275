#pragma once
// Causal attention of one head in bfloat16, for processors that multiply it natively. Elsewhere
// ops/attention.cpp uses ATen. As in kernels.h, the interface has only plain pointers and integers.
//
// A few queries are multiplied with all earlier keys at once. Their scores are in a scratch buffer that
// fits a core's own cache, so softmax needs no rescaling, and the T x T matrix never exists (blocks in one
// direction; compare FlashAttention, Dao et al. 2022). Blocks above the diagonal are skipped. Scores,
// softmax and sums are float32; probabilities and gradients of scores are rounded to bf16 for products. One
// thread computes each head in a fixed order: results are equal bit for bit with any number of threads.

#include <cstddef>
#include <cstdint>

#include "ops/cpu/kernels.h"

namespace nanochat::ops::cpu {

// Rows of one head: position t is at data + t * stride; its `d` numbers are contiguous.
struct HeadRows {
  const bf16* data;
  std::int64_t stride;
};
struct MutableHeadRows {
  bf16* data;
  std::int64_t stride;
};

struct AttentionKernels {
  // The size of a head must be a multiple of this.
  std::int64_t d_multiple;
  std::size_t (*forward_scratch)(std::int64_t time, std::int64_t d);   // bytes
  std::size_t (*backward_scratch)(std::int64_t time, std::int64_t d);  // bytes
  // out (time, d) and logsumexp (time) of softmax(scale * q kᵀ) v with the causal mask. scratch: 64-byte aligned.
  void (*forward)(HeadRows q, HeadRows k, HeadRows v, MutableHeadRows out, float* logsumexp, std::int64_t time, std::int64_t d,
                  float scale, void* scratch);
  // Gradients for one key/value head and the `group` query heads that read it; those lie d numbers apart in q, out,
  // dout and dq, and `time` apart in logsumexp.
  void (*backward)(HeadRows q, HeadRows k, HeadRows v, HeadRows out, HeadRows dout, const float* logsumexp, MutableHeadRows dq,
                   MutableHeadRows dk, MutableHeadRows dv, std::int64_t group, std::int64_t time, std::int64_t d, float scale,
                   void* scratch);
};

// Null if this processor has no AVX512-BF16, or if NANOCHAT_CPU selects less.
const AttentionKernels* attention_kernels();

}  // namespace nanochat::ops::cpu
