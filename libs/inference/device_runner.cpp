// Steps on a GPU: a decoding step is one launch of a recorded pass (ops/device_graph.h), other steps pass through the same
// operations one by one; tokens are drawn on the device. Nothing here waits for the device but recording and read().

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <numeric>
#include <optional>
#include <utility>

#include "inference/internal/decode_shapes.h"
#include "inference/engine.h"
#include "inference/internal/drafts.h"
#include "inference/internal/step_runner.h"
#include "model/gpt.h"
#include "model/serving_pass.h"
#include "ops/device.h"
#include "ops/device_graph.h"
#include "ops/sample.h"

namespace nanochat {
namespace {

// To a part of device memory, from pinned memory of the host, so that nobody waits.
template <class T>
void upload(std::span<const T> items, const at::Tensor& to) {
  const auto size = static_cast<std::int64_t>(items.size());
  at::Tensor host = at::empty({size}, at::TensorOptions(to.scalar_type()).pinned_memory(true));
  std::memcpy(host.data_ptr(), items.data(), items.size() * sizeof(T));
  to.narrow(0, 0, size).copy_(host, /*non_blocking=*/true);
}

// Recorded passes, and what they read and write. They stay with the model when the engine goes: a later one with a cache of the
// same shape at the same place takes them over, as the engines that reinforcement learning makes one after the other do.
struct RecordedPasses {
  struct Pass {
    ops::DevicePagedBatch batch;
    at::Tensor logits;  // (rows, vocab_size)
    std::optional<ops::DeviceGraph> graph;
  };

  RecordedPasses(Gpt& model, PagedKvCache& cache, std::int64_t rows_, std::int64_t draws, const ops::PagedOptions& options_)
      : rows(rows_), options(options_), place(place_of(cache)), shape(cache.keys().front().sizes().vec()),
        dtype(cache.keys().front().scalar_type()), pass(model, rows_, rows_, options_.batch_invariant),
        drawn(at::zeros({draws}, int_options(cache))) {}

  static std::vector<const void*> place_of(PagedKvCache& cache) {
    std::vector<const void*> place;
    for (const auto* slabs : {&cache.keys(), &cache.values()}) {
      for (const at::Tensor& slab : *slabs) place.push_back(slab.const_data_ptr());
    }
    return place;
  }
  static at::TensorOptions int_options(PagedKvCache& cache) { return cache.keys().front().options().dtype(at::kInt); }

  bool fits(PagedKvCache& cache, std::int64_t wanted_rows, std::int64_t draws, const ops::PagedOptions& wanted_options) const {
    return rows >= wanted_rows && drawn.numel() >= draws && options.batch_invariant == wanted_options.batch_invariant &&
           options.split == wanted_options.split && place == place_of(cache) && cache.keys().front().sizes() == shape &&
           cache.keys().front().scalar_type() == dtype;
  }

  const std::int64_t rows;  // of the largest
  const ops::PagedOptions options;
  const std::vector<const void*> place;  // of the cache
  const std::vector<std::int64_t> shape;
  const at::ScalarType dtype;
  ServingPass pass;  // all write to the same memory
  at::Tensor drawn;  // int32: the tokens of the last draws
  struct Shape {
    std::int64_t rows, positions;
    bool drafts;  // several rows can be tokens of one sequence
    auto operator<=>(const Shape&) const = default;
  };
  std::map<Shape, Pass> passes;
};

// Those of the last engines, the last one first.
struct KeptPasses : Gpt::Kept {
  static constexpr std::size_t kMost = 4;
  std::deque<std::shared_ptr<RecordedPasses>> sets;
};

class DeviceDraws : public PendingDraws {
 public:
  explicit DeviceDraws(ops::DeviceSamples samples) : samples_(std::move(samples)) {}
  std::vector<ops::SampledRow> read() override { return samples_.read(); }

 private:
  ops::DeviceSamples samples_;
};

class DeviceRunner : public StepRunner {
 public:
  DeviceRunner(Gpt& model, PagedKvCache& cache, const EngineOptions& options)
      : model_(model), cache_(cache), n_head_(model.config().n_head), graphs_(options.graphs), most_draws_(most_draws(options)),
        most_rows_(recorded_rows(std::min(most_draws_, kMostRecordedRows))),
        drawn_(at::zeros({most_draws_}, RecordedPasses::int_options(cache))) {
    options_.batch_invariant = options.batch_invariant || model.dtype() == at::kFloat;
  }

