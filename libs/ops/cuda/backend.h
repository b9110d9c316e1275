#pragma once
// Functions that ops/*.cpp call for tensors on a GPU: the operations of ops/*.h with the same names and contracts;
// shapes are already checked. Implemented in backend.cpp; a build without CUDA has unavailable.cpp, where each throws.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <tuple>
#include <vector>

#include "ops/attention.h"
#include "ops/device.h"
#include "ops/embedding.h"
#include "ops/fp8.h"
#include "ops/linear.h"
#include "ops/optimizer.h"
#include "ops/paged_attention.h"
#include "ops/residual_mix.h"
#include "ops/rope.h"
#include "ops/sample.h"

namespace nanochat::ops::cuda {

void rms_norm(const at::Tensor& x, at::Tensor& y, at::Tensor& rstd, double eps);
void add_rms_norm(at::Tensor& residual, const at::Tensor& branch, at::Tensor& y, at::Tensor& rstd, double eps);
void rms_norm_backward(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& rstd, at::Tensor& dx, bool accumulate);
void rope_qk_norm(const at::Tensor& qkv, const RopeTable& table, const at::Tensor& start, at::Tensor& q, at::Tensor& k,
                  at::Tensor& rstd, double eps);
void rope_qk_norm_backward(const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv, const at::Tensor& q,
                           const at::Tensor& k, const at::Tensor& rstd, const RopeTable& table, at::Tensor& dqkv);
void relu_squared(const at::Tensor& x, at::Tensor& y);
void relu_squared_normalised(const at::Tensor& x, at::Tensor& y, double eps);
void relu_squared_backward(const at::Tensor& dy, const at::Tensor& y, at::Tensor& dx);
void embedding(const at::Tensor& table, const at::Tensor& ids, at::Tensor& y);
void embedding_rms_norm(const at::Tensor& table, const at::Tensor& inputs, const at::Tensor& drawn, at::Tensor& ids,
                        at::Tensor& y, double eps);
void embedding_backward(const at::Tensor& dy, const TokenOrder& order, at::Tensor& dtable);
TokenOrder order_tokens(const at::Tensor& ids);

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
                                  const TokenOrder& order, const at::Tensor& g, at::Tensor& dh, at::Tensor& d_gate,
                                  at::Tensor& d_table);
// z (rows, padded): raw logits, replaced by their gradient if scale is defined.
void softcap_cross_entropy(at::Tensor& z, const at::Tensor& targets, const at::Tensor& scale, at::Tensor& losses,
                           std::int64_t vocab, double softcap);
at::Tensor softcap(const at::Tensor& z, std::int64_t vocab, double softcap);
void softcap(const at::Tensor& z, double softcap, at::Tensor& out, const at::Tensor& extremes = {});
// Whether a kernel takes these heads and this scope, whose window, if any, ends before the longest row or document does.
bool attention_takes(const at::Tensor& q, const AttentionScope& scope);
AttentionForward causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionScope& scope);
AttentionBackward causal_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                            const at::Tensor& v, const AttentionForward& forward, const AttentionScope& scope);

bool has_fp8(int device);
at::Tensor largest_magnitude(const at::Tensor& x);
at::Tensor largest_row_norm(const at::Tensor& x);
at::Tensor largest_relu_squared(const at::Tensor& z);
Fp8Matrix relu_squared_to_fp8(const at::Tensor& z, const at::Tensor& largest);
Fp8Matrix relu_squared_backward_to_fp8(const at::Tensor& dy, const at::Tensor& z, const at::Tensor& largest);
Fp8Matrix to_fp8(const at::Tensor& x, const at::Tensor& largest, Fp8Format format, Fp8Orders wanted);
struct Fp8Operand {
  at::Tensor bits, scale;
};
// y = a b, or y += a b; `fast`: fast accumulation.
void fp8_product(const Fp8Operand& a, const Fp8Operand& b, at::Tensor& y, bool add, bool fast);

// False if no kernel supports the layout or this number of rows.
bool linear_rows(const at::Tensor& x, const at::Tensor& w, at::Tensor& y, const LinearFusion& fusion);

bool paged_attention_takes(std::int64_t d);
std::int64_t paged_partial_floats(const DevicePagedBatch::Tiles& tiles, const at::Tensor& keys);
void paged_store(const at::Tensor& k, const at::Tensor& v, const DevicePagedBatch& batch, at::Tensor& keys, at::Tensor& values);
void rope_qk_norm_store(const at::Tensor& qkv, const RopeTable& table, const DevicePagedBatch& batch, at::Tensor& q,
                        at::Tensor& keys, at::Tensor& values, double eps);
void paged_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values, const DevicePagedBatch& batch,
                     const AttentionScope& scope, at::Tensor& out);
// to's first elements = host, a dense tensor in pinned memory that may go at once; a multiple of 16 bytes. What is enqueued next is
// a recorded graph.
void upload(const at::Tensor& host, at::Tensor& to);
bool paged_decode_takes(const at::Tensor& keys, std::int64_t n_head);
void paged_decode(const at::Tensor& qkv, const RopeTable& table, const DevicePagedBatch& batch, at::Tensor& keys,
                  at::Tensor& values, const AttentionScope& scope, double eps, at::Tensor& out, const at::Tensor& rows);
// Writes the tokens, int32 (rows). Returns what DeviceSamples::read() reads, as bytes on the device.
at::Tensor sample(const at::Tensor& logits, std::span<const ops::SampleRow> rows, std::int64_t most_top,
                  const at::Tensor& inputs, at::Tensor& tokens, const at::Tensor& extremes);

class Event;
// A copy in pinned memory of the host, which is being made until `done`.
struct HostCopy {
  at::Tensor tensor;
  std::shared_ptr<Event> done;
};
HostCopy copy_to_host(const at::Tensor& tensor);
void wait(Event& event);

void adamw(at::Tensor& value, const at::Tensor& gradient, at::Tensor& first_moment, at::Tensor& second_moment,
           at::Tensor& compute, const AdamWArguments& arguments);
at::Tensor muon_directions(const MatrixList& matrices, at::ScalarType dtype, double grad_scale, double momentum, bool nesterov);
void muon_apply(const MatrixList& matrices, const at::Tensor& update, double rate);
at::Tensor normuon_directions(const MatrixList& matrices, at::ScalarType dtype, double grad_scale, double momentum);
void normuon_apply(const MatrixList& matrices, std::vector<at::Tensor>& second_moments, const at::Tensor& update,
                   const NorMuonArguments& arguments);
// Sum of squares of all tensors (float32), on the device: float64, no dimensions.
at::Tensor sum_of_squares(const std::vector<at::Tensor>& tensors);

// ops/device.h without the distinction of devices. Without CUDA: 0 devices; the other functions throw.
bool built();
int device_count();
std::int64_t multiprocessor_count(int device);
DeviceDescription describe(int index);
void use_device(int index);
void limit_memory(int index, std::int64_t bytes);
void synchronize();
std::int64_t peak_allocated_bytes();

class Graph;
std::shared_ptr<Graph> record(c10::Device device, const std::function<void()>& work);
void replay(Graph& graph);

}  // namespace nanochat::ops::cuda
