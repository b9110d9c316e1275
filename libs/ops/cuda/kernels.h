#pragma once
// Launchers of the CUDA kernels, as a .cpp file may call them: plain pointers to device memory, no CUDA header. Each
// enqueues on `stream` and returns at once; a launch that fails throws std::runtime_error with CUDA's message. What
// the kernels compute is said in ops/*.h, whose functions call them (through backend.h); shapes are checked there.
//
// A row is the last dimension. All arithmetic is in float.

#include <cstdint>

struct CUstream_st;

namespace nanochat::ops::cuda {

using Stream = CUstream_st*;

enum class Element { kFloat, kBFloat16 };

// ------------------------------------------------------------------------------------------------ rows.cu
// Widest row, in elements, of the RMSNorm kernels: multiples of 16 bytes up to the first, others up to the second.
inline constexpr std::int64_t kWidestRow = 16384, kWidestOddRow = 4096;

// residual == nullptr: y = norm(x). Otherwise residual += x first, and y = norm(residual). rstd may be null.
void rms_norm(Element type, const void* x, void* residual, void* y, float* rstd, std::int64_t rows, std::int64_t n,
              float eps, Stream stream);
void rms_norm_backward(Element type, const void* dy, const void* y, const float* rstd, void* dx, bool accumulate,
                       std::int64_t rows, std::int64_t n, Stream stream);

struct RopeShape {
  std::int64_t batch, time, n_head, n_kv_head, d;
};
// start: int64 (batch) on the device, or null for zeros. rstd may be null.
void rope_qk_norm(Element type, const void* qkv, const float* cos, const float* sin, const std::int64_t* start, void* q,
                  void* k, float* rstd, const RopeShape& shape, float eps, Stream stream);
void rope_qk_norm_backward(Element type, const void* dq, const void* dk, const void* dv, const void* q, const void* k,
                           const float* rstd, const float* cos, const float* sin, void* dqkv, const RopeShape& shape,
                           Stream stream);

void relu_squared(Element type, const void* x, void* y, std::int64_t n, Stream stream);
void relu_squared_backward(Element type, const void* dy, const void* x, void* dx, std::int64_t n, Stream stream);

// ids that are out of range give rows of NaN.
void embedding(Element type, const void* table, std::int64_t rows, const std::int32_t* ids, std::int64_t n, void* y,
               std::int64_t width, Stream stream);
// ids sorted, with the position that each came from: sums of one id are taken in that order, by one block.
void embedding_backward(Element type, const void* dy, const std::int32_t* sorted_ids, const std::int64_t* positions,
                        std::int64_t n, float* dtable, std::int64_t width, Stream stream);

// --------------------------------------------------------------------------------------- cross_entropy.cu
// Rows of raw logits z (rows, padded). scale == nullptr: losses only; otherwise z becomes its gradient. A target
// outside the vocabulary gives a loss of NaN.
void softcap_cross_entropy(Element type, void* z, const std::int32_t* targets, const float* scale, float* losses,
                           std::int64_t rows, std::int64_t vocab, std::int64_t padded, float softcap, Stream stream);
void softcap(Element type, const void* z, float* out, std::int64_t rows, std::int64_t vocab, std::int64_t padded,
             float softcap, Stream stream);

// --------------------------------------------------------------------------------------------- optimizer.cu
struct AdamWStep {
  float grad_scale, beta1, beta2, learning_rate, weight_decay, eps, bias1, sqrt_bias2;
};
// copy: bfloat16, may be null.
void adamw(float* p, const float* g, float* m, float* v, void* copy, std::int64_t n, const AdamWStep& step,
           Stream stream);

// Matrices of one shape, `size` elements each; the pointers travel as kernel arguments.
inline constexpr int kMatricesPerLaunch = 64;
struct MatrixPointers {
  float* value[kMatricesPerLaunch];
  const float* gradient[kMatricesPerLaunch];
  float* momentum[kMatricesPerLaunch];
  void* compute[kMatricesPerLaunch];  // bfloat16, or null
};
// Blocks that share one matrix; each leaves one partial sum of squares.
inline constexpr int kBlocksPerMatrix = 32;
// Updates momentum and writes the direction of matrix i to batch + i * size; partial (count, kBlocksPerMatrix).
void muon_momentum(Element type, const MatrixPointers& matrices, int count, std::int64_t size, void* batch,
                   float* partial, float grad_scale, float momentum, bool nesterov, Stream stream);
// batch[i] /= Frobenius norm + 1e-7.
void muon_normalise(Element type, void* batch, const float* partial, int count, std::int64_t size, Stream stream);
// value[i] -= rate * update[i], and the compute copy.
void muon_apply(Element type, const MatrixPointers& matrices, const void* update, int count, std::int64_t size,
                float rate, Stream stream);

// Partial sums of squares of x, one a block, written to partial (blocks).
void sum_of_squares(const float* x, std::int64_t n, double* partial, int blocks, Stream stream);

}  // namespace nanochat::ops::cuda
