#include "optim/normuon.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "optim/muon.h"

namespace nanochat {
namespace {

// For five iterations, with a safety factor of 1.02 and a cushion of 0.02.
constexpr std::array<QuinticStep, 5> kPolarExpress = {{
    {8.156554524902461, -22.48329292557795, 15.878769915207462},
    {4.042929935166739, -2.808917465908714, 0.5000178451051316},
    {3.8916678022926607, -2.772484153217685, 0.5060648178503393},
    {3.285753657755655, -2.3681294933425376, 0.46449024233003106},
    {2.3465413258596377, -1.7097828382687081, 0.42323551169305323},
}};

}  // namespace

at::Tensor polar_express(const at::Tensor& x) { return quintic_iteration(x, kPolarExpress); }

at::Tensor make_second_moment(const at::Tensor& matrix) {
  const std::int64_t rows = matrix.size(0), columns = matrix.size(1);
  const at::TensorOptions options = matrix.options().dtype(at::kFloat);
  return rows >= columns ? at::zeros({rows, 1}, options) : at::zeros({1, columns}, options);
}

void normuon_step(const ops::MatrixList& matrices, std::vector<at::Tensor>& second_moments, const NorMuonStep& step,
                  const NorMuonOptions& options) {
  if (matrices.value.empty()) return;
  TORCH_CHECK(second_moments.size() == matrices.value.size(), "normuon_step: ", second_moments.size(), " second moments for ",
              matrices.value.size(), " matrices");
  const at::Tensor x = polar_express(ops::normuon_directions(matrices, options.dtype, step.grad_scale, step.momentum));
  const auto rows = static_cast<double>(x.size(1)), columns = static_cast<double>(x.size(2));
  ops::normuon_apply(matrices, second_moments, x,
                     {.rate = step.learning_rate * std::sqrt(std::max(1.0, rows / columns)),
                      .weight_decay = step.weight_decay,
                      .beta2 = options.beta2});
}

}  // namespace nanochat