  void warm_up() override {
    if (graphs_) {
      for (const std::int64_t rows : all_recorded_rows(std::min(most_draws_, kMostRecordedRows))) find_recorded(rows, 1, false);
    }
    const std::int32_t input = 0;
    pass_unrecorded({{{0, 1, {0}}}}, {&input, 1}, {});
    std::vector<std::int64_t> row = {0};
    logits(row);
  }

  void forward(const ops::PagedBatch& batch, std::span<const std::int32_t> inputs,
               std::span<const std::int32_t> before) override {
    const std::int64_t tokens = batch.tokens();
    TORCH_CHECK(tokens > 0 && tokens == static_cast<std::int64_t>(inputs.size()), "a step of ", tokens, " tokens has ",
                inputs.size(), " inputs");
    if (!graphs_ || tokens > most_rows_ || !are_short(batch)) return pass_unrecorded(batch, inputs, before);
    std::int64_t positions = 0;
    for (const ops::PagedBatch::Sequence& sequence : batch.sequences)
      positions = std::max(positions, sequence.start + sequence.tokens);
    const bool drafts = tokens > static_cast<std::int64_t>(batch.sequences.size());
    RecordedPasses::Pass& recorded = find_recorded(tokens, positions, drafts);
    if (drafts) {
      recorded.batch.assign(single_tokens(batch), inputs, before_each(batch, inputs, before));
    } else {
      recorded.batch.assign(batch, inputs, before);
    }
    recorded.graph->replay();
    unrecorded_.reset();
    last_ = &recorded;
  }

  at::Tensor logits(std::vector<std::int64_t>& rows) override {
    if (!unrecorded_) return last_->logits;  // of every row
    const auto count = static_cast<std::int64_t>(rows.size());
    const at::Tensor wanted = at::empty({count}, cache_.keys().front().options().dtype(at::kLong));
    upload(std::span<const std::int64_t>(rows), wanted);
    std::iota(rows.begin(), rows.end(), std::int64_t{0});
    return unrecorded_->logits(wanted);
  }

  std::unique_ptr<PendingDraws> draw(const at::Tensor& logits, std::span<const ops::SampleRow> rows) override {
    const ServingPass& pass = unrecorded_ ? *unrecorded_ : recorded_->pass;
    return std::make_unique<DeviceDraws>(ops::DeviceSamples(logits, rows, drawn_, pass.ids(), pass.logit_extremes()));
  }

 private:
  // The token before each input. Only the last token of a sequence may be one that the host does not know.
  static std::vector<std::int32_t> before_each(const ops::PagedBatch& batch, std::span<const std::int32_t> inputs,
                                               std::span<const std::int32_t> before) {
    std::vector<std::int32_t> all(inputs.size(), -1);
    std::size_t row = 0;
    for (std::size_t s = 0; s < batch.sequences.size(); ++s) {
      const auto tokens = static_cast<std::size_t>(batch.sequences[s].tokens);
      for (std::size_t i = 0; i < tokens; ++i, ++row) {
        if (i > 0) all[row] = inputs[row - 1];
        if (i == 0 && !before.empty()) all[row] = before[s];
      }
    }
    return all;
  }

  // Decodes, with or without drafted tokens.
  static bool are_short(const ops::PagedBatch& batch) {
    return std::all_of(batch.sequences.begin(), batch.sequences.end(),
                       [](const ops::PagedBatch::Sequence& sequence) { return sequence.tokens <= 1 + kMostDrafted; });
  }

  // Each token as a sequence of its own, as recorded passes have them. The tokens of one sequence see each other, because every
  // layer stores the keys and values of all tokens before any of them attends.
  static ops::PagedBatch single_tokens(const ops::PagedBatch& batch) {
    ops::PagedBatch singles;
    for (const ops::PagedBatch::Sequence& sequence : batch.sequences) {
      for (std::int64_t i = 0; i < sequence.tokens; ++i) singles.sequences.push_back({sequence.start + i, 1, sequence.blocks});
    }
    return singles;
  }

