#include "ops/sample.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "ops/cuda/backend.h"
#include "ops/cuda/kernels.h"
#include "ops/parallel.h"

namespace nanochat::ops {
namespace {

void check(const at::Tensor& logits, std::span<const SampleRow> rows) {
  TORCH_CHECK(logits.dim() == 2 && logits.scalar_type() == at::kFloat && logits.is_contiguous() && logits.size(1) > 0,
              "sample: expected dense float32 logits (rows, vocabulary), got ", logits.scalar_type(), " ", logits.sizes());
  for (const SampleRow& row : rows) {
    TORCH_CHECK(row.row >= 0 && row.row < logits.size(0), "sample: no row ", row.row, " of ", logits.size(0));
    TORCH_CHECK(row.allowed.empty() || static_cast<std::int64_t>(row.allowed.size()) * 64 >= logits.size(1),
                "sample: a mask of ", row.allowed.size(), " words is too short for a vocabulary of ", logits.size(1));
    TORCH_CHECK(row.top_logprobs >= 0 && row.top_logprobs <= kMostTopLogprobs, "sample: ", row.top_logprobs,
                " alternatives are more than ", kMostTopLogprobs);
  }
}

}  // namespace

std::vector<SampledRow> sample(const at::Tensor& logits, std::span<const SampleRow> rows) {
  if (!logits.is_cpu()) return DeviceSamples(logits, rows).read();
  check(logits, rows);
  const auto vocab = static_cast<std::size_t>(logits.size(1));
  const float* data = logits.const_data_ptr<float>();
  std::vector<SampledRow> sampled(rows.size());
  parallel_for(static_cast<std::int64_t>(rows.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    RowSampler sampler;
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      const std::span<const float> row(data + static_cast<std::size_t>(rows[i].row) * vocab, vocab);
      try {
        sampled[i].token = sampler.sample(row, rows[i]);
        if (rows[i].top_logprobs > 0) sampled[i].top = RowSampler::most_likely(row, rows[i].top_logprobs);
      } catch (const std::exception& error) {
        sampled[i].error = error.what();
      }
    }
  });
  return sampled;
}

at::Tensor logit_extremes(std::int64_t rows, std::int64_t vocab, at::Device device) {
  return at::empty({rows, cuda::logit_slices(vocab), 2}, at::TensorOptions(at::kLong).device(device));
}

void check_extremes(const at::Tensor& extremes, const at::Tensor& logits) {
  TORCH_CHECK(extremes.dim() == 3 && extremes.scalar_type() == at::kLong && extremes.is_contiguous() &&
                  extremes.device() == logits.device() && extremes.size(0) >= logits.size(0) &&
                  extremes.size(1) == cuda::logit_slices(logits.size(1)) && extremes.size(2) == 2,
              "extremes ", extremes.sizes(), " do not fit logits ", logits.sizes());
}

DeviceSamples::DeviceSamples(const at::Tensor& logits, std::span<const SampleRow> rows, at::Tensor tokens,
                             const at::Tensor& inputs, const at::Tensor& extremes)
    : tokens_(std::move(tokens)), rows_(static_cast<std::int64_t>(rows.size())), vocab_(logits.size(1)) {
  check(logits, rows);
  if (extremes.defined()) check_extremes(extremes, logits);
  if (!tokens_.defined()) tokens_ = at::empty({rows_}, logits.options().dtype(at::kInt));
  TORCH_CHECK(tokens_.dim() == 1 && tokens_.size(0) >= rows_ && tokens_.scalar_type() == at::kInt && tokens_.is_contiguous(),
              "sample: no room for ", rows_, " tokens in ", tokens_.sizes());
  tokens_ = tokens_.narrow(0, 0, rows_);
  for (const SampleRow& row : rows) most_top_ = std::max(most_top_, row.top_logprobs);
  cuda::HostCopy copy = cuda::copy_to_host(cuda::sample(logits, rows, most_top_, inputs, tokens_, extremes));
  results_ = std::move(copy.tensor);
  done_ = std::move(copy.done);
}

std::vector<SampledRow> DeviceSamples::read() const {
  cuda::wait(*done_);
  const auto* results = static_cast<const cuda::SampledRow*>(results_.const_data_ptr());
  const auto* top = reinterpret_cast<const cuda::SampledLogprob*>(results + rows_);
  std::vector<SampledRow> sampled(static_cast<std::size_t>(rows_));
  for (std::int64_t i = 0; i < rows_; ++i) {
    const cuda::SampledRow& result = results[i];
    SampledRow& row = sampled[static_cast<std::size_t>(i)];
    switch (result.status) {
      case cuda::SampleStatus::kOk: row.token = {result.id, result.logprob}; break;
      case cuda::SampleStatus::kNotFinite: row.error = message_not_finite(result.id, result.bad_logit); break;
      case cuda::SampleStatus::kNoneFinite: row.error = message_none_finite(vocab_); break;
      case cuda::SampleStatus::kNoneAllowed: row.error = message_none_allowed(vocab_); break;
    }
    for (std::int32_t j = 0; j < result.top_count; ++j) {
      const cuda::SampledLogprob& other = top[i * most_top_ + j];
      row.top.push_back({other.id, other.logprob});
    }
  }
  return sampled;
}

}  // namespace nanochat::ops
