#pragma once
// For tests only: a small base model in a checkpoint, and conversations to fine-tune it on.

#include <filesystem>
#include <string>

#include <spdlog/fmt/fmt.h>

#include "checkpoint/checkpoint.h"
#include "optim/optimizer.h"
#include "training/trainer/testing_run.h"

namespace nanochat::testing {

// folder/base: a model of depth 1, width 64, context 64, as pretraining leaves it when nothing was learnt. `stage`: of its
// training, empty: an imported one. Without a tokenizer where `tokenizer` is null.
inline std::filesystem::path save_base_model(const std::filesystem::path& folder, const Tokenizer* tokenizer,
                                             const std::string& stage = "pretrain") {
  GptConfig config = GptConfig::from_depth(1, 265, 64);
  Gpt model(config, at::kFloat);
  model.init_weights(1);
  CheckpointContents contents;
  contents.config = &config;
  contents.weights = model_weights(model);
  contents.tokenizer = tokenizer;
  if (!stage.empty()) {
    contents.training_state = {
        {"stage", stage}, {"step", 0}, {"config", {{"device_batch_size", 4}, {"total_batch_size", 512}}}};
  }
  const std::filesystem::path path = folder / ("base-" + (stage.empty() ? std::string("imported") : stage));
  save_checkpoint(path, contents);
  return path;
}

// The same of nanochat-2026-07 (width 128), with an optimizer that has taken 7 steps and has random state, none of it zero.
inline std::filesystem::path save_newest_base_model(const std::filesystem::path& folder, const Tokenizer& tokenizer,
                                                    const std::string& stage = "pretrain") {
  GptConfig config = GptConfig::from_depth(1, 265, 64, Architecture::kNanochat2026_07);
  Gpt model(config, at::kFloat);
  model.init_weights(1);
  OptimizerOptions options;
  options.rules = OptimizerRules::kNanochat2026_07;
  Optimizer optimizer(model.parameters(), config.n_embd, options);
  CheckpointContents contents;
  contents.config = &config;
  contents.weights = model_weights(model);
  contents.optimizer = optimizer.state();
  for (auto& [name, tensor] : contents.optimizer) tensor.uniform_(1e-4, 2e-4);
  contents.tokenizer = &tokenizer;
  contents.training_state = {{"stage", stage},
                             {"step", 7},
                             {"config",
                              {{"device_batch_size", 4},
                               {"total_batch_size", 512},
                               {"embedding_lr", 0.3},
                               {"unembedding_lr", 0.008},
                               {"matrix_lr", 0.02}}}};
  const std::filesystem::path path = folder / ("newest-base-" + stage);
  save_checkpoint(path, contents);
  return path;
}

// `count` short conversations of one question each.
inline std::filesystem::path write_conversations(const std::filesystem::path& folder, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    text += fmt::format(
                R"({{"messages":[{{"role":"user","content":"After {}?"}},{{"role":"assistant","content":"It is {}."}}]}})",
                i % 10, i % 10 + 1) +
            "\n";
  }
  write_text(folder / "chat.jsonl", text);
  return folder / "chat.jsonl";
}

}  // namespace nanochat::testing
