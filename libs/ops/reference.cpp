#include "ops/reference.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "ops/cast.h"

namespace nanochat::ops::reference {
namespace {

at::Tensor as_float(const at::Tensor& x) { return x.to(at::kFloat); }

// cos and sin of every position of q, (B or 1, T, 1, D / 2).
RopeTable rows_of(const RopeTable& table, const at::Tensor& start, std::int64_t time) {
  const auto rows = [&](const at::Tensor& x) {
    if (!start.defined()) return x.narrow(0, 0, time).view({1, time, 1, x.size(1)});
    const at::Tensor positions = start.to(x.device()).view({-1, 1}) +
                                 at::arange(time, at::TensorOptions(at::kLong).device(x.device()));
    return at::index_select(x, 0, positions.flatten()).view({start.numel(), time, 1, x.size(1)});
  };
  return {rows(table.cos), rows(table.sin)};
}

at::Tensor rotate(const at::Tensor& x, const RopeTable& table, bool inverse) {
  const std::int64_t half = x.size(-1) / 2;
  const at::Tensor first = x.narrow(-1, 0, half), second = x.narrow(-1, half, half);
  const at::Tensor sin = inverse ? table.sin.neg() : table.sin;
  return at::cat({first * table.cos + second * sin, second * table.cos - first * sin}, -1);
}

at::Tensor reciprocal_rms(const at::Tensor& x, double eps) { return x.square().mean(-1, true).add(eps).rsqrt(); }

at::Tensor norm_gradient(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& rstd) {
  return rstd * (dy - y * (dy * y).mean(-1, true));
}

// (B, T, heads, D) of the fused projection.
at::Tensor heads_of(const at::Tensor& qkv, const at::Tensor& q, const at::Tensor& k) {
  return qkv.view({q.size(0), q.size(1), q.size(2) + 2 * k.size(2), q.size(3)});
}

}  // namespace

void rms_norm(const at::Tensor& x, at::Tensor& y, at::Tensor& rstd, double eps) {
  const at::Tensor values = as_float(x), scale = reciprocal_rms(values, eps);
  y.copy_(values * scale);
  if (rstd.defined()) rstd.copy_(scale.view(rstd.sizes()));
}

void add_rms_norm(at::Tensor& residual, const at::Tensor& branch, at::Tensor& y, at::Tensor& rstd, double eps) {
  residual.add_(branch);
  rms_norm(residual, y, rstd, eps);
}

void rms_norm_backward(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& rstd, at::Tensor& dx, bool accumulate) {
  const at::Tensor gradient = norm_gradient(as_float(dy), as_float(y), rstd.unsqueeze(-1));
  dx.copy_(accumulate ? as_float(dx) + gradient : gradient);
}

void rope_qk_norm(const at::Tensor& qkv, const RopeTable& table, const at::Tensor& start, at::Tensor& q, at::Tensor& k,
                  at::Tensor& rstd, double eps) {
  const std::int64_t n_head = q.size(2), n_kv_head = k.size(2);
  const at::Tensor heads = as_float(heads_of(qkv, q, k).narrow(2, 0, n_head + n_kv_head));
  const at::Tensor rotated = rotate(heads, rows_of(table, start, q.size(1)), /*inverse=*/false);
  const at::Tensor scale = reciprocal_rms(rotated, eps), normed = rotated * scale;
  q.copy_(normed.narrow(2, 0, n_head));
  k.copy_(normed.narrow(2, n_head, n_kv_head));
  if (rstd.defined()) rstd.copy_(scale.squeeze(-1));
}

void rope_qk_norm_backward(const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv, const at::Tensor& q,
                           const at::Tensor& k, const at::Tensor& rstd, const RopeTable& table, at::Tensor& dqkv) {
  const at::Tensor dy = as_float(at::cat({dq, dk}, 2)), y = as_float(at::cat({q, k}, 2));
  const at::Tensor rotated = norm_gradient(dy, y, rstd.unsqueeze(-1));
  const at::Tensor heads = heads_of(dqkv, q, k);
  heads.narrow(2, 0, y.size(2)).copy_(rotate(rotated, rows_of(table, at::Tensor(), q.size(1)), /*inverse=*/true));
  heads.narrow(2, y.size(2), k.size(2)).copy_(dv);
}

void relu_squared(const at::Tensor& x, at::Tensor& y) { y.copy_(as_float(x).clamp_min(0).square()); }

void relu_squared_backward(const at::Tensor& dy, const at::Tensor& y, at::Tensor& dx) {
  dx.copy_(as_float(dy) * 2.0 * as_float(y).sqrt());
}

void embedding(const at::Tensor& table, const at::Tensor& ids, at::Tensor& y) {
  y.copy_(at::index_select(table, 0, ids.flatten()).view(y.sizes()));
}

void embedding_backward(const at::Tensor& dy, const at::Tensor& ids, at::Tensor& dtable) {
  dtable.index_add_(0, ids.flatten().to(at::kLong), as_float(dy));
}

void softcap_cross_entropy(at::Tensor& z, const at::Tensor& targets, const at::Tensor& scale, at::Tensor& losses,
                           std::int64_t vocab, double softcap) {
  const at::Tensor raw = as_float(z.narrow(1, 0, vocab));
  const at::Tensor u = softcap > 0.0 ? (raw / softcap).tanh() : raw;
  const at::Tensor log_p = at::log_softmax(softcap > 0.0 ? u * softcap : u, 1);
  const at::Tensor supervised = targets.ge(0), index = targets.clamp_min(0).to(at::kLong).unsqueeze(1);
  losses.copy_(log_p.gather(1, index).squeeze(1).neg().masked_fill(supervised.logical_not(), 0.0));
  if (!scale.defined()) return;
  at::Tensor gradient = log_p.exp();
  gradient.scatter_add_(1, index, at::zeros(index.sizes(), gradient.options()).sub(1.0));
  if (softcap > 0.0) gradient = gradient * (1.0 - u.square());
  gradient = (gradient * scale.unsqueeze(1)).masked_fill(supervised.logical_not().unsqueeze(1), 0.0);
  z.zero_();
  z.narrow(1, 0, vocab).copy_(gradient);
}

at::Tensor softcap(const at::Tensor& z, std::int64_t vocab, double softcap) {
  const at::Tensor raw = as_float(z.narrow(1, 0, vocab));
  return softcap > 0.0 ? (raw / softcap).tanh() * softcap : raw.contiguous();
}

void residual_mix(at::Tensor& stream, const at::Tensor& branch, const at::Tensor& x0, const at::Tensor& a, const at::Tensor& b,
                  at::Tensor& before, at::Tensor& y, at::Tensor& rstd, double eps) {
  if (branch.defined()) stream.add_(branch);
  if (before.defined()) {
    before.copy_(stream);
    stream.copy_(before);
  }
  stream.copy_(as_float(stream) * a + as_float(x0) * b);
  rms_norm(stream, y, rstd, eps);
}

void residual_mix_backward(const NormGradient& norm, at::Tensor& gradient, const at::Tensor& before, const at::Tensor& x0,
                           const at::Tensor& a, const at::Tensor& b, at::Tensor& dx0, bool accumulate, at::Tensor d_a,
                           at::Tensor d_b) {
  if (norm.dy.defined()) rms_norm_backward(norm.dy, norm.y, norm.rstd, gradient, /*accumulate=*/true);
  if (!accumulate) dx0.zero_();
  const at::Tensor du = as_float(gradient);
  if (d_a.defined()) d_a.add_((du * as_float(before)).sum());
  d_b.add_((du * as_float(x0)).sum());
  dx0.copy_(as_float(dx0) + du * b);
  gradient.copy_(du * a);
}

namespace {

// The row above each, and zeros above the first.
at::Tensor shifted_down(const at::Tensor& x) {
  const at::Tensor result = at::zeros_like(x);
  if (x.size(0) > 1) result.narrow(0, 1, x.size(0) - 1).copy_(x.narrow(0, 0, x.size(0) - 1));
  return result;
}

at::Tensor first_channels(const at::Tensor& x, const at::Tensor& gate) { return as_float(x.narrow(1, 0, gate.size(1))); }

}  // namespace

void smear(const at::Tensor& x, const at::Tensor& previous, const at::Tensor& before, const at::Tensor& gate,
           const at::Tensor& lambda, at::Tensor& y, at::Tensor& s) {
  const at::Tensor opened = at::sigmoid(at::matmul(first_channels(x, gate), as_float(gate).t())).squeeze(1) * before.ge(0);
  const at::Tensor earlier = as_float(previous.defined() ? previous : shifted_down(x));
  // Not as a product with 0: a previous row that is not there may be anything.
  const at::Tensor added = (earlier * (opened * lambda).unsqueeze(1)).masked_fill(before.lt(0).unsqueeze(1), 0.0);
  y.copy_(as_float(x) + added);
  if (s.defined()) s.copy_(opened);
}

void smear_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& before, const at::Tensor& gate,
                    const at::Tensor& lambda, const at::Tensor& s, at::Tensor& dx, at::Tensor d_gate, at::Tensor d_lambda) {
  const at::Tensor share = (s * lambda).unsqueeze(1);  // 0 where there is no previous token
  const at::Tensor gradient = as_float(dy);
  const at::Tensor product = (gradient * shifted_down(as_float(x))).sum(1).masked_fill(before.lt(0), 0.0);
  const at::Tensor slope = (product * lambda * s * (1.0 - s)).unsqueeze(1);
  at::Tensor result = gradient.clone();
  if (x.size(0) > 1) {
    const std::int64_t rest = x.size(0) - 1;
    result.narrow(0, 0, rest).add_(share.narrow(0, 1, rest) * gradient.narrow(0, 1, rest));
  }
  result.narrow(1, 0, gate.size(1)).add_(slope * as_float(gate));
  dx.copy_(result);
  d_lambda.add_((product * s).sum());
  d_gate.add_(at::matmul(slope.t(), first_channels(x, gate)));
}

