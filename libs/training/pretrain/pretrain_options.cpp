#include "training/pretrain/pretrain_options.h"

#include <cmath>

#include "core/errors.h"
#include "core/options.h"

namespace nanochat {

namespace {

constexpr double kRatio2026 = 12.0;  // tokens per weight

}  // namespace

PretrainConfig::PretrainConfig()
    : sample_prompts{"The capital of France is",
                     "The chemical symbol of gold is",
                     "If yesterday was Friday, then tomorrow will be",
                     "The opposite of hot is",
                     "The planets of the solar system are:",
                     "My favorite color is",
                     "If 5*x + 3 = 13, then x is"} {
  grad_clip = 1.0;  // the reference clips in pretraining alone
}

GptConfig PretrainConfig::model_config(std::int64_t vocab_size) const {
  const auto architecture = is_2026() ? Architecture::kNanochat2026_07 : Architecture::kNanochat2025_12;
  GptConfig model = GptConfig::from_depth(depth, vocab_size, sequence_len, architecture);
  if (is_2026()) model.window_pattern = window_pattern;
  if (n_embd > 0) {
    model.n_embd = n_embd;
    model.intermediate_size = 4 * n_embd;
    const std::int64_t head_dim = depth < 12 && !is_2026() ? 64 : 128;
    model.n_head = model.n_kv_head = std::max<std::int64_t>(1, n_embd / head_dim);
  }
  if (n_head > 0) model.n_head = model.n_kv_head = n_head;
  if (n_kv_head > 0) model.n_kv_head = n_kv_head;
  if (intermediate_size > 0) model.intermediate_size = intermediate_size;
  model.rope_base = rope_base;
  model.softcap = softcap;
  model.rope_table_bf16 = rope_table_dtype == "bfloat16";
  model.validate();
  return model;
}

ScalingPlan PretrainConfig::scaling(const GptConfig& model) const {
  PretrainConfig depth_12 = *this;
  depth_12.depth = 12;
  depth_12.n_embd = depth_12.n_head = depth_12.n_kv_head = depth_12.intermediate_size = 0;
  return plan_scaling(model, depth_12.model_config(model.vocab_size),
                      {.target_param_data_ratio = target_param_data_ratio > 0 ? target_param_data_ratio : kRatio2026,
                       .target_flops = target_flops,
                       .num_iterations = num_iterations,
                       .total_batch_size = total_batch_size,
                       .weight_decay = weight_decay});
}

TrainerOptions PretrainConfig::trainer_options(const GptConfig& model) const {
  TrainerOptions options = *this;
  if (!is_2026()) return options;
  const double scale = scaling(model).lr_scale;
  for (double* rate : {&options.embedding_lr, &options.unembedding_lr, &options.matrix_lr, &options.scalar_lr}) *rate *= scale;
  return options;
}

Horizon PretrainConfig::horizon(const GptConfig& model) const {
  constexpr double kSecondsOfAMinute = 60.0;
  if (target_minutes > 0) return {.steps = std::max<std::int64_t>(0, num_iterations), .seconds = kSecondsOfAMinute * target_minutes};
  if (num_iterations >= 0) return {.steps = num_iterations};
  if (is_2026()) return {.steps = scaling(model).num_iterations};
  const auto batch = static_cast<double>(total_batch_size);
  if (target_flops > 0) return {.steps = std::llround(target_flops / (model.flops_per_token() * batch))};
  if (target_param_data_ratio > 0) {
    return {.steps = static_cast<std::int64_t>(target_param_data_ratio * static_cast<double>(model.parameter_count()) / batch)};
  }
  throw ConfigError("no training horizon: give --num-iterations, --target-minutes, --target-flops or --target-param-data-ratio");
}

void declare_pretrain_options(OptionList& options, PretrainConfig& config) {
  options.add("data_dir", config.data_dir,
              "token shards of `nanochat data prepare`, or text (.txt, .jsonl, also .gz or .zst, .parquet): files, folders, globs")
      .may_change();
  options.add("tokenizer", config.tokenizer, "tokenizer folder or file; default: the one beside the token shards").may_change();
  options.add("bos_token", config.bos_token,
              "special token that begins every document; empty: the one that tokenizer_config.json names, or <|bos|>, or <|endoftext|>");
  options.add("text_column", config.text_column,
              "raw text: key of a JSON row, or column of a .parquet, that holds the text; empty: text, or the only column of "
              "strings of a .parquet");
  declare_run_options(options, config);
  declare_data_options(options, config, "initial weights and the order of the data", "tokenize raw text");

  options.add("recipe", config.recipe,
              "version of the Python nanochat whose architecture, optimizer, schedules and scaling laws to use; also decides the "
              "defaults of options that are not given")
      .one_of({"nanochat-2025-12", "nanochat-2026-07"});
  options.add("depth", config.depth, "layers; the width is 64 times this").at_least(1).at_most(256);
  options.add("sequence_len", config.sequence_len, "tokens of a training row, and the context of the model").at_least(2);
  options.add("n_embd", config.n_embd, "width; 0: 64 * depth").at_least(0);
  options.add("n_head", config.n_head, "query heads; 0: of 128 channels, or 64 below depth 12").at_least(0);
  options.add("n_kv_head", config.n_kv_head, "key/value heads; 0: as many as query heads").at_least(0);
  options.add("intermediate_size", config.intermediate_size, "width of the MLP; 0: 4 times the width").at_least(0);
  options.add("rope_base", config.rope_base, "base of the rotary embedding's frequencies").at_least(1.000001);
  options.add("rope_table_dtype", config.rope_table_dtype, "precision of the rotary table; the reference has bfloat16")
      .one_of({"float32", "bfloat16"});
  options.add("window_pattern", config.window_pattern,
              "attention windows of the layers, repeated: S (a quarter of the context) or L (all of it); of nanochat-2026-07");
  options.add("softcap", config.softcap, "logits are capped smoothly at this magnitude; 0: not").at_least(0);

  options.add("num_iterations", config.num_iterations, "optimizer steps; -1: from the options below").at_least(-1).may_change();
  options.add("target_minutes", config.target_minutes,
              "train until steps have taken this many minutes, in at least num_iterations of them; learning rates follow the time, so "
              "that a run is not reproducible; -1: by steps")
      .above(0, -1)
      .may_change();
  options.add("target_flops", config.target_flops, "train for this many floating-point operations; -1: see below").above(0, -1).may_change();
  options.add("target_param_data_ratio", config.target_param_data_ratio, "train for this many tokens per parameter; -1: see above")
      .above(0, -1)
      .may_change();
  options.add("device_batch_size", config.device_batch_size, "rows of one forward pass").at_least(1).may_change();
  options.add("total_batch_size", config.total_batch_size, "tokens of one optimizer step; -1: by the scaling law of nanochat-2026-07").above(0, -1);
  declare_learning_rates(options, config);
  declare_step_options(options, config);
  options.add("warmup_ratio", config.warmup_ratio, "share of the steps in which learning rates rise").at_least(0).at_most(1);
  options.add("warmup_steps", config.warmup_steps, "number of those steps; 0: warmup_ratio counts").at_least(0);
  options.add("warmdown_ratio", config.warmdown_ratio, "share of the steps in which they fall").at_least(0).at_most(1);
  options.add("final_lr_frac", config.final_lr_frac, "where they fall to, as a share").at_least(0).at_most(1);

  options.add("packing", config.packing, "rows: best-fit begins each at a document, stream cuts the text as the reference")
      .one_of({"best-fit", "stream"});
  options.add("validation_every", config.validation_every, "raw text: hold out every N-th document for validation; 0: none")
      .above(1, 0);
  options.add("eval_interval", config.eval_interval, "steps between validations; 0: never, -1: at the end only").at_least(-1).may_change();
  options.add("eval_tokens", config.eval_tokens, "tokens to validate on, at most").at_least(1).may_change();
  options.add("sample_interval", config.sample_interval, "steps between samples; 0: never, -1: at the end only").at_least(-1).may_change();
  options.add("sample_prompts", config.sample_prompts, "prompts of the samples").may_change();
  declare_checkpoint_options(options, config, "lowest validation bpb");
}

void apply_recipe(OptionList& options, PretrainConfig& config) {
  if (!config.is_2026()) {
    if (config.total_batch_size < 0) throw ConfigError("--total-batch-size -1 needs --recipe nanochat-2026-07, which has a law for it");
    return;
  }
  const auto otherwise = [&](const char* name, auto& field, auto value) {
    const Option* option = options.find(name);
    if (option != nullptr && option->source() == "default") field = value;
  };
  otherwise("rope_base", config.rope_base, 100000.0);
  otherwise("total_batch_size", config.total_batch_size, std::int64_t{-1});
  otherwise("target_param_data_ratio", config.target_param_data_ratio, kRatio2026);
  otherwise("embedding_lr", config.embedding_lr, 0.3);
  otherwise("unembedding_lr", config.unembedding_lr, 0.008);
  otherwise("matrix_lr", config.matrix_lr, 0.02);
  otherwise("weight_decay", config.weight_decay, 0.28);
  otherwise("grad_clip", config.grad_clip, 0.0);
  otherwise("warmup_steps", config.warmup_steps, std::int64_t{40});
  otherwise("warmdown_ratio", config.warmdown_ratio, 0.65);
  otherwise("final_lr_frac", config.final_lr_frac, 0.05);
}

}  // namespace nanochat
