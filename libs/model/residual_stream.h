#pragma once
// Internal to model: the residual stream. It begins as the normalised embedding;
// every block reads it through RMSNorm and adds its branch to it. Forward and
// backward functions are side by side; call the backward ones in the reverse order.

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/weights.h"

namespace nanochat {

// The stream as a block reads it. RMSNorm's backward pass needs only its output, so the stream itself is never kept.
struct Reading {
  at::Tensor y;     // (N, C): normalised
  at::Tensor rstd;  // (N) float32: reciprocal root mean square; undefined without a backward pass

  static Reading make(std::int64_t tokens, std::int64_t width, const at::TensorOptions& options, bool train);
};

class ResidualStream {
 public:
  ResidualStream() = default;
  // options: of activations.
  ResidualStream(std::int64_t tokens, std::int64_t width, const at::TensorOptions& options, bool train, double eps);

  const at::Tensor& start() const { return embedded_.y; }  // (N, C)
  // (N, C): a block writes its branch here, and add_branch() adds it.
  at::Tensor& branch() { return branch_; }
  // (N, C): the gradient of the stream, which is also that of the last branch.
  const at::Tensor& gradient() const { return gradient_; }
  // (N, C): a block or the head writes the gradient of its reading here.
  at::Tensor& d_reading() { return d_reading_; }

  // stream = rms_norm(rows of the table), and its first reading. ids: int32 (N).
  void begin(const Weight& table, const at::Tensor& ids, Reading& reading);
  // stream += branch, and the next reading, in one pass over memory.
  void add_branch(Reading& reading);

  // For the last reading: gradient = d rms_norm(d_reading).
  void end_backward(const Reading& reading);
  // For earlier readings: gradient += d rms_norm(d_reading), in addition to the path around the branch.
  void add_branch_backward(const Reading& reading);
  // Accumulates the gradient of the table if it is trained. Overwrites d_reading.
  void begin_backward(Weight& table, const at::Tensor& ids);

 private:
  double eps_ = 0.0;
  Reading embedded_;  // the start of the stream
  at::Tensor stream_, branch_, gradient_, d_reading_;  // (N, C)
};

}  // namespace nanochat
