#pragma once
// Row kernels for CPUs, compiled once per instruction set from one source (kernels_impl.inc) and selected
// at run time. Only plain pointers and integers: the implementation is compiled with wider instructions
// than the rest of the program, and must not instantiate an inline function that another file could share.
//
// A row is the last dimension. bf16 values are std::uint16_t; all arithmetic is in float. Functions process
// `rows` consecutive rows on the calling thread; the callers in ops/*.cpp divide rows with parallel_for.

#include <cstdint>

namespace nanochat::ops::cpu {

using bf16 = std::uint16_t;

template <class T>
struct Kernels {
  // y = x * rstd, rstd = rsqrt(mean(x^2) + eps); rstd may be null.
  void (*rms_norm)(const T* x, T* y, float* rstd, std::int64_t rows, std::int64_t n, float eps);
  // residual += branch, then y and rstd of the new residual.
  void (*add_rms_norm)(T* residual, const T* branch, T* y, float* rstd, std::int64_t rows, std::int64_t n, float eps);
  void (*add_rms_norm_float)(float* residual, const T* branch, T* y, float* rstd, std::int64_t rows, std::int64_t n, float eps);
  // dx = rstd * (dy - y * mean(dy * y)); added to dx when accumulate.
  void (*rms_norm_backward)(const T* dy, const T* y, const float* rstd, T* dx, std::int64_t rows, std::int64_t n,
                            bool accumulate);
  // One token per row: heads of size d at `x` (stride d) are rotated by cos/sin (d/2 each), normalised and written to `y`.
  void (*rope_norm)(const T* x, T* y, float* rstd, const float* cos, const float* sin, std::int64_t heads, std::int64_t d,
                    float eps);
  // dx of this: through the norm, then through the inverse rotation.
  void (*rope_norm_backward)(const T* dy, const T* y, const float* rstd, const float* cos, const float* sin, T* dx,
                             std::int64_t heads, std::int64_t d);
  void (*relu_squared)(const T* x, T* y, std::int64_t n);                          // y = max(x, 0)^2; y may be x
  void (*relu_squared_backward)(const T* dy, const T* y, T* dx, std::int64_t n);   // dx = dy * 2 sqrt(y)
  // Soft-cap (0: none) and cross-entropy of one row of raw logits z[0, vocab). Returns the loss of `target` in
  // nats. With `gradient`, z becomes d(grad_scale * loss)/dz, zero from vocab to padded. scratch: 2 * vocab.
  float (*softcap_cross_entropy)(T* z, float* scratch, std::int64_t vocab, std::int64_t padded, std::int64_t target,
                                 float softcap, bool gradient, float grad_scale);
  void (*softcap)(const T* z, float* out, std::int64_t n, float softcap);          // softcap * tanh(z / softcap)
  void (*accumulate)(float* sum, const T* x, std::int64_t n);                      // sum += x
  void (*to_float)(const T* x, float* y, std::int64_t n);
  void (*from_float)(const float* x, T* y, std::int64_t n);                        // rounds to nearest even
  // stream += branch, rounded to `before` if that is not null, then stream = a stream + b x0 (ops/residual_mix.h), then y and
  // rstd of it. branch and before may be null.
  void (*mix_rms_norm)(T* stream, const T* branch, const T* x0, T* before, T* y, float* rstd, std::int64_t rows, std::int64_t n,
                       float a, float b, float eps);
  void (*mix_rms_norm_float)(float* stream, const T* branch, const T* x0, T* before, T* y, float* rstd, std::int64_t rows,
                             std::int64_t n, float a, float b, float eps);
  // By the gradient of the mixed stream: sums[0] = du . before and sums[1] = du . x0 of each row, dx0 += b du, du *= a.
  // before may be null, which leaves sums[0] zero.
  void (*mix_backward)(T* du, const T* before, const T* x0, float* dx0, float* sums, std::int64_t rows, std::int64_t n, float a,
                       float b);
  // One token: y = x + lambda s previous, s = sigmoid(gate . x[0, channels)). Returns s.
  float (*smear)(const T* x, const T* previous, const T* gate, T* y, std::int64_t channels, std::int64_t n, float lambda);
  // One token: v += g row for each head of size d, g = 3 sigmoid(gate . h[0, channels)); g may be null.
  void (*add_gated)(T* v, const float* row, const T* h, const T* gate, float* g, std::int64_t channels, std::int64_t heads,
                    std::int64_t d);
};

// y = exp((x - shift) * scale), 0 if the exponent is below -87; returns the sum. For softmax over one row of logits:
// if shift is their maximum (and scale is not negative), nothing overflows. y may be null or x. NaN stays NaN.
using Exponentials = double (*)(const float* x, float* y, std::int64_t n, float shift, float scale);
Exponentials exponentials();

struct OptimizerKernels {
  // AdamW on n elements; bias-corrected step_size and denominators as torch.optim.AdamW. `copy` (bf16) may be null.
  void (*adamw)(float* p, const float* g, float* m, float* v, bf16* copy, std::int64_t n, float grad_scale, float beta1,
                float beta2, float lr, float weight_decay, float eps, float bias1, float sqrt_bias2);
  // momentum buffer: m = lerp(g, m, momentum); out = nesterov ? lerp(g, m, momentum) : m, as bf16 and as float (either
  // may be null). Returns the sum of squares of the bf16 (or float, when bf16 is null) output.
  double (*muon_momentum)(float* m, const float* g, bf16* out16, float* out32, std::int64_t n, float grad_scale, float momentum,
                          bool nesterov);
  double (*sum_of_squares)(const float* x, std::int64_t n);
};

// The best implementation for this processor. NANOCHAT_CPU=baseline|avx2|avx512
// in the environment selects a lower one (for comparisons in tests).
template <class T>
const Kernels<T>& kernels();
template <>
const Kernels<float>& kernels<float>();
template <>
const Kernels<bf16>& kernels<bf16>();
const OptimizerKernels& optimizer_kernels();
const char* kernel_level();  // "baseline", "avx2" or "avx512"

}  // namespace nanochat::ops::cpu