  void pass_unrecorded(const ops::PagedBatch& batch, std::span<const std::int32_t> inputs,
                       std::span<const std::int32_t> before) {
    last_ = nullptr;
    unrecorded_.emplace(model_, batch.tokens(), std::min(batch.tokens(), most_logit_rows()), options_.batch_invariant);
    const at::Tensor device_inputs = at::empty({batch.tokens()}, RecordedPasses::int_options(cache_));
    const at::Tensor device_before = at::empty_like(device_inputs);
    upload(inputs, device_inputs);
    upload(std::span<const std::int32_t>(before_each(batch, inputs, before)), device_before);
    const ops::DevicePagedBatch device_batch(batch, cache_.keys().front(), n_head_, options_);
    unrecorded_->run(device_inputs, drawn_, device_before, device_batch, cache_.keys(), cache_.values());
  }

  // Rows of logits that anybody asks for at a time: a draw for each sequence, or the prompt's positions that the engine takes
  // together.
  std::int64_t most_logit_rows() const { return std::max(most_draws_, kLogitRows); }

  // Those that fit, of this model's engines before, or new ones. An engine that only passes prompts through never asks.
  void take_recorded() {
    if (recorded_ != nullptr) return;
    auto kept = std::dynamic_pointer_cast<KeptPasses>(model_.kept());
    if (kept == nullptr) model_.kept() = kept = std::make_shared<KeptPasses>();
    const auto fitting = std::find_if(kept->sets.begin(), kept->sets.end(),
                                      [&](const auto& set) { return set->fits(cache_, most_rows_, most_draws_, options_); });
    if (fitting != kept->sets.end()) {
      recorded_ = *fitting;
      kept->sets.erase(fitting);
    } else {
      if (kept->sets.size() >= KeptPasses::kMost) kept->sets.pop_back();
      recorded_ = std::make_shared<RecordedPasses>(model_, cache_, most_rows_, most_draws_, options_);
    }
    kept->sets.push_front(recorded_);
    // The tokens of the last draws go where recorded passes read them.
    recorded_->drawn.narrow(0, 0, most_draws_).copy_(drawn_);
    drawn_ = recorded_->drawn;
  }

  RecordedPasses::Pass& find_recorded(std::int64_t tokens, std::int64_t longest, bool drafts) {
    take_recorded();
    const RecordedPasses::Shape shape{recorded_rows(tokens), recorded_positions(longest, cache_.capacity()), drafts};
    auto& passes = recorded_->passes;
    if (const auto known = passes.find(shape); known != passes.end()) return known->second;
    ops::PagedOptions options = options_;
    options.fuse_decodes = !drafts;
    ops::DevicePagedBatch room(shape.rows, shape.positions, cache_.keys().front(), n_head_, options);
    const auto place = passes.emplace(shape, RecordedPasses::Pass{std::move(room), {}, {}}).first;
    RecordedPasses::Pass& pass = place->second;
    try {
      pass.graph.emplace(model_.device(), [&] {
        recorded_->pass.run(pass.batch.inputs(), recorded_->drawn, pass.batch.before(), pass.batch, cache_.keys(),
                            cache_.values());
        pass.logits = recorded_->pass.logits();
      });
    } catch (...) {
      passes.erase(place);
      throw;
    }
    return pass;
  }

  Gpt& model_;
  PagedKvCache& cache_;
  std::int64_t n_head_;
  bool graphs_;
  std::int64_t most_draws_, most_rows_;
  at::Tensor drawn_;  // int32: the tokens of the last draws
  ops::PagedOptions options_;
  std::shared_ptr<RecordedPasses> recorded_;
  std::optional<ServingPass> unrecorded_;  // the last pass, where it was not recorded
  RecordedPasses::Pass* last_ = nullptr;  // where it was
};

}  // namespace

std::unique_ptr<StepRunner> make_device_runner(Gpt& model, PagedKvCache& cache, const EngineOptions& options) {
  // Its passes read weights where they lie; of sharded weights, only Gpt's own passes tell when they need them.
  if (model.keeper() != nullptr) return nullptr;
  if (!ops::DevicePagedBatch::takes(cache.keys().front()) || ops::use_reference_kernels()) return nullptr;
  return std::make_unique<DeviceRunner>(model, cache, options);
}

}  // namespace nanochat
