#include "ops/value_embedding.h"

#include <ATen/ops/empty.h>

#include <vector>

#include "ops/cuda/backend.h"
#include "ops/internal/dispatch.h"
#include "ops/reference.h"

namespace nanochat::ops {
namespace {

constexpr float kGateScale = 3.0F;

struct Shape {
  std::int64_t tokens, heads, d, width, channels;
  std::int64_t row() const { return heads * d; }  // of the table
};

Shape check(const at::Tensor& v, const at::Tensor& h, const at::Tensor& gate, const at::Tensor& table, const at::Tensor& ids) {
  TORCH_CHECK(v.dim() == 3 && v.stride(2) == 1 && (v.size(1) == 1 || v.stride(1) == v.size(2)),
              "value embedding: expected dense heads of (N, heads, D), got ", v.sizes(), " with strides ", v.strides());
  TORCH_CHECK(h.dim() == 2 && h.size(0) == v.size(0) && gate.dim() == 2 && gate.size(0) == v.size(1) &&
                  gate.size(1) <= h.size(1) && h.scalar_type() == v.scalar_type() && gate.scalar_type() == v.scalar_type(),
              "value embedding: h ", h.sizes(), " or gate ", gate.sizes(), " does not fit v ", v.sizes());
  TORCH_CHECK(table.dim() == 2 && table.size(1) == v.size(1) * v.size(2) && ids.numel() == v.size(0) &&
                  ids.scalar_type() == at::kInt &&
                  (table.scalar_type() == v.scalar_type() || table.scalar_type() == at::kFloat),
              "value embedding: table ", table.sizes(), " or ids ", ids.sizes(), " does not fit v ", v.sizes());
  return {v.size(0), v.size(1), v.size(2), h.size(1), gate.size(1)};
}

// Rows of a table as floats.
class Rows {
 public:
  explicit Rows(const at::Tensor& table) : table_(table), width_(table.size(1)) {
    if (table.scalar_type() == at::kBFloat16) converted_.resize(static_cast<std::size_t>(width_));
  }
  // Until the next call.
  const float* operator()(std::int32_t id) {
    if (converted_.empty()) return typed<float>(table_) + id * width_;
    cpu::kernels<cpu::bf16>().to_float(typed<cpu::bf16>(table_) + id * width_, converted_.data(), width_);
    return converted_.data();
  }