void add_value_embedding(at::Tensor v, const at::Tensor& h, const at::Tensor& gate, const at::Tensor& table,
                         const at::Tensor& ids, at::Tensor& g) {
  const at::Tensor opened = at::sigmoid(at::matmul(first_channels(h, gate), as_float(gate).t())) * 3.0;
  const at::Tensor rows = as_float(table.index_select(0, ids.flatten())).view(v.sizes());
  v.copy_(as_float(v) + opened.unsqueeze(2) * rows);
  if (g.defined()) g.copy_(opened.view(g.sizes()));
}

void add_value_embedding_backward(const at::Tensor& dv, const at::Tensor& h, const at::Tensor& gate, const at::Tensor& table,
                                  const at::Tensor& ids, const at::Tensor& g, at::Tensor& dh, at::Tensor& d_gate,
                                  at::Tensor& d_table) {
  const at::Tensor gradient = as_float(dv), opened = g.view({dv.size(0), dv.size(1)});
  const at::Tensor rows = as_float(table.index_select(0, ids.flatten())).view(dv.sizes());
  const at::Tensor slope = (gradient * rows).sum(2) * opened * (1.0 - opened / 3.0);
  d_gate.add_(at::matmul(slope.t(), first_channels(h, gate)));
  dh.narrow(1, 0, gate.size(1)).add_(at::matmul(slope, as_float(gate)).to(dh.scalar_type()));
  if (!d_table.defined()) return;
  embedding_backward((gradient * opened.unsqueeze(2)).view({dv.size(0), d_table.size(1)}), ids.flatten(), d_table);
}

