#include "ops/cross_entropy.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "ops/cuda/backend.h"
#include "ops/internal/dispatch.h"
#include "ops/linear.h"
#include "ops/matrix_product.h"
#include "ops/reference.h"
#include "ops/sample.h"

namespace nanochat::ops {
namespace {

// Rows are picked where at least one in so many is ignored: picking costs two passes over what the head reads and writes.
constexpr std::int64_t kLeastIgnored = 16;

std::int64_t rows_per_chunk(std::int64_t row_bytes, bool gpu, std::int64_t chunk_bytes, std::int64_t count) {
  constexpr std::int64_t kGpuChunkBytes = 1 << 30, kChunkBytes = 8 << 20, kMinimumRows = 1024;
  std::int64_t rows = gpu ? kGpuChunkBytes / row_bytes : std::max(kChunkBytes / row_bytes, kMinimumRows);
  if (chunk_bytes > 0) rows = chunk_bytes / row_bytes;
  return std::clamp<std::int64_t>(rows, 1, std::max<std::int64_t>(count, 1));
}

std::int64_t rows_per_chunk(const at::Tensor& w, const HeadOptions& options, std::int64_t count) {
  return rows_per_chunk(w.size(0) * static_cast<std::int64_t>(w.element_size()), w.is_cuda(), options.chunk_bytes, count);
}

// The rows of tensors that are computed, some at a time: all of them, or those of a list.
class PickedRows {
 public:
  PickedRows(const at::Tensor& x, const at::Tensor& rows) : rows_(rows), count_(rows.defined() ? rows.numel() : x.size(0)) {
    TORCH_CHECK(!rows.defined() || (rows.scalar_type() == at::kLong && rows.device() == x.device()),
                "head: rows must be int64 on the device of x");
  }

  std::int64_t count() const { return count_; }
  // Picked rows `first` to `first` + `n`: a view of `all`, or a copy.
  at::Tensor take(const at::Tensor& all, std::int64_t first, std::int64_t n) const {
    return rows_.defined() ? all.index_select(0, rows_.narrow(0, first, n)) : all.narrow(0, first, n);
  }
  // Room for results of these rows, which put() brings to their places.
  at::Tensor room(const at::Tensor& all, std::int64_t first, std::int64_t n) const {
    if (!rows_.defined()) return all.narrow(0, first, n);
    std::vector<std::int64_t> shape = all.sizes().vec();
    shape[0] = n;
    return at::empty(shape, all.options());
  }
  void put(at::Tensor& all, const at::Tensor& part, std::int64_t first) const {
    if (rows_.defined()) all.index_copy_(0, rows_.narrow(0, first, part.size(0)), part);
  }
  // What rows that are not picked have.
  void begin(at::Tensor& all) const {
    if (rows_.defined()) all.zero_();
  }