 private:
  const at::Tensor& table_;
  std::int64_t width_;
  std::vector<float> converted_;
};

}  // namespace

void add_value_embedding(at::Tensor v, const at::Tensor& h, const at::Tensor& gate, const at::Tensor& table,
                         const at::Tensor& ids, at::Tensor& g) {
  const Shape shape = check(v, h, gate, table, ids);
  if (v.is_cuda()) return on_gpu(cuda::add_value_embedding, reference::add_value_embedding)(v, h, gate, table, ids, g);
  const std::int32_t* id = typed<std::int32_t>(ids);
  for (std::int64_t i = 0; i < shape.tokens; ++i) {
    TORCH_CHECK(id[i] >= 0 && id[i] < table.size(0), "value embedding: token id ", id[i], " is outside the vocabulary of ",
                table.size(0));
  }
  float* gates = g.defined() ? typed<float>(g) : nullptr;
  visit_dtype(v, "value embedding", [&]<class T>(T) {
    T* values = static_cast<T*>(v.data_ptr());
    parallel_for(shape.tokens, row_grain(shape.row()), [&](std::int64_t first, std::int64_t last) {
      Rows rows(table);
      for (std::int64_t i = first; i < last; ++i) {
        cpu::kernels<T>().add_gated(values + i * v.stride(0), rows(id[i]), typed<T>(h) + i * shape.width, typed<T>(gate),
                                    gates != nullptr ? gates + i * shape.heads : nullptr, shape.channels, shape.heads, shape.d);
      }
    });
  });
}

void add_value_embedding_backward(const at::Tensor& dv, const at::Tensor& h, const at::Tensor& gate, const at::Tensor& table,
                                  const at::Tensor& ids, const at::Tensor& g, at::Tensor& dh, at::Tensor& d_gate,
                                  at::Tensor& d_table, const TokenOrder& order) {
  const Shape shape = check(dv, h, gate, table, ids);
  TORCH_CHECK(dh.sizes() == h.sizes() && g.numel() == shape.tokens * shape.heads && d_gate.sizes() == gate.sizes(),
              "value embedding: dh ", dh.sizes(), ", g ", g.sizes(), " or d_gate ", d_gate.sizes(), " does not fit");
  if (dv.is_cuda()) {
    if (use_reference_kernels()) {
      return reference::add_value_embedding_backward(dv, h, gate, table, ids, g, dh, d_gate, d_table);
    }
    return cuda::add_value_embedding_backward(dv, h, gate, table, order.ids.defined() ? order : order_tokens(ids), g, dh,
                                              d_gate, d_table);
  }
  const std::int32_t* id = typed<std::int32_t>(ids);
  const float* gates = typed<float>(g);
  const at::Tensor slopes = at::empty({shape.tokens, shape.heads}, at::kFloat);  // of the gate before its sigmoid
  auto* slope = typed<float>(slopes);
  visit_dtype(dv, "value embedding", [&]<class T>(T) {
    const auto& kernels = cpu::kernels<T>();
    const T* gradients = static_cast<const T*>(dv.const_data_ptr());
    std::vector<float> weights(static_cast<std::size_t>(gate.numel()));
    kernels.to_float(typed<T>(gate), weights.data(), gate.numel());
    parallel_for(shape.tokens, row_grain(shape.row()), [&](std::int64_t first, std::int64_t last) {
      Rows rows(table);
      std::vector<float> gradient(static_cast<std::size_t>(shape.row())), beginning(static_cast<std::size_t>(shape.channels));
      for (std::int64_t i = first; i < last; ++i) {
        const float* row = rows(id[i]);
        kernels.to_float(gradients + i * dv.stride(0), gradient.data(), shape.row());
        T* to = typed<T>(dh) + i * shape.width;
        kernels.to_float(to, beginning.data(), shape.channels);
        for (std::int64_t head = 0; head < shape.heads; ++head) {
          double product = 0.0;
          for (std::int64_t c = head * shape.d; c < (head + 1) * shape.d; ++c) {
            product += static_cast<double>(gradient[static_cast<std::size_t>(c)]) * static_cast<double>(row[c]);
          }
          const std::int64_t at = i * shape.heads + head;
          slope[at] = static_cast<float>(product) * gates[at] * (1.0F - gates[at] / kGateScale);
          const float* weight = weights.data() + head * shape.channels;
          for (std::int64_t c = 0; c < shape.channels; ++c) beginning[static_cast<std::size_t>(c)] += slope[at] * weight[c];
        }
        kernels.from_float(beginning.data(), to, shape.channels);
      }
    });
    if (d_table.defined()) {
      auto* sums = typed<float>(d_table);
      parallel_for(d_table.size(0), 1, [&](std::int64_t first, std::int64_t last) {
        std::vector<float> gradient(static_cast<std::size_t>(shape.row()));
        for (std::int64_t i = 0; i < shape.tokens; ++i) {
          if (id[i] < first || id[i] >= last) continue;
          kernels.to_float(gradients + i * dv.stride(0), gradient.data(), shape.row());
          float* sum = sums + id[i] * shape.row();
          for (std::int64_t head = 0; head < shape.heads; ++head) {
            const float factor = gates[i * shape.heads + head];
            for (std::int64_t c = head * shape.d; c < (head + 1) * shape.d; ++c)
              sum[c] += factor * gradient[static_cast<std::size_t>(c)];
          }
        }
      });
    }
    auto* sums = typed<float>(d_gate);
    parallel_for(shape.heads, 1, [&](std::int64_t first, std::int64_t last) {
      std::vector<float> beginning(static_cast<std::size_t>(shape.channels));
      for (std::int64_t head = first; head < last; ++head) {
        std::vector<double> total(static_cast<std::size_t>(shape.channels));
        for (std::int64_t i = 0; i < shape.tokens; ++i) {
          kernels.to_float(typed<T>(h) + i * shape.width, beginning.data(), shape.channels);
          const auto factor = static_cast<double>(slope[i * shape.heads + head]);
          for (std::size_t c = 0; c < total.size(); ++c) total[c] += factor * static_cast<double>(beginning[c]);
        }
        for (std::size_t c = 0; c < total.size(); ++c)
          sums[head * shape.channels + static_cast<std::int64_t>(c)] += static_cast<float>(total[c]);
      }
    });
  });
}

}  // namespace nanochat::ops