void adamw(at::Tensor& value, const at::Tensor& gradient, at::Tensor& first_moment, at::Tensor& second_moment,
           at::Tensor& compute, const AdamWArguments& a) {
  const at::Tensor g = gradient * a.grad_scale;
  first_moment.add_(g - first_moment, 1.0 - a.beta1);
  second_moment.mul_(a.beta2).addcmul_(g, g, 1.0 - a.beta2);
  value.mul_(1.0 - a.learning_rate * a.weight_decay);
  value.addcdiv_(first_moment, second_moment.sqrt().div_(a.sqrt_bias2).add_(a.eps), -a.learning_rate / a.bias1);
  if (compute.scalar_type() != at::kFloat) compute.copy_(value);
}

at::Tensor muon_directions(const MatrixList& matrices, at::ScalarType dtype, double grad_scale, double momentum,
                           bool nesterov) {
  std::vector<at::Tensor> directions;
  for (std::size_t i = 0; i < matrices.value.size(); ++i) {
    const at::Tensor gradient = matrices.gradient[i] * grad_scale;
    at::Tensor buffer = matrices.momentum[i];
    buffer.lerp_(gradient, 1.0 - momentum);
    directions.push_back((nesterov ? gradient.lerp(buffer, momentum) : buffer).to(dtype));
  }
  const at::Tensor batch = at::stack(directions);
  const at::Tensor norms = as_float(batch).square().sum({1, 2}, /*keepdim=*/true).sqrt();
  return batch / norms.to(dtype).add(1e-7);
}