 private:
  const at::Tensor rows_;
  std::int64_t count_;
};

// Logits of `rows` rows. Rows a power of two apart would fall on the same few lines of the caches where they are read by columns.
at::Tensor logit_buffer(const at::Tensor& x, const at::Tensor& w, std::int64_t rows) {
  constexpr std::int64_t kGap = 32;  // a line of bfloat16 numbers
  const std::int64_t gap = has_fastest_products(x) ? kGap : 0;
  return at::empty({rows, w.size(0) + gap}, x.options()).narrow(1, 0, w.size(0));
}

void check(const at::Tensor& x, const at::Tensor& w, const at::Tensor& targets, const HeadOptions& options) {
  TORCH_CHECK(x.dim() == 2 && w.dim() == 2 && x.size(1) == w.size(1) && x.scalar_type() == w.scalar_type(), "head: x ",
              x.sizes(), " ", x.scalar_type(), " does not fit w ", w.sizes(), " ", w.scalar_type());
  TORCH_CHECK(options.vocab_size > 0 && options.vocab_size <= w.size(0), "head: vocab_size ", options.vocab_size,
              " does not fit w ", w.sizes());
  TORCH_CHECK(targets.numel() == x.size(0) && targets.scalar_type() == at::kInt, "head: targets ", targets.sizes(), " ",
              targets.scalar_type(), " do not fit x ", x.sizes());
  if (targets.is_cuda()) return;  // the kernel answers a target that is outside by a loss of NaN
  const std::int32_t* target = typed<std::int32_t>(targets);
  for (std::int64_t i = 0; i < targets.numel(); ++i) {
    TORCH_CHECK(target[i] < options.vocab_size, "head: target ", target[i], " is outside the vocabulary of ",
                options.vocab_size);
  }
}

// Losses of the rows of z; with scale, z becomes its gradient. targets, scale and losses are those of the same rows.
template <class T>
void losses_of_rows(at::Tensor& z, const at::Tensor& targets, const at::Tensor& scale, const HeadOptions& options,
                    at::Tensor& losses) {
  const std::int64_t padded = z.size(1), stride = z.stride(0);
  const std::int32_t* target = typed<std::int32_t>(targets);
  const float* scales = scale.defined() ? typed<float>(scale) : nullptr;
  float* loss = typed<float>(losses);
  parallel_for(z.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> scratch(static_cast<std::size_t>(2 * options.vocab_size));
    for (std::int64_t row = begin; row < end; ++row) {
      T* logits = static_cast<T*>(z.data_ptr()) + row * stride;
      if (target[row] < 0) {
        loss[row] = 0.0F;
        if (scales != nullptr) std::fill(logits, logits + padded, T{});
        continue;
      }
      loss[row] = cpu::kernels<T>().softcap_cross_entropy(logits, scratch.data(), options.vocab_size, padded, target[row],
                                                          static_cast<float>(options.softcap), scales != nullptr,
                                                          scales != nullptr ? scales[row] : 0.0F);
    }
  });
}

void chunk_losses(at::Tensor& z, const at::Tensor& targets, const at::Tensor& scale, const HeadOptions& options,
                  at::Tensor& losses) {
  if (z.is_cuda()) {
    return on_gpu(cuda::softcap_cross_entropy, reference::softcap_cross_entropy)(z, targets, scale, losses, options.vocab_size,
                                                                                 options.softcap);
  }
  visit_dtype(z, "head", [&]<class T>(T) { losses_of_rows<T>(z, targets, scale, options, losses); });
}

// The head's matrix w or its transpose, packed once for all chunks where there are kernels that want it so.
class Weights {
 public:
  Weights(const at::Tensor& w, bool transposed) : w_(w), transposed_(transposed) {
    if (has_fastest_products(w)) packed_.emplace(transposed ? w.t() : w);
  }
  // y = x w, or x wᵀ.
  void multiply(const at::Tensor& x, at::Tensor& y) const {
    if (packed_) return product(x, *packed_, y);
    transposed_ ? linear(x, w_, y) : linear_backward_input(x, w_, y);
  }

 private:
  const at::Tensor w_;
  bool transposed_;
  std::optional<PackedMatrix> packed_;
};

}  // namespace

at::Tensor rows_with_target(const at::Tensor& targets) {
  TORCH_CHECK(targets.is_cpu() && targets.scalar_type() == at::kInt && targets.is_contiguous(),
              "rows_with_target: expected contiguous int32 targets on the CPU");
  const std::int32_t* target = typed<std::int32_t>(targets);
  const std::int64_t count = targets.numel(), ignored = std::count_if(target, target + count, [](auto id) { return id < 0; });
  if (ignored == 0 || ignored < count / kLeastIgnored) return {};
  at::Tensor rows = at::empty({count - ignored}, at::kLong);
  auto* next = rows.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < count; ++i) {
    if (target[i] >= 0) *next++ = i;
  }
  return rows;
}

void head_losses(const at::Tensor& x, const at::Tensor& w, const at::Tensor& targets, const HeadOptions& options,
                 at::Tensor& losses, const at::Tensor& rows) {
  check(x, w, targets, options);
  const PickedRows picked(x, rows);
  const std::int64_t chunk = rows_per_chunk(w, options, picked.count());
  const at::Tensor buffer = logit_buffer(x, w, chunk);
  const Weights forward(w, /*transposed=*/true);
  picked.begin(losses);
  for (std::int64_t first = 0; first < picked.count(); first += chunk) {
    const std::int64_t n = std::min(chunk, picked.count() - first);
    at::Tensor z = buffer.narrow(0, 0, n), loss = picked.room(losses, first, n);
    forward.multiply(picked.take(x, first, n), z);
    chunk_losses(z, picked.take(targets, first, n), at::Tensor(), options, loss);
    picked.put(losses, loss, first);
  }
}

