#pragma once
// Element types: which ones the processor computes fast, and conversions between master and compute copies.

#include <ATen/core/Tensor.h>

namespace nanochat::ops {

// True if this processor multiplies bf16 matrices natively (AVX512-BF16 or AMX). Then bf16
// is about four times as fast as fp32; otherwise LibTorch emulates it and it is slower.
bool cpu_has_fast_bf16();

// to = from, converting between float32 and bfloat16 (round to nearest even). Contiguous, same number of elements.
void copy_converting(const at::Tensor& from, at::Tensor& to);

// sum (float32) += x (float32 or bfloat16). Contiguous.
void accumulate(at::Tensor& sum, const at::Tensor& x);

}  // namespace nanochat::ops
