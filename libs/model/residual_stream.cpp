#include "model/residual_stream.h"

#include <ATen/ops/empty.h>

#include "ops/embedding.h"
#include "ops/rms_norm.h"

namespace nanochat {

Reading Reading::make(std::int64_t tokens, std::int64_t width, const at::TensorOptions& options, bool train) {
  return {at::empty({tokens, width}, options), train ? at::empty({tokens}, options.dtype(at::kFloat)) : at::Tensor()};
}

ResidualStream::ResidualStream(std::int64_t tokens, std::int64_t width, const at::TensorOptions& options, bool train,
                               double eps)
    : eps_(eps), embedded_(Reading::make(tokens, width, options, train)), stream_(at::empty({tokens, width}, options)),
      branch_(at::empty({tokens, width}, options)) {
  if (!train) return;
  gradient_ = at::empty({tokens, width}, options);
  d_reading_ = at::empty({tokens, width}, options);
}

void ResidualStream::begin(const Weight& table, const at::Tensor& ids, Reading& reading) {
  ops::embedding(table.compute, ids, branch_);
  ops::rms_norm(branch_, embedded_.y, embedded_.rstd, eps_);
  stream_.copy_(embedded_.y);
  ops::rms_norm(stream_, reading.y, reading.rstd, eps_);
}

void ResidualStream::begin_backward(Weight& table, const at::Tensor& ids) {
  if (!table.grad.defined()) return;
  ops::rms_norm_backward(gradient_, embedded_.y, embedded_.rstd, d_reading_, /*accumulate=*/false);
  ops::embedding_backward(d_reading_, ids, table.grad);
}

void ResidualStream::add_branch(Reading& reading) { ops::add_rms_norm(stream_, branch_, reading.y, reading.rstd, eps_); }

void ResidualStream::add_branch_backward(const Reading& reading) {
  ops::rms_norm_backward(d_reading_, reading.y, reading.rstd, gradient_, /*accumulate=*/true);
}

void ResidualStream::end_backward(const Reading& reading) {
  ops::rms_norm_backward(d_reading_, reading.y, reading.rstd, gradient_, /*accumulate=*/false);
}

}  // namespace nanochat
