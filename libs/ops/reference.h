#pragma once
// The elementwise operations of training and the optimizers in plain ATen, on any device and for any layout. Kernels
// are compared with them. GPUs use them with NANOCHAT_CUDA_KERNELS=reference. Contracts as in ops/*.h; arithmetic in float32,
// rounded once to the output's type. Products and attention have none here: LibTorch's are the reference.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "ops/optimizer.h"
#include "ops/residual_mix.h"
#include "ops/rope.h"

namespace nanochat::ops::reference {

void rms_norm(const at::Tensor& x, at::Tensor& y, at::Tensor& rstd, double eps);
void add_rms_norm(at::Tensor& residual, const at::Tensor& branch, at::Tensor& y, at::Tensor& rstd, double eps);
void rms_norm_backward(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& rstd, at::Tensor& dx, bool accumulate);
void rope_qk_norm(const at::Tensor& qkv, const RopeTable& table, const at::Tensor& start, at::Tensor& q, at::Tensor& k,
                  at::Tensor& rstd, double eps);
void rope_qk_norm_backward(const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv, const at::Tensor& q,
                           const at::Tensor& k, const at::Tensor& rstd, const RopeTable& table, at::Tensor& dqkv);
void relu_squared(const at::Tensor& x, at::Tensor& y);
void relu_squared_backward(const at::Tensor& dy, const at::Tensor& y, at::Tensor& dx);
void embedding(const at::Tensor& table, const at::Tensor& ids, at::Tensor& y);
void embedding_backward(const at::Tensor& dy, const at::Tensor& ids, at::Tensor& dtable);
// Replaces raw logits z (rows, padded V) by their gradient if scale is defined; losses (rows) float32.
void softcap_cross_entropy(at::Tensor& z, const at::Tensor& targets, const at::Tensor& scale, at::Tensor& losses,
                           std::int64_t vocab, double softcap);
at::Tensor softcap(const at::Tensor& z, std::int64_t vocab, double softcap);

void residual_mix(at::Tensor& stream, const at::Tensor& branch, const at::Tensor& x0, const at::Tensor& a, const at::Tensor& b,
                  at::Tensor& before, at::Tensor& y, at::Tensor& rstd, double eps);
void residual_mix_backward(const NormGradient& norm, at::Tensor& gradient, const at::Tensor& before, const at::Tensor& x0,
                           const at::Tensor& a, const at::Tensor& b, at::Tensor& dx0, bool accumulate, at::Tensor d_a,
                           at::Tensor d_b);
void smear(const at::Tensor& x, const at::Tensor& previous, const at::Tensor& before, const at::Tensor& gate,
           const at::Tensor& lambda, at::Tensor& y, at::Tensor& s);
void smear_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& before, const at::Tensor& gate,
                    const at::Tensor& lambda, const at::Tensor& s, at::Tensor& dx, at::Tensor d_gate, at::Tensor d_lambda);
void add_value_embedding(at::Tensor v, const at::Tensor& h, const at::Tensor& gate, const at::Tensor& table,
                         const at::Tensor& ids, at::Tensor& g);
void add_value_embedding_backward(const at::Tensor& dv, const at::Tensor& h, const at::Tensor& gate, const at::Tensor& table,
                                  const at::Tensor& ids, const at::Tensor& g, at::Tensor& dh, at::Tensor& d_gate,
                                  at::Tensor& d_table);

void adamw(at::Tensor& value, const at::Tensor& gradient, at::Tensor& first_moment, at::Tensor& second_moment,
           at::Tensor& compute, const AdamWArguments& arguments);
at::Tensor muon_directions(const MatrixList& matrices, at::ScalarType dtype, double grad_scale, double momentum, bool nesterov);
at::Tensor normuon_directions(const MatrixList& matrices, at::ScalarType dtype, double grad_scale, double momentum);
void normuon_apply(const MatrixList& matrices, std::vector<at::Tensor>& second_moments, const at::Tensor& update,
                   const NorMuonArguments& arguments);
at::Tensor sum_of_squares(const std::vector<at::Tensor>& tensors);  // float64, no dimensions

}  // namespace nanochat::ops::reference
