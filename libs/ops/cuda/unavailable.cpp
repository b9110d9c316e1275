// The CUDA backend of a build without CUDA.

#include <c10/util/Exception.h>

#include "ops/cuda/backend.h"

namespace nanochat::ops::cuda {
namespace {

[[noreturn]] void unavailable() { TORCH_CHECK(false, "this build has no CUDA backend (configure with -DNANOCHAT_CUDA=ON)"); }

}  // namespace

void rms_norm(const at::Tensor&, at::Tensor&, at::Tensor&, double) { unavailable(); }
void add_rms_norm(at::Tensor&, const at::Tensor&, at::Tensor&, at::Tensor&, double) { unavailable(); }
void rms_norm_backward(const at::Tensor&, const at::Tensor&, const at::Tensor&, at::Tensor&, bool) { unavailable(); }
void rope_qk_norm(const at::Tensor&, const RopeTable&, const at::Tensor&, at::Tensor&, at::Tensor&, at::Tensor&, double) {
  unavailable();
}
void rope_qk_norm_backward(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                           const at::Tensor&, const RopeTable&, at::Tensor&) {
  unavailable();
}
void relu_squared(const at::Tensor&, at::Tensor&) { unavailable(); }
void relu_squared_normalised(const at::Tensor&, at::Tensor&, double) { unavailable(); }
void relu_squared_backward(const at::Tensor&, const at::Tensor&, at::Tensor&) { unavailable(); }
void embedding(const at::Tensor&, const at::Tensor&, at::Tensor&) { unavailable(); }
void embedding_rms_norm(const at::Tensor&, const at::Tensor&, const at::Tensor&, at::Tensor&, at::Tensor&, double) {
  unavailable();
}
void embedding_backward(const at::Tensor&, const TokenOrder&, at::Tensor&) { unavailable(); }
TokenOrder order_tokens(const at::Tensor&) { unavailable(); }
void residual_mix(at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, at::Tensor&,
                  at::Tensor&, at::Tensor&, double) {
  unavailable();
}
void residual_mix_backward(const NormGradient&, at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                           const at::Tensor&, at::Tensor&, bool, at::Tensor, at::Tensor) {
  unavailable();
}
void smear(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, at::Tensor&,
           at::Tensor&) {
  unavailable();
}
void smear_backward(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                    const at::Tensor&, at::Tensor&, at::Tensor, at::Tensor) {
  unavailable();
}
void add_value_embedding(at::Tensor, const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, at::Tensor&) {
  unavailable();
}
void add_value_embedding_backward(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, const TokenOrder&,
                                  const at::Tensor&, at::Tensor&, at::Tensor&, at::Tensor&) {
  unavailable();
}
void softcap_cross_entropy(at::Tensor&, const at::Tensor&, const at::Tensor&, at::Tensor&, std::int64_t, double) {
  unavailable();
}
at::Tensor softcap(const at::Tensor&, std::int64_t, double) { unavailable(); }
void softcap(const at::Tensor&, double, at::Tensor&, const at::Tensor&) { unavailable(); }
bool attention_takes(const at::Tensor&, const AttentionScope&) { return false; }
AttentionForward causal_attention(const at::Tensor&, const at::Tensor&, const at::Tensor&, const AttentionScope&) {
  unavailable();
}
AttentionBackward causal_attention_backward(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                            const AttentionForward&, const AttentionScope&) {
  unavailable();
}
bool has_fp8(int) { return false; }
at::Tensor largest_magnitude(const at::Tensor&) { unavailable(); }
at::Tensor largest_row_norm(const at::Tensor&) { unavailable(); }
at::Tensor largest_relu_squared(const at::Tensor&) { unavailable(); }
Fp8Matrix relu_squared_to_fp8(const at::Tensor&, const at::Tensor&) { unavailable(); }
Fp8Matrix relu_squared_backward_to_fp8(const at::Tensor&, const at::Tensor&, const at::Tensor&) { unavailable(); }
Fp8Matrix to_fp8(const at::Tensor&, const at::Tensor&, Fp8Format, Fp8Orders) { unavailable(); }
void fp8_product(const Fp8Operand&, const Fp8Operand&, at::Tensor&, bool, bool) { unavailable(); }
bool linear_rows(const at::Tensor&, const at::Tensor&, at::Tensor&, const LinearFusion&) { unavailable(); }
bool paged_attention_takes(std::int64_t) { return false; }
std::int64_t paged_partial_floats(const DevicePagedBatch::Tiles&, const at::Tensor&) { unavailable(); }
void paged_store(const at::Tensor&, const at::Tensor&, const DevicePagedBatch&, at::Tensor&, at::Tensor&) { unavailable(); }
void rope_qk_norm_store(const at::Tensor&, const RopeTable&, const DevicePagedBatch&, at::Tensor&, at::Tensor&, at::Tensor&,
                        double) {
  unavailable();
}
void paged_attention(const at::Tensor&, const at::Tensor&, const at::Tensor&, const DevicePagedBatch&, const AttentionScope&,
                     at::Tensor&) {
  unavailable();
}
void upload(const at::Tensor&, at::Tensor&) { unavailable(); }
bool paged_decode_takes(const at::Tensor&, std::int64_t) { return false; }
void paged_decode(const at::Tensor&, const RopeTable&, const DevicePagedBatch&, at::Tensor&, at::Tensor&, const AttentionScope&,
                  double, at::Tensor&, const at::Tensor&) {
  unavailable();
}
at::Tensor sample(const at::Tensor&, std::span<const ops::SampleRow>, std::int64_t, const at::Tensor&, at::Tensor&,
                  const at::Tensor&) {
  unavailable();
}
HostCopy copy_to_host(const at::Tensor&) { unavailable(); }
void wait(Event&) { unavailable(); }
void adamw(at::Tensor&, const at::Tensor&, at::Tensor&, at::Tensor&, at::Tensor&, const AdamWArguments&) { unavailable(); }
at::Tensor muon_directions(const MatrixList&, at::ScalarType, double, double, bool) { unavailable(); }
void muon_apply(const MatrixList&, const at::Tensor&, double) { unavailable(); }
at::Tensor normuon_directions(const MatrixList&, at::ScalarType, double, double) { unavailable(); }
void normuon_apply(const MatrixList&, std::vector<at::Tensor>&, const at::Tensor&, const NorMuonArguments&) { unavailable(); }
at::Tensor sum_of_squares(const std::vector<at::Tensor>&) { unavailable(); }

bool built() { return false; }
int device_count() { return 0; }
std::int64_t multiprocessor_count(int) { unavailable(); }
DeviceDescription describe(int) { unavailable(); }
void use_device(int) { unavailable(); }
void limit_memory(int, std::int64_t) { unavailable(); }
void synchronize() { unavailable(); }
std::int64_t peak_allocated_bytes() { unavailable(); }

std::shared_ptr<Graph> record(c10::Device, const std::function<void()>&) { unavailable(); }
void replay(Graph&) { unavailable(); }

}  // namespace nanochat::ops::cuda
