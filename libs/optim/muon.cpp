#include "optim/muon.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <mutex>
#include <vector>

#include "ops/batched_product.h"
#include "ops/matrix_product.h"
#include "ops/parallel.h"

namespace nanochat {

namespace {

constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;

using Steps = std::span<const QuinticStep>;

// A tall X is multiplied from the right, by the same polynomial of X^T X. (Adding a to the diagonal of the polynomial would save
// the addend of the last product, but in bfloat16 the rounding of that diagonal quadruples the error of the result.)
at::Tensor all_at_once(at::Tensor x, Steps steps) {
  const bool tall = x.size(1) > x.size(2);
  for (const QuinticStep& step : steps) {
    const at::Tensor gram = tall ? at::bmm(x.transpose(1, 2), x) : at::bmm(x, x.transpose(1, 2));
    at::Tensor polynomial = at::empty_like(gram), next = at::empty_like(x);
    ops::batched_product(gram, gram, polynomial, step.c, gram, step.b);
    tall ? ops::batched_product(x, polynomial, next, 1.0, x, step.a)
         : ops::batched_product(polynomial, x, next, 1.0, x, step.a);
    x = next;
  }
  return x;
}

// The same, a matrix at a time: LibTorch's batched products in bf16 are slow on CPUs, oneDNN's single ones are not.
void plain(const at::Tensor& x, Steps steps, at::Tensor& result) {
  at::Tensor current = x;
  for (const QuinticStep& step : steps) {
    const at::Tensor gram = at::mm(current, current.t());
    const at::Tensor polynomial = at::addmm(gram, gram, gram, step.b, step.c);
    current = at::addmm(current, polynomial, current, step.a, 1.0);
  }
  result.copy_(current);
}

// The Gram matrix and its square are symmetric: half of each is computed.
void by_halves(const at::Tensor& x, Steps steps, at::Tensor& result) {
  if (steps.empty()) return static_cast<void>(result.copy_(x));
  at::Tensor current = x, gram = at::empty({x.size(0), x.size(0)}, x.options()), polynomial = at::empty_like(gram);
  at::Tensor other = at::empty_like(x);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const QuinticStep& step = steps[i];
    at::Tensor& next = (steps.size() - i) % 2 == 1 ? result : other;  // the last one is the result
    ops::symmetric_product(current, gram);
    ops::symmetric_product(gram, polynomial, step.c, gram, step.b);
    ops::product(polynomial, ops::PackedMatrix(current), next, 1.0, current, step.a);
    current = next;
  }
}

at::Tensor one_by_one(const at::Tensor& x, Steps steps) {
  const at::Tensor result = at::empty(x.sizes(), x.options());
  const auto iterate = ops::has_fastest_products(x) ? by_halves : plain;
  const std::int64_t count = x.size(0), threads = ops::num_threads();
  std::mutex mutex;
  std::exception_ptr error;
  const auto some = [&](std::int64_t begin, std::int64_t end) {
    try {
      for (std::int64_t i = begin; i < end; ++i) {
        at::Tensor one = result[i];
        iterate(x[i], steps, one);
      }
    } catch (...) {  // must not leave the thread
      const std::scoped_lock lock(mutex);
      error = std::current_exception();
    }
  };
  // A matrix to a thread where they can be shared out evenly, else all threads to a matrix.
  const std::int64_t shared_out = count / threads * threads;
  ops::parallel_for(shared_out, 1, some);
  some(shared_out, count);
  if (error) std::rethrow_exception(error);
  return result;
}

}  // namespace

at::Tensor quintic_iteration(const at::Tensor& x, std::span<const QuinticStep> steps) {
  TORCH_CHECK(x.dim() == 3, "quintic_iteration: expected (n, rows, columns), got ", x.sizes());
  if (!x.is_cpu()) return all_at_once(x.contiguous(), steps);
  const bool tall = x.size(1) > x.size(2);
  const at::Tensor result = one_by_one(tall ? x.transpose(1, 2).contiguous() : x.contiguous(), steps);
  return tall ? result.transpose(1, 2).contiguous() : result;
}

at::Tensor newton_schulz(const at::Tensor& x, int steps) {
  return quintic_iteration(x, std::vector<QuinticStep>(static_cast<std::size_t>(std::max(0, steps)), {kA, kB, kC}));
}

void muon_step(const ops::MatrixList& matrices, double learning_rate, double momentum, double grad_scale,
               const MuonOptions& options) {
  if (matrices.value.empty()) return;
  // A Frobenius norm of 1 bounds the spectral norm by 1.
  const at::Tensor directions = ops::muon_directions(matrices, options.dtype, grad_scale, momentum, options.nesterov);
  const at::Tensor update = newton_schulz(directions, options.newton_schulz_steps);
  const auto rows = static_cast<double>(update.size(1)), columns = static_cast<double>(update.size(2));
  ops::muon_apply(matrices, update, learning_rate * std::sqrt(std::max(1.0, rows / columns)));
}

}  // namespace nanochat
