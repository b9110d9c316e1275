#pragma once
// What tests and tools read of a folder of figures by the reference at 92d63d4 (its config.json and hyper-parameters).

#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>

#include <cstdint>
#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "model/config.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"

namespace nanochat::parity {

inline nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream stream(path);
  return nlohmann::json::parse(stream);
}

inline GptConfig fixture_config(const std::filesystem::path& fixture) {
  const nlohmann::json fields = read_json(fixture / "config.json");
  GptConfig config;
  config.architecture = Architecture::kNanochat2026_07;
  config.sequence_len = fields.at("sequence_len");
  config.vocab_size = fields.at("vocab_size");
  config.n_layer = fields.at("n_layer");
  config.n_head = fields.at("n_head");
  config.n_kv_head = fields.at("n_kv_head");
  config.n_embd = fields.at("n_embd");
  config.intermediate_size = fields.at("intermediate_size");
  config.window_pattern = fields.at("window_pattern");
  config.qk_scale = fields.at("qk_scale");
  config.rope_base = fields.at("rope_theta");
  config.rms_norm_eps = fields.at("rms_norm_eps");
  config.softcap = fields.at("final_logit_softcapping");
  return config;
}

// dtype: of Polar Express.
inline OptimizerOptions fixture_options(const nlohmann::json& hyper, at::ScalarType dtype) {
  OptimizerOptions options;
  options.rules = OptimizerRules::kNanochat2026_07;
  options.embedding_lr = hyper.at("embedding_lr");
  options.unembedding_lr = hyper.at("unembedding_lr");
  options.matrix_lr = hyper.at("matrix_lr");
  options.scalar_lr = hyper.at("scalar_lr");
  options.normuon.dtype = dtype;
  return options;
}

inline LearningRateSchedule fixture_rates(const nlohmann::json& schedule) {
  return {.num_iterations = schedule.at("num_iterations"),
          .warmup_steps = schedule.at("warmup_steps"),
          .warmdown_ratio = schedule.at("warmdown_ratio"),
          .final_lr_frac = schedule.at("final_lr_frac")};
}
inline NorMuonSchedule fixture_muon(const nlohmann::json& schedule, const nlohmann::json& hyper) {
  return {.num_iterations = schedule.at("num_iterations"),
          .warmdown_ratio = schedule.at("warmdown_ratio"),
          .weight_decay = hyper.at("weight_decay")};
}

struct Batch {
  at::Tensor ids, targets;
};
// batches: (steps, B, T + 1)
inline Batch batch_of(const at::Tensor& batches, std::int64_t step) {
  const at::Tensor rows = batches.select(0, step);
  const std::int64_t length = rows.size(1) - 1;
  return {rows.narrow(1, 0, length).contiguous(), rows.narrow(1, 1, length).contiguous()};
}
inline at::Tensor mean_scale(const Batch& batch) {
  return at::full(batch.ids.sizes(), 1.0 / static_cast<double>(batch.ids.numel()), at::kFloat);
}

}  // namespace nanochat::parity
