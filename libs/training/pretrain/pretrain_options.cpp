#include "training/pretrain/pretrain_options.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include <spdlog/fmt/fmt.h>

#include "checkpoint/json_file.h"
#include "core/errors.h"
#include "core/options.h"

namespace nanochat {

namespace {

// The recipe of the run that --resume continues.
std::string recipe_of_run(const std::filesystem::path& folder) {
  const auto stored = folder / "config.json";
  const std::string of_old_runs{architecture_name(Architecture::kNanochat2025_12)};
  if (!std::filesystem::exists(stored)) return std::string(architecture_name(Architecture::kNanochat2026_07));
  return read_json_object(stored).value("recipe", of_old_runs);
}

}  // namespace

PretrainConfig::PretrainConfig()
    : sample_prompts{
          "The capital of France is",  "The chemical symbol of gold is",       "If yesterday was Friday, then tomorrow will be",
          "The opposite of hot is",    "The planets of the solar system are:", "My favorite color is",
          "If 5*x + 3 = 13, then x is"} {
  embedding_lr = 0.3;
  unembedding_lr = 0.008;
  weight_decay = 0.28;
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
                      {.target_param_data_ratio = target_param_data_ratio > 0 ? target_param_data_ratio : kParamDataRatio2026,
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
  if (target_minutes > 0)
    return {.steps = std::max<std::int64_t>(0, num_iterations), .seconds = kSecondsOfAMinute * target_minutes};
  if (num_iterations >= 0) return {.steps = num_iterations};
  if (is_2026()) return {.steps = scaling(model).num_iterations};
  const auto batch = static_cast<double>(total_batch_size);
  if (target_flops > 0) return {.steps = std::llround(target_flops / (model.flops_per_token() * batch))};
  if (target_param_data_ratio > 0) {
    return {.steps = static_cast<std::int64_t>(target_param_data_ratio * static_cast<double>(model.parameter_count()) / batch)};
  }
  throw ConfigError(
      "no training horizon: give --num-iterations, --target-minutes, --target-flops or --target-param-data-ratio");
}

void check_batch_sizes(const PretrainConfig& config, int processes) {
  const bool automatic = config.device_batch_size == kAutoDeviceBatch;
  const std::int64_t micro = (automatic ? 1 : config.device_batch_size) * config.sequence_len * processes;
  if (config.total_batch_size % micro == 0) return;
  throw ConfigError(fmt::format("--total-batch-size {} is not a multiple of {}--sequence-len {}{} = {}; the nearest is {}",
                                config.total_batch_size,
                                automatic ? "" : fmt::format("--device-batch-size {} x ", config.device_batch_size),
                                config.sequence_len, processes > 1 ? fmt::format(" x {} processes", processes) : "", micro,
                                std::max<std::int64_t>(1, (config.total_batch_size + micro / 2) / micro) * micro));
}

std::int64_t rows_of_process(const PretrainConfig& config, int processes) {
  return config.total_batch_size / (config.sequence_len * processes);
}

void declare_pretrain_options(OptionList& options, PretrainConfig& config) {
  options
      .add("data_dir", config.data_dir,
           "Training data: token shards written by `data prepare`, or text (.txt, .jsonl, each also .gz or "
           ".zst, .parquet). Files, folders or globs.")
      .may_change();
  options.add("tokenizer", config.tokenizer, "Tokenizer folder or file; default: the one beside the token shards.")
      .may_change();
  options.add("bos_token", config.bos_token,
              "Special token that begins every document (BOS). Empty takes the one named by tokenizer_config.json, "
              "otherwise <|bos|>, otherwise <|endoftext|>.");
  options.add("text_column", config.text_column,
              "For text: key of JSON rows, or column of .parquet files, that holds the text. Empty means the key "
              "text, or the only string column of a .parquet file.");
  declare_run_options(options, config);
  declare_data_options(options, config, "the initial weights and the order of the data", "tokenize raw text");

  options
      .add(
          "recipe", config.recipe,
          "Version of the Python nanochat whose architecture, optimizer, schedules and scaling laws to use. It also determines "
          "the defaults of options that are not given.")
      .one_of({"nanochat-2025-12", "nanochat-2026-07"});
  options.add("depth", config.depth, "Number of layers. The model is 64 times as wide unless --n-embd is given.")
      .at_least(1)
      .at_most(256);
  options
      .add("sequence_len", config.sequence_len,
           "Number of tokens in a training row. This is also the context length of the model.")
      .at_least(2);
  options.add("n_embd", config.n_embd, "Width of the model (channels); 0 uses 64 * depth.").at_least(0);
  options
      .add("n_head", config.n_head,
           "Number of query heads. 0 gives heads of 128 channels, or of 64 channels "
           "below depth 12.")
      .at_least(0);
  options
      .add("n_kv_head", config.n_kv_head, "Number of key/value heads (grouped-query attention); 0 uses as many as query heads.")
      .at_least(0);
  options.add("intermediate_size", config.intermediate_size, "Hidden size of the MLP; 0 uses 4 times the width.").at_least(0);
  options.add("rope_base", config.rope_base, "Base of the frequencies of rotary position embeddings (RoPE).")
      .at_least(1.000001);
  options
      .add("rope_table_dtype", config.rope_table_dtype,
           "Precision of the RoPE cosine and sine table. The Python nanochat uses bfloat16.")
      .one_of({"float32", "bfloat16"});
  options.add("window_pattern", config.window_pattern,
              "With --recipe nanochat-2026-07: attention window of each layer, as a pattern of letters that is repeated over "
              "the layers. S (short) is a quarter of the context, L (long) is the whole context.");
  options.add("softcap", config.softcap, "Cap logits smoothly at this magnitude with tanh; 0 disables this.").at_least(0);

  options
      .add("num_iterations", config.num_iterations,
           "Number of optimizer steps. -1 computes it from --target-flops or --target-param-data-ratio.")
      .at_least(-1)
      .may_change();
  options
      .add("target_minutes", config.target_minutes,
           "Train until the steps have taken this many minutes, and for at least --num-iterations steps. The learning rates "
           "follow the elapsed time, so another run gives another model. -1 disables this.")
      .above(0, -1)
      .may_change();
  options.add("target_flops", config.target_flops, "Train for this many floating-point operations; -1 disables this.")
      .above(0, -1)
      .may_change();
  options
      .add("target_param_data_ratio", config.target_param_data_ratio,
           "Train for this many tokens per parameter; -1 disables this. The options before this one take precedence.")
      .above(0, -1)
      .may_change();
  options
      .add("device_batch_size", config.device_batch_size,
           fmt::format(
               "Number of rows in one forward pass. Gradients of several passes are accumulated up to --total-batch-size.{}",
               kAutoDeviceBatchHelp))
      .at_least(1)
      .or_word("auto", kAutoDeviceBatch)
      .may_change();
  options
      .add("total_batch_size", config.total_batch_size,
           "Number of tokens in one optimizer step. -1 computes it by the scaling law of nanochat-2026-07.")
      .above(0, -1);
  declare_learning_rates(options, config);
  declare_step_options(options, config);
  declare_schedule_options(options, config.warmup_ratio, config.warmdown_ratio, config.final_lr_frac);
  options
      .add("warmup_steps", config.warmup_steps,
           "Number of steps in which the learning rates rise; 0 computes it from --warmup-ratio.")
      .at_least(0);

  options
      .add("packing", config.packing,
           "How documents fill rows. best-fit starts every row at the beginning of a document and keeps all text. "
           "best-fit-crop discards the end of documents that do not fit, as the Python nanochat of July 2026 does: about a "
           "third of the text. stream cuts the concatenated text at row boundaries, as the Python nanochat of December 2025 "
           "does.")
      .one_of({"best-fit", "best-fit-crop", "stream"});
  options
      .add("validation_every", config.validation_every,
           "For text: hold out every N-th document for validation; 0 holds out none.")
      .above(1, 0);
  options.add("eval_interval", config.eval_interval, "Validate every N steps; 0 never, -1 only at the end.")
      .at_least(-1)
      .may_change();
  options.add("eval_tokens", config.eval_tokens, "Validate on at most this many tokens.").at_least(1).may_change();
  options.add("sample_interval", config.sample_interval, "Generate samples every N steps; 0 never, -1 only at the end.")
      .at_least(-1)
      .may_change();
  options.add("sample_prompts", config.sample_prompts, "Prompts for the samples.").may_change();
  declare_checkpoint_options(options, config, "lowest validation loss in bits per byte (bpb)");
}

void apply_recipe(OptionList& options, PretrainConfig& config) {
  if (!config.resume.empty() && is_default(options, "recipe")) config.recipe = recipe_of_run(config.output_dir);
  if (config.is_2026()) return;  // whose defaults the options have
  set_default(options, "rope_base", config.rope_base, 10000.0);
  set_default(options, "total_batch_size", config.total_batch_size, 524288);
  set_default(options, "target_param_data_ratio", config.target_param_data_ratio, 20.0);
  set_default(options, "embedding_lr", config.embedding_lr, 0.2);
  set_default(options, "unembedding_lr", config.unembedding_lr, 0.004);
  set_default(options, "weight_decay", config.weight_decay, 0.0);
  set_default(options, "grad_clip", config.grad_clip, 1.0);  // which the reference has in pretraining alone
  set_default(options, "warmup_steps", config.warmup_steps, 0);
  set_default(options, "warmdown_ratio", config.warmdown_ratio, 0.2);
  set_default(options, "final_lr_frac", config.final_lr_frac, 0.0);
  if (config.total_batch_size < 0)
    throw ConfigError("--total-batch-size -1 needs --recipe nanochat-2026-07, which has a law for it");
}

}  // namespace nanochat
