#pragma once
// Launchers of the CUDA kernels, as a .cpp file may call them: plain pointers to device memory, no CUDA header. Each
// enqueues on `stream` and returns at once; a launch that fails throws std::runtime_error with CUDA's message. What
// the kernels compute is said in ops/*.h, whose functions call them (through backend.h); shapes are checked there.
//
// A row is the last dimension. All arithmetic is in float.

#include <cstdint>

struct CUstream_st;

namespace nanochat::ops::cuda {

using Stream = CUstream_st*;

enum class Element { kFloat, kBFloat16 };

// ------------------------------------------------------------------------------------------------ fp8.cu
// Of ops/fp8.h. Tensors of bfloat16 in multiples of 8 elements, 16-byte aligned.
enum class Element8 { kE4M3, kE5M2 };
void largest_magnitude(const void* x, std::int64_t n, float* largest, Stream stream);
void largest_relu_squared(const void* z, std::int64_t n, float* largest, Stream stream);
void largest_row_norm(const void* x, std::int64_t rows, std::int64_t columns, float* largest, Stream stream);
struct Fp8Pointers {
  void *rows, *columns;  // either may be null
  float* scale;
};
void to_fp8(Element8 type, const void* x, const float* largest, const Fp8Pointers& to, std::int64_t rows, std::int64_t columns,
            Stream stream);
// Both pointers are wanted; E4M3 and E5M2.
void relu_squared_to_fp8(const void* z, const float* largest, const Fp8Pointers& to, std::int64_t rows, std::int64_t columns,
                         Stream stream);
void relu_squared_backward_to_fp8(const void* dy, const void* z, const float* largest, const Fp8Pointers& to, std::int64_t rows,
                                  std::int64_t columns, Stream stream);

// ------------------------------------------------------------------------------------------------ rows.cu
// Widest row, in elements, of the RMSNorm kernels: multiples of 16 bytes up to the first, others up to the second.
inline constexpr std::int64_t kWidestRow = 16384, kWidestOddRow = 4096;

// residual == nullptr: y = norm(x). Otherwise residual += x first, and y = norm(residual); residual_type is `type` or kFloat.
// rstd may be null.
void rms_norm(Element type, const void* x, Element residual_type, void* residual, void* y, float* rstd, std::int64_t rows,
              std::int64_t n, float eps, Stream stream);
void rms_norm_backward(Element type, const void* dy, const void* y, const float* rstd, void* dx, bool accumulate,
                       std::int64_t rows, std::int64_t n, Stream stream);

struct RopeShape {
  std::int64_t batch, time, n_head, n_kv_head, d;
};
// start: int64 (batch) on the device, or null for zeros. rstd may be null.
void rope_qk_norm(Element type, const void* qkv, const float* cos, const float* sin, const std::int64_t* start, void* q,
                  void* k, float* rstd, const RopeShape& shape, float eps, Stream stream);
void rope_qk_norm_backward(Element type, const void* dq, const void* dk, const void* dv, const void* q, const void* k,
                           const float* rstd, const float* cos, const float* sin, void* dqkv, const RopeShape& shape,
                           Stream stream);

void relu_squared(Element type, const void* x, void* y, std::int64_t n, Stream stream);
// y (rows, m) = max(r y, 0)^2, r = 1 / sqrt(mean(x^2) + eps) of each row of x (rows, n).
void relu_squared_normalised(Element type, const void* x, void* y, std::int64_t rows, std::int64_t n, std::int64_t m, float eps,
                             Stream stream);
void relu_squared_backward(Element type, const void* dy, const void* y, void* dx, std::int64_t n, Stream stream);

// ids that are out of range give rows of NaN.
void embedding(Element type, const void* table, std::int64_t rows, const std::int32_t* ids, std::int64_t n, void* y,
               std::int64_t width, Stream stream);
// y = rms_norm() of the rows of the table. Input i is an id, or -1 - j for element j of `drawn` (drawn_count); ids (n) become
// what each input stands for.
void embedding_rms_norm(Element type, const void* table, std::int64_t rows, const std::int32_t* inputs, std::int64_t n,
                        const std::int32_t* drawn, std::int64_t drawn_count, std::int32_t* ids, void* y, std::int64_t width,
                        float eps, Stream stream);
// ---------------------------------------------------------------------------------------------- stream.cu
// The residual stream of nanochat-2026-07 (ops/residual_mix.h, ops/smear.h). a, b, lambda and the gradients of such numbers
// are one float each, on the device.
// stream_type is `type` or kFloat.
void residual_mix(Element type, Element stream_type, void* stream, const void* branch, const void* x0, const float* a,
                  const float* b, void* before, void* y, float* rstd, std::int64_t rows, std::int64_t n, float eps,
                  Stream stream_of_work);

// Floats of scratch for each of the backward functions below.
std::int64_t stream_partials(std::int64_t rows);

struct MixBackward {
  const void* dy;     // of the norm of the mixed stream, whose output is y; null: there is none
  const void* y;
  const float* rstd;
  void* gradient;     // in and out
  const void* before;  // may be null, then d_a is too
  const void* x0;
  const float* a;
  const float* b;
  void* dx0;
  bool accumulate;  // to dx0
  float* d_a;
  float* d_b;
  float* partials;
};
void residual_mix_backward(Element type, const MixBackward& arguments, std::int64_t rows, std::int64_t n, Stream stream);

struct Smear {
  const void* x;
  const void* previous;        // null: the row above
  const std::int32_t* before;
  const void* gate;
  const float* lambda;
  std::int32_t channels;       // of the gate
};
// s may be null.
void smear(Element type, const Smear& arguments, void* y, float* s, std::int64_t rows, std::int64_t n, Stream stream);
// slopes: float (rows), receives the gradient of the gate before its sigmoid.
void smear_backward(Element type, const Smear& arguments, const void* dy, const float* s, void* dx, float* slopes,
                    float* d_lambda, float* partials, std::int64_t rows, std::int64_t n, Stream stream);

// ---------------------------------------------------------------------------------------------- tables.cu
// Gradients of tables by token, added up in the order of the tokens: ids sorted, with the position that each came from.
struct SortedTokens {
  const std::int32_t* ids;
  const std::int64_t* positions;
  std::int64_t count;
};
// Floats of scratch for one table of this width.
std::int64_t table_gradient_partials(std::int64_t tokens, std::int64_t width);
void embedding_backward(Element type, const void* dy, const SortedTokens& tokens, float* dtable, std::int64_t rows,
                        std::int64_t width, float* partials, Stream stream);

// Value embeddings (ops/value_embedding.h).
struct ValueEmbedding {
  const void* h;  // (tokens, width)
  const void* gate;
  const void* table;
  Element table_type;
  std::int64_t tokens, heads, d, width, table_rows;
  std::int32_t channels;  // of the gate
};
// v (tokens, heads, d): rows v_stride elements apart. g may be null. ids out of range give NaN.
void add_value_embedding(Element type, const ValueEmbedding& arguments, void* v, std::int64_t v_stride, const std::int32_t* ids,
                         float* g, Stream stream);
// slopes (tokens, heads): receives the gradient of the gates before their sigmoid. d_table may be null; otherwise partials has
// table_gradient_partials(tokens, heads * d) floats.
void value_embedding_slopes(Element type, const ValueEmbedding& arguments, const void* dv, std::int64_t dv_stride,
                            const SortedTokens& tokens, const float* g, float* slopes, float* d_table, float* partials,
                            Stream stream);

// The gradients of gates (heads, channels) on the first channels of x (tokens, width), by that of their logits, slopes (tokens,
// heads): d_gate += slopes^T x and, where dx is not null, dx += slopes gate.
std::int64_t gate_gradient_partials(std::int64_t heads, std::int64_t channels);
void gate_gradient(Element type, const float* slopes, const void* x, const void* gate, void* dx, float* d_gate, float* partials,
                   std::int64_t tokens, std::int64_t heads, std::int64_t channels, std::int64_t width, Stream stream);

// --------------------------------------------------------------------------------------- cross_entropy.cu
// Rows of raw logits z (rows, padded). scale == nullptr: losses only; otherwise z becomes its gradient. A target
// outside the vocabulary gives a loss of NaN.
void softcap_cross_entropy(Element type, void* z, const std::int32_t* targets, const float* scale, float* losses,
                           std::int64_t rows, std::int64_t vocab, std::int64_t padded, float softcap, Stream stream);
// Of the tokens of a slice of a row of logits: the most likely one and the first whose logit is NaN or +Inf, each with its
// number as one word that compares as they do; 0 where there is none.
struct LogitExtremes {
  std::uint64_t most, bad;
};
inline constexpr int kSliceTokens = 1024;
constexpr std::int64_t logit_slices(std::int64_t vocab) { return (vocab + kSliceTokens - 1) / kSliceTokens; }
// extremes: of the slices of each row (rows, logit_slices(vocab)), or null.
void softcap(Element type, const void* z, float* out, LogitExtremes* extremes, std::int64_t rows, std::int64_t vocab,
             std::int64_t padded, float softcap, Stream stream);

// --------------------------------------------------------------------------------------------- optimizer.cu
struct AdamWStep {
  float grad_scale, beta1, beta2, learning_rate, weight_decay, eps, bias1, sqrt_bias2;
};
// copy: bfloat16, may be null.
void adamw(float* p, const float* g, float* m, float* v, void* copy, std::int64_t n, const AdamWStep& step, Stream stream);

// Matrices of one shape, `size` elements each; the pointers travel as kernel arguments.
inline constexpr int kMatricesPerLaunch = 64;
struct MatrixPointers {
  float* value[kMatricesPerLaunch];
  const float* gradient[kMatricesPerLaunch];
  float* momentum[kMatricesPerLaunch];
  void* compute[kMatricesPerLaunch];  // bfloat16, or null
};
// Blocks that share one matrix; each leaves one partial sum of squares.
inline constexpr int kBlocksPerMatrix = 32;
// Updates momentum and writes the direction of matrix i to batch + i * size; partial (count, kBlocksPerMatrix).
void muon_momentum(Element type, const MatrixPointers& matrices, int count, std::int64_t size, void* batch, float* partial,
                   float grad_scale, float momentum, bool nesterov, Stream stream);
// batch[i] /= Frobenius norm + 1e-7.
void muon_normalise(Element type, void* batch, const float* partial, int count, std::int64_t size, Stream stream);
// value[i] -= rate * update[i], and the compute copy.
void muon_apply(Element type, const MatrixPointers& matrices, const void* update, int count, std::int64_t size, float rate,
                Stream stream);

// NorMuon (ops/optimizer.h). Matrices of one shape (rows, columns).
struct MatrixShape {
  std::int64_t rows, columns;
};
// squares: (2, count, rows) floats of scratch; totals: (2, count).
void normuon_directions(Element type, const MatrixPointers& matrices, int count, const MatrixShape& shape, void* batch,
                        float* squares, float* totals, float grad_scale, float momentum, Stream stream);
// Lines are rows if there are at least as many as columns, else columns.
struct NorMuonMoments {
  float* moment[kMatricesPerLaunch];  // one for each line
};
struct NorMuonStep {
  float rate, weight_decay, beta2;
};
// partials: (count, normuon_parts(shape), lines) floats of scratch; factors: (count, lines).
std::int64_t normuon_parts(const MatrixShape& shape);
void normuon_apply(Element type, const MatrixPointers& matrices, const NorMuonMoments& moments, int count,
                   const MatrixShape& shape, const void* update, float* partials, float* factors, const NorMuonStep& step,
                   Stream stream);

// Tensors of any size; the pointers travel as kernel arguments. A block takes kRunOfSquares elements of one tensor: tensor i has
// the blocks from first_block[i] on.
inline constexpr int kTensorsPerLaunch = 128;
inline constexpr std::int64_t kRunOfSquares = 32768;
struct TensorList {
  const float* x[kTensorsPerLaunch];
  std::int64_t size[kTensorsPerLaunch];
  unsigned first_block[kTensorsPerLaunch];
};
// Partial sums of squares of the first `count` tensors, one for each of `blocks` blocks.
void sum_of_squares(const TensorList& list, int count, unsigned blocks, double* partial, Stream stream);

// ----------------------------------------------------------------------------------------- paged_attention.cu
// Tokens of one sequence in a batch (PagedBatch of ops/paged_attention.h).
struct PagedSequence {
  std::int32_t row;  // of the batch: the first token's
  std::int32_t tokens;  // in the batch; 0: the sequence is skipped
  std::int32_t start;  // position of the first of them
  std::int32_t table;  // element of `tables` where its block table begins
};
// Rows of a sequence that one block of threads answers. A row is a token and one of the heads that share a key/value head;
// rows are numbered token by token.
struct PagedTile {
  std::int32_t sequence, first;
};
inline constexpr int kTileRows = 16, kTallTileRows = 64;
inline constexpr int kTileKeys = 64;  // splits are multiples of this
inline constexpr std::int32_t kNoWindow = 0x7fffffff;

struct PagedAttentionArguments {
  const void* q;  // (N, n_head, d)
  const void* keys;  // (blocks, n_kv_head, block_size, d)
  const void* values;
  void* out;  // (N, n_head, d)
  const PagedSequence* sequences;
  const PagedTile* tiles;  // null: tile i is the first one of sequence i
  const std::int32_t* tables;
  float* partial;  // paged_partial_floats() of scratch
  std::int32_t* counters;  // (tiles, n_kv_head), zero before and after
  std::int32_t n_head, n_kv_head, d, block_size;
  std::int32_t block_shift;  // log2(block_size), or -1 where block_size is no power of two
  std::uint64_t block_inverse;  // 2^64 / block_size, rounded up, where there is no shift
  std::int32_t tile_count;
  std::int32_t partial_rows;  // most rows that a tile has, at most those of its kind
  std::int32_t split;  // keys of a split: a multiple of kTileKeys. One block of threads reads one split
  std::int32_t splits;  // of the longest sequence
  std::int32_t window;  // a token at position p sees positions p - window to p
  bool tall;  // tiles of kTallTileRows rows; bfloat16 alone
  bool fp8;  // keys and values are E4M3; bfloat16 alone
  float scale;
};
bool paged_attention_takes(std::int64_t d);
std::int64_t paged_partial_floats(const PagedAttentionArguments& arguments);
// A row's result depends on its own sequence and on `split` alone: not on the other tiles, nor on `splits`.
void paged_attention(Element type, const PagedAttentionArguments& arguments, Stream stream);

struct PagedShape {
  std::int32_t tokens, n_head, n_kv_head, d, block_size;
  bool fp8;  // the cache is E4M3, what goes there is bfloat16
};
// Token i of k and v goes to slot slots[i] of the cache: block * block_size + position in it; nowhere where that is negative.
// Strides in elements.
void paged_store(Element type, const void* k, std::int64_t k_stride, const void* v, std::int64_t v_stride,
                 const std::int32_t* slots, void* keys, void* values, const PagedShape& shape, Stream stream);
// rope_qk_norm() of the query heads in qkv (N, n_head + 2 n_kv_head, d) into q, and of the key heads into the cache, where
// the value heads go too. Token i stands at positions[i].
void rope_qk_norm_store(Element type, const void* qkv, const float* cos, const float* sin, const std::int32_t* positions,
                        const std::int32_t* slots, void* q, void* keys, void* values, const PagedShape& shape, float eps,
                        Stream stream);

// ------------------------------------------------------------------------------------------- paged_decode.cu
// rope_qk_norm_store() and paged_attention() of sequences with one token each, in one kernel. bfloat16, with a cache of that or
// of E4M3, compute capability 9.0 and later. Each sequence's keys are cut into `parts` of nearly equal length; a result depends on
// its own sequence and on `parts`. The kernel reads the lists and the keys of earlier tokens before the kernels that were enqueued
// just before have ended: between those that write them and this one, there must be a copy from the host or the end of a graph.
inline constexpr int kMostDecodeParts = 8;
struct PagedDecode {
  const void* qkv;  // (N, n_head + 2 n_kv_head, d)
  const float* cos;  // (positions, d / 2)
  const float* sin;
  void* keys;  // (blocks, n_kv_head, block_size, d)
  void* values;
  void* out;  // (N, n_head, d)
  // Where qkv is a product of rows that were not normalised: those rows (N, width). Null: they were.
  const void* stream;
  std::int32_t width;
  const PagedSequence* sequences;
  const std::int32_t* tables;
  const std::int32_t* slots;  // of each token, as for paged_store()
  std::int32_t n_head, n_kv_head, d, block_size, block_shift;  // as in PagedAttentionArguments
  std::uint64_t block_inverse;  // likewise
  std::int32_t sequence_count;
  std::int32_t parts;  // 1, 2, 4 or 8
  std::int32_t window;  // as in PagedAttentionArguments
  bool fp8;  // likewise
  float scale, eps;
  // Set by paged_decode().
  std::int32_t group, parts_shift;  // n_head / n_kv_head; the logarithm of `parts`
  std::int32_t turns;  // sequences of a block of threads
};
// Copies `bytes`, a multiple of 16, from pinned memory of the host, in the order of the stream: in a few microseconds less than a
// copy of more than about a kilobyte by the driver. What is enqueued next must be a graph or a copy: kernels of a decoding step
// begin to read before the kernel in front of them has ended.
void upload(const void* host, void* device, std::int64_t bytes, Stream stream);
// Whether the current device has the kernel, for such heads.
bool paged_decode_takes(std::int64_t d, std::int64_t group);
void paged_decode(const PagedDecode& arguments, Stream stream);

// --------------------------------------------------------------------------------------------- linear_rows.cu
// y (rows, m) = x (rows, k) wT of w (m, k), for few rows, with what stands before and behind it in the model. Strides in
// elements. A row of y does not depend on the other rows, nor on how many there are. The kernel reads w before the kernels
// that were enqueued just before have ended: between those that write it and this one, there must be a copy from the host or
// the end of a graph.
inline constexpr std::int64_t kMostLinearRows = 32;  // in bfloat16; in float32 any number
struct LinearRows {
  const void* x;
  std::int64_t x_stride;
  const void* w;
  std::int64_t w_stride;
  void* y;
  std::int64_t y_stride;
  std::int32_t rows, m, k;
  float norm_eps;  // x is normalised first as by rms_norm(); negative: it is not
  bool relu_squared;  // max(y, 0)^2
  bool add;  // added to what y holds
  float inverse_k = 0.0F;  // set by linear_rows()
};
// Whether pointers and strides fit.
bool linear_rows_takes(Element type, const LinearRows& arguments);
void linear_rows(Element type, const LinearRows& arguments, Stream stream);

// -------------------------------------------------------------------------------------------------- sample.cu
// One token to draw (ops/sample.h has the meaning and the order of the steps). Lists lie in the arrays of SampleArguments:
// from `begin` on, `count` elements.
struct SampleList {
  std::int32_t begin, count;
};
struct SampleRow {
  std::int32_t logits;  // row of the logits
  std::int32_t greedy;  // 1: the most likely token
  float inverse_temperature;
  float repetition_penalty;
  double frequency_penalty, presence_penalty;
  double top_p, min_p, uniform;
  std::int32_t top_k;  // 0: all
  std::int32_t logprob;  // 1: wanted
  std::int32_t top_logprobs;  // how many are wanted, at most SampleArguments::top_stride
  std::int32_t scratch_row;  // of `counts`, or -1 where there are no penalties
  SampleList seen, generated, forbidden;  // of ids
  std::int32_t last_input;  // element of `inputs` that is one more of seen and of generated, or -1
  SampleList bias;  // of bias_ids and bias_values
  std::int32_t allowed;  // word of `masks` where the row's mask begins, or -1: all are
};
enum class SampleStatus : std::int32_t { kOk, kNotFinite, kNoneFinite, kNoneAllowed };
struct SampledRow {
  std::int32_t id;  // kNotFinite: the token whose logit is not
  SampleStatus status;
  float bad_logit;  // kNotFinite: that logit
  std::int32_t top_count;
  double logprob;
};
struct SampledLogprob {
  std::int32_t id;
  double logprob;
};
inline constexpr int kRunTokens = 128;  // neighbouring tokens whose weights are summed together
constexpr std::int64_t logit_runs(std::int64_t vocab) { return (vocab + kRunTokens - 1) / kRunTokens; }
struct SampleArguments {
  const float* logits;  // (rows of logits, vocab)
  LogitExtremes* extremes;  // (rows of logits, logit_slices(vocab))
  bool has_extremes;  // false: sample() fills them in
  bool sums;  // whether any row is drawn at a temperature or wants logprobs: sample() fills in these
  double* draw_sums;  // (row_count, logit_runs(vocab)) of scratch, as the two behind it
  double* log_sums;
  float* peaks;
  const SampleRow* rows;
  const std::int32_t* ids;  // seen, generated, forbidden
  const std::int32_t* inputs;  // of last_input
  const std::int32_t* bias_ids;
  const float* bias_values;
  const std::uint32_t* masks;  // a bit for each token
  float* weights;  // (row_count, vocab) of scratch
  std::uint32_t* counts;  // (rows with penalties, vocab), zero before
  SampledRow* results;  // (row_count)
  SampledLogprob* top;  // (row_count, top_stride)
  std::int32_t* tokens;  // (row_count): the ids once more, for the next pass through the model; -1 after an error
  std::int32_t row_count, vocab, top_stride;
};
void sample(const SampleArguments& arguments, Stream stream);

}  // namespace nanochat::ops::cuda