namespace {

constexpr double kSmallestNorm = 1e-6, kSmallestMoment = 1e-10;

// (n, 1, 1) and (n, R, 1), in float32 whatever the type.
at::Tensor norms(const at::Tensor& x) { return as_float(x).norm(2, {1, 2}, /*keepdim=*/true); }
at::Tensor row_norms(const at::Tensor& x) { return as_float(x).norm(2, {2}, /*keepdim=*/true); }

// NorMuon: rows (or columns, of wide matrices) that have moved much are damped; the norm of the whole stays.
at::Tensor reduce_variance(const at::Tensor& x, std::vector<at::Tensor>& second_moments, double beta2) {
  const std::int64_t along = x.size(1) >= x.size(2) ? 2 : 1;
  const auto length = static_cast<double>(x.size(along));
  const at::Tensor mean_square = x.square().mean(at::IntArrayRef{along}, /*keepdim=*/true);
  const at::Tensor norm = mean_square.sum({1, 2}, /*keepdim=*/true).mul(length).sqrt();
  std::vector<at::Tensor> factors;
  for (std::size_t i = 0; i < second_moments.size(); ++i) {
    second_moments[i].lerp_(mean_square[static_cast<std::int64_t>(i)], 1.0 - beta2);
    factors.push_back(second_moments[i].clamp_min(kSmallestMoment).rsqrt());
  }
  const at::Tensor factor = at::stack(factors);
  const at::Tensor new_norm = mean_square.mul(length).mul(factor.square()).sum({1, 2}, /*keepdim=*/true).sqrt();
  return x.mul(factor.mul(norm.div(new_norm.clamp_min(kSmallestMoment))));
}

}  // namespace

at::Tensor normuon_directions(const MatrixList& matrices, at::ScalarType dtype, double grad_scale, double momentum) {
  std::vector<at::Tensor> all;
  for (std::size_t i = 0; i < matrices.value.size(); ++i) {
    const at::Tensor gradient = grad_scale == 1.0 ? matrices.gradient[i] : matrices.gradient[i].mul(grad_scale);
    at::Tensor buffer = matrices.momentum[i];
    buffer.lerp_(gradient, 1.0 - momentum);
    all.push_back(gradient.lerp(buffer, momentum));
  }
  at::Tensor x = at::stack(all).to(dtype);
  const at::Tensor mean = norms(x).div(std::sqrt(static_cast<double>(x.size(1))));
  x = x.mul(mean.div(row_norms(x).clamp_min(kSmallestNorm)).to(dtype));
  return x.div(norms(x).to(dtype).mul(1.01).add(1e-6));
}

void normuon_apply(const MatrixList& matrices, std::vector<at::Tensor>& second_moments, const at::Tensor& update,
                   const NorMuonArguments& arguments) {
  at::Tensor x = as_float(update);
  const double smaller_side = std::sqrt(static_cast<double>(std::min(x.size(1), x.size(2))));
  x = x.mul(norms(x).clamp_min(kSmallestNorm).reciprocal().mul(smaller_side));
  x = reduce_variance(x, second_moments, arguments.beta2);
  for (std::size_t i = 0; i < matrices.value.size(); ++i) {
    const at::Tensor one = x[static_cast<std::int64_t>(i)];
    at::Tensor value = matrices.value[i], compute = matrices.compute[i];
    // Cautious: what the step makes larger does not decay at the same time.
    const at::Tensor decaying = value.mul(one.mul(value).ge(0.0));
    value.sub_(one.add(decaying, arguments.weight_decay).mul_(arguments.rate));
    if (compute.scalar_type() != at::kFloat) copy_converting(value, compute);
  }
}

at::Tensor sum_of_squares(const std::vector<at::Tensor>& tensors) {
  at::Tensor total = tensors.front().to(at::kDouble).square().sum();
  for (std::size_t i = 1; i < tensors.size(); ++i) total = total + tensors[i].to(at::kDouble).square().sum();
  return total;
}

}  // namespace nanochat::ops::reference