void head_losses_and_gradients(const at::Tensor& x, const at::Tensor& w, const at::Tensor& targets, const at::Tensor& scale,
                               const HeadOptions& options, at::Tensor& losses, at::Tensor& dx, at::Tensor& dw,
                               const at::Tensor& rows) {
  check(x, w, targets, options);
  const PickedRows picked(x, rows);
  const std::int64_t chunk = rows_per_chunk(w, options, picked.count());
  const at::Tensor buffer = logit_buffer(x, w, chunk);
  const Weights forward(w, /*transposed=*/true), backward(w, /*transposed=*/false);
  at::Tensor scratch;
  if (dw.defined() && needs_weight_scratch(x)) scratch = at::empty(w.sizes(), w.options());
  picked.begin(losses);
  picked.begin(dx);
  for (std::int64_t first = 0; first < picked.count(); first += chunk) {
    const std::int64_t n = std::min(chunk, picked.count() - first);
    const at::Tensor inputs = picked.take(x, first, n);
    at::Tensor z = buffer.narrow(0, 0, n), loss = picked.room(losses, first, n), dinputs = picked.room(dx, first, n);
    forward.multiply(inputs, z);
    chunk_losses(z, picked.take(targets, first, n), picked.take(scale, first, n), options, loss);
    backward.multiply(z, dinputs);
    if (dw.defined()) linear_backward_weight(z, inputs, dw, scratch);
    picked.put(losses, loss, first);
    picked.put(dx, dinputs, first);
  }
}

std::int64_t head_bytes(std::int64_t rows, std::int64_t width, std::int64_t padded_vocab_size,
                        const at::TensorOptions& options) {
  const at::ScalarType dtype = options.dtype().toScalarType();
  const auto element_bytes = static_cast<std::int64_t>(c10::elementSize(dtype));
  const bool gpu = options.device().is_cuda();
  const std::int64_t chunk = rows_per_chunk(padded_vocab_size * element_bytes, gpu, /*chunk_bytes=*/0, rows);
  const std::int64_t logits = chunk * padded_vocab_size * element_bytes, matrix = padded_vocab_size * width * element_bytes;
  if (gpu || dtype == at::kFloat) return logits;
  // The matrix packed for both directions, and the rows; or the product that is added to the gradient, and what ATen takes.
  if (has_fastest_products(at::empty({0}, options))) return logits + 2 * matrix + chunk * width * element_bytes;
  return logits + matrix +
         std::max(linear_scratch_bytes(chunk, padded_vocab_size, dtype),
                  weight_gradient_scratch_bytes(padded_vocab_size, width, dtype));
}

at::Tensor softcap_logits(const at::Tensor& z, const HeadOptions& options) {
  TORCH_CHECK(z.dim() == 2 && z.is_contiguous() && options.vocab_size > 0 && options.vocab_size <= z.size(1),
              "softcap_logits: vocab_size ", options.vocab_size, " does not fit logits ", z.sizes());
  if (z.is_cuda()) return on_gpu(cuda::softcap, reference::softcap)(z, options.vocab_size, options.softcap);
  const at::Tensor out = at::empty({z.size(0), options.vocab_size}, z.options().dtype(at::kFloat));
  visit_dtype(z, "softcap_logits", [&]<class T>(T) {
    parallel_for(z.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        cpu::kernels<T>().softcap(typed<T>(z) + row * z.size(1), typed<float>(out) + row * options.vocab_size,
                                  options.vocab_size, static_cast<float>(options.softcap));
      }
    });
  });
  return out;
}

void softcap_logits(const at::Tensor& z, const HeadOptions& options, at::Tensor& out, const at::Tensor& extremes) {
  TORCH_CHECK(z.dim() == 2 && z.is_cuda() && z.is_contiguous() && options.vocab_size <= z.size(1) && out.dim() == 2 &&
                  out.size(0) == z.size(0) && out.size(1) == options.vocab_size && out.is_contiguous(),
              "softcap_logits: out ", out.sizes(), " does not fit logits ", z.sizes(), " on ", z.device());
  if (extremes.defined()) check_extremes(extremes, out);
  cuda::softcap(z, options.softcap, out, extremes);
}

}  // namespace nanochat::ops
