#pragma once
// Internal to model: the residual stream, which begins as the normalised embedding, which every block reads through
// RMSNorm and adds its branch to. Forward and backward stand side by side; the backward functions are called in the
// reverse order of the forward ones.

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/weights.h"

namespace nanochat {

// The stream as a block reads it. RMSNorm's backward pass needs its output alone, so the stream itself is never kept.
struct Reading {
  at::Tensor y;     // (N, C): normalised
  at::Tensor rstd;  // (N) float32: reciprocal root mean square; undefined when there is no backward pass

  static Reading make(std::int64_t tokens, std::int64_t width, const at::TensorOptions& options, bool train);
};

class ResidualStream {
 public:
  ResidualStream() = default;
  // options: of activations.
  ResidualStream(std::int64_t tokens, std::int64_t width, const at::TensorOptions& options, bool train, double eps);

  const at::Tensor& start() const { return embedded_.y; }  // (N, C)
  // (N, C): a block writes here what add_branch() then adds.
  at::Tensor& branch() { return branch_; }
  // (N, C): the gradient of the stream, which is also that of the branch added last.
  const at::Tensor& gradient() const { return gradient_; }
  // (N, C): a block, or the head, writes the gradient of its reading here.
  at::Tensor& d_reading() { return d_reading_; }

  // stream = rms_norm(rows of the table), and its first reading. ids: int32 (N).
  void begin(const Weight& table, const at::Tensor& ids, Reading& reading);
  // stream += branch, and the next reading, in one pass over memory.
  void add_branch(Reading& reading);

  // By the last reading: gradient = d rms_norm(d_reading).
  void end_backward(const Reading& reading);
  // By any reading before it: gradient += d rms_norm(d_reading), beside the path around the branch.
  void add_branch_backward(const Reading& reading);
  // Adds to the gradient of the table, if it is trained. Overwrites d_reading.
  void begin_backward(Weight& table, const at::Tensor& ids);

 private:
  double eps_ = 0.0;
  Reading embedded_;  // the start of the stream
  at::Tensor stream_, branch_, gradient_, d_reading_;  // (N, C)
};

}  // namespace nanochat
