#pragma once
// Causal attention of one head in bfloat16, for processors that multiply it natively; elsewhere ops/attention.cpp
// goes through ATen. As in kernels.h, only plain pointers and integers cross this border.
//
// A few queries meet all keys before them at once: their scores stand in a scratch that fits a core's own cache, so
// softmax needs no rescaling, while the T x T matrix never exists (FlashAttention's blocks, Dao et al. 2022, in one
// direction). Blocks beyond the diagonal are skipped. Scores, softmax and all sums are float32; probabilities and
// gradients of scores are rounded to bf16 for the products they go into. Each head is computed by one thread in a
// fixed order: results repeat bit for bit whatever the number of threads.

#include <cstddef>
#include <cstdint>

#include "ops/cpu/kernels.h"

namespace nanochat::ops::cpu {

// Rows of one head: position t lies at data + t * stride, its `d` numbers are dense.
struct HeadRows {
  const bf16* data;
  std::int64_t stride;
};
struct MutableHeadRows {
  bf16* data;
  std::int64_t stride;
};

struct AttentionKernels {
  // Sizes of head that the kernels take: multiples of this.
  std::int64_t d_multiple;
  std::size_t (*forward_scratch)(std::int64_t time, std::int64_t d);   // bytes
  std::size_t (*backward_scratch)(std::int64_t time, std::int64_t d);  // bytes
  // out (time, d) and logsumexp (time) of softmax(scale * q kᵀ) v with the causal mask. scratch: 64-byte aligned.
  void (*forward)(HeadRows q, HeadRows k, HeadRows v, MutableHeadRows out, float* logsumexp, std::int64_t time,
                  std::int64_t d, float scale, void* scratch);
  // Gradients for one key/value head and the `group` query heads that read it; those lie d numbers apart in q, out,
  // dout and dq, and `time` apart in logsumexp.
  void (*backward)(HeadRows q, HeadRows k, HeadRows v, HeadRows out, HeadRows dout, const float* logsumexp,
                   MutableHeadRows dq, MutableHeadRows dk, MutableHeadRows dv, std::int64_t group, std::int64_t time,
                   std::int64_t d, float scale, void* scratch);
};

// Null when this processor has no AVX512-BF16, or NANOCHAT_CPU asks for less.
const AttentionKernels* attention_kernels();

}  // namespace nanochat::ops::cpu
