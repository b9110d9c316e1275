#include "ops/smear.h"

#include <ATen/ops/empty.h>

#include <cstring>
#include <vector>

#include "ops/cuda/backend.h"
#include "ops/internal/dispatch.h"
#include "ops/reference.h"
#include "ops/residual_mix.h"

namespace nanochat::ops {
namespace {

void check(const at::Tensor& x, const at::Tensor& before, const at::Tensor& gate, const at::Tensor& lambda) {
  TORCH_CHECK(x.dim() == 2 && before.numel() == x.size(0) && before.scalar_type() == at::kInt, "smear: before ", before.sizes(),
              " ", before.scalar_type(), " does not fit x ", x.sizes());
  TORCH_CHECK(gate.dim() == 2 && gate.size(0) == 1 && gate.size(1) <= x.size(1) && gate.scalar_type() == x.scalar_type(),
              "smear: gate ", gate.sizes(), " ", gate.scalar_type(), " does not fit x ", x.sizes(), " ", x.scalar_type());
  TORCH_CHECK(lambda.numel() == 1 && lambda.scalar_type() == at::kFloat, "smear: lambda is no float32 number");
}

// Products of floats, summed in double.
double dot(const float* a, const float* b, std::int64_t n) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

}  // namespace

void smear(const at::Tensor& x, const at::Tensor& previous, const at::Tensor& before, const at::Tensor& gate,
           const at::Tensor& lambda, at::Tensor& y, at::Tensor& s) {
  check(x, before, gate, lambda);
  TORCH_CHECK(y.sizes() == x.sizes() && (!previous.defined() || previous.sizes() == x.sizes()), "smear: y ", y.sizes(),
              " or previous does not fit x ", x.sizes());
  if (x.is_cuda()) return on_gpu(cuda::smear, reference::smear)(x, previous, before, gate, lambda, y, s);
  const std::int64_t n = x.size(0), width = x.size(1), channels = gate.size(1);
  const float share = *lambda.const_data_ptr<float>();
  const std::int32_t* token = typed<std::int32_t>(before);
  TORCH_CHECK(previous.defined() || n == 0 || token[0] < 0, "smear: there is no row above the first");
  float* gates = s.defined() ? typed<float>(s) : nullptr;
  visit_dtype(x, "smear", [&]<class T>(T) {
    const T* rows = typed<T>(x);
    const T* earlier = previous.defined() ? typed<T>(previous) : rows - width;
    parallel_for(n, row_grain(width), [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        float opened = 0.0F;
        if (token[i] < 0) {
          std::memcpy(typed<T>(y) + i * width, rows + i * width, static_cast<std::size_t>(width) * sizeof(T));
        } else {
          opened = cpu::kernels<T>().smear(rows + i * width, earlier + i * width, typed<T>(gate), typed<T>(y) + i * width,
                                           channels, width, share);
        }
        if (gates != nullptr) gates[i] = opened;
      }
    });
  });
}

void smear_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& before, const at::Tensor& gate,
                    const at::Tensor& lambda, const at::Tensor& s, at::Tensor& dx, at::Tensor d_gate, at::Tensor d_lambda) {
  check(x, before, gate, lambda);
  TORCH_CHECK(dy.sizes() == x.sizes() && dx.sizes() == x.sizes() && dy.scalar_type() == start_gradient_type(x.options()) &&
                  s.numel() == x.size(0),
              "smear_backward: dy ", dy.sizes(), " or dx does not fit x ", x.sizes());
  if (x.is_cuda()) {
    return on_gpu(cuda::smear_backward, reference::smear_backward)(dy, x, before, gate, lambda, s, dx, d_gate, d_lambda);
  }
  const std::int64_t n = x.size(0), width = x.size(1), channels = gate.size(1);
  const float share = *lambda.const_data_ptr<float>();
  const std::int32_t* token = typed<std::int32_t>(before);
  const float *gates = typed<float>(s), *gradients = typed<float>(dy);
  std::vector<float> d_share(static_cast<std::size_t>(n)), d_logit(static_cast<std::size_t>(n));  // of each token
  visit_dtype(x, "smear_backward", [&]<class T>(T) {
    const auto& kernels = cpu::kernels<T>();
    const T* rows = typed<T>(x);
    std::vector<float> weights(static_cast<std::size_t>(channels));
    kernels.to_float(typed<T>(gate), weights.data(), channels);
    parallel_for(n, row_grain(width), [&](std::int64_t first, std::int64_t last) {
      std::vector<float> row(static_cast<std::size_t>(width));
      for (std::int64_t i = first; i < last; ++i) {
        const float* d = gradients + i * width;
        const auto token_index = static_cast<std::size_t>(i);
        if (token[i] >= 0) {
          kernels.to_float(rows + (i - 1) * width, row.data(), width);
          const auto product = static_cast<float>(dot(d, row.data(), width));
          d_share[token_index] = product * gates[i];
          d_logit[token_index] = share * product * gates[i] * (1.0F - gates[i]);
        }
        const float given = i + 1 < n && token[i + 1] >= 0 ? share * gates[i + 1] : 0.0F;
        if (given != 0.0F) {
          for (std::int64_t c = 0; c < width; ++c) row[static_cast<std::size_t>(c)] = d[c] + given * d[width + c];
        } else {
          std::memcpy(row.data(), d, static_cast<std::size_t>(width) * sizeof(float));
        }
        for (std::size_t c = 0; c < weights.size(); ++c) row[c] += d_logit[token_index] * weights[c];
        kernels.from_float(row.data(), typed<T>(dx) + i * width, width);
      }
    });
    double total = 0.0;
    std::vector<double> of_gate(static_cast<std::size_t>(channels));
    std::vector<float> beginning(static_cast<std::size_t>(channels));
    for (std::int64_t i = 0; i < n; ++i) {
      total += static_cast<double>(d_share[static_cast<std::size_t>(i)]);
      kernels.to_float(rows + i * width, beginning.data(), channels);
      const auto slope = static_cast<double>(d_logit[static_cast<std::size_t>(i)]);
      for (std::size_t c = 0; c < of_gate.size(); ++c) of_gate[c] += slope * static_cast<double>(beginning[c]);
    }
    *d_lambda.data_ptr<float>() += static_cast<float>(total);
    float* to = d_gate.data_ptr<float>();
    for (std::size_t c = 0; c < of_gate.size(); ++c) to[c] += static_cast<float>(of_gate[c]);
  });
}

}  // namespace nanochat::ops
