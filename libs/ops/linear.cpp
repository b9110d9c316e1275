#include "ops/linear.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include "ops/cast.h"

namespace nanochat::ops {

void linear(const at::Tensor& x, const at::Tensor& w, at::Tensor& y) { at::mm_out(y, x, w.t()); }

void linear_backward_input(const at::Tensor& dy, const at::Tensor& w, at::Tensor& dx) { at::mm_out(dx, dy, w); }

bool needs_weight_scratch(const at::Tensor& x) { return x.scalar_type() != at::kFloat && !x.is_cuda(); }

void linear_backward_weight(const at::Tensor& dy, const at::Tensor& x, at::Tensor& dw, at::Tensor& scratch) {
  if (needs_weight_scratch(x)) {
    at::mm_out(scratch, dy.t(), x);
    accumulate(dw, scratch);
  } else if (x.scalar_type() == at::kFloat) {
    dw.addmm_(dy.t(), x);
  } else {
    at::addmm_out(dw, dw, dy.t(), x, at::kFloat);
  }
}

}  // namespace nanochat::ops
