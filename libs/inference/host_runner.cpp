#include <ATen/ops/tensor.h>

#include <deque>
#include <numeric>
#include <utility>

#include "inference/internal/step_runner.h"
#include "model/gpt.h"

namespace nanochat {
namespace {

class ReadDraws : public PendingDraws {
 public:
  explicit ReadDraws(std::vector<ops::SampledRow> rows) : rows_(std::move(rows)) {}
  std::vector<ops::SampledRow> read() override { return std::move(rows_); }

 private:
  std::vector<ops::SampledRow> rows_;
};

class HostRunner : public StepRunner {
 public:
  HostRunner(Gpt& model, PagedKvCache& cache) : model_(model), cache_(cache) {}

  void warm_up() override {
    const std::int32_t input = 0;
    forward({{{0, 1, {0}}}}, {&input, 1}, {});
    std::vector<std::int64_t> row = {0};
    logits(row);
  }

  void forward(const ops::PagedBatch& batch, std::span<const std::int32_t> inputs,
               std::span<const std::int32_t> before) override {
    ids_.clear();
    for (const std::int32_t input : inputs)
      ids_.push_back(input >= 0 ? input : drawn_.at(static_cast<std::size_t>(-1 - input)));
    const at::Tensor ids = at::tensor(ids_, at::kInt).unsqueeze(1);
    cache_.set_batch(batch, {before.begin(), before.end()});
    states_ = model_.forward_states(ids, cache_);
  }

  at::Tensor logits(std::vector<std::int64_t>& rows) override {
    const at::Tensor wanted = states_.index_select(0, at::tensor(rows, at::kLong).to(states_.device()));
    std::iota(rows.begin(), rows.end(), std::int64_t{0});
    return model_.logits(wanted, cache_.batch_invariant());
  }

  std::unique_ptr<PendingDraws> draw(const at::Tensor& logits, std::span<const ops::SampleRow> rows) override {
    std::vector<ops::SampleRow> complete(rows.begin(), rows.end());
    std::deque<std::vector<std::int32_t>> lists;
    for (ops::SampleRow& row : complete) {
      if (row.last_input < 0) continue;
      for (std::span<const std::int32_t>* list : {&row.seen, &row.generated}) {
        lists.emplace_back(list->begin(), list->end()).push_back(ids_.at(static_cast<std::size_t>(row.last_input)));
        *list = lists.back();
      }
      row.last_input = -1;
    }
    std::vector<ops::SampledRow> sampled = ops::sample(logits.cpu(), complete);
    drawn_.clear();
    // Where a draw failed its sequence ends, and what follows is not read.
    for (const ops::SampledRow& row : sampled) drawn_.push_back(row.error.empty() ? row.token.id : 0);
    return std::make_unique<ReadDraws>(std::move(sampled));
  }

 private:
  Gpt& model_;
  PagedKvCache& cache_;
  at::Tensor states_;
  std::vector<std::int32_t> ids_, drawn_;  // of the last pass, and of the last draw
};

}  // namespace

std::unique_ptr<StepRunner> make_host_runner(Gpt& model, PagedKvCache& cache) {
  return std::make_unique<HostRunner>(model, cache);
}

}  // namespace nanochat
