#include "training/chain/plan.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <type_traits>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/options.h"
#include "training/midtrain/midtrain.h"
#include "training/pretrain/pretrain_options.h"
#include "training/pretrain/pretrain_plan.h"
#include "training/rl/rl.h"
#include "training/sft/sft.h"
#include "training/trainer/memory_check.h"
#include "training/trainer/training_plan.h"

namespace nanochat {
namespace {

constexpr std::int64_t kTokenizerBytesPerToken = 60;  // of tokenizer.json: vocabulary and merges
constexpr double kGenerationShare = 0.1;              // of the training rate, that answers are generated at

class Planner {
 public:
  Planner(const Chain& chain, const Cluster& cluster) : chain_(chain), cluster_(cluster) {}

  StepPlan plan(const ChainStep& step) {
    StepPlan result{.name = step.name, .command = step.command};
    if (step.command == "pretrain") {
      pretrain(step, result);
    } else if (step.command == "midtrain") {
      midtrain(step, result);
    } else if (step.command == "sft") {
      sft(step, result);
    } else if (step.command == "rl") {
      rl(step, result);
    } else {
      prepare(step, result);
    }
    return result;
  }

 private:
  struct Trained {  // by an earlier step
    GptConfig model;
    std::int64_t device_batch_size = 0, total_batch_size = 0;
    std::string stage = {};  // by which it was trained
  };

  static std::int64_t known(const ChainStep& step, const char* key) { return step.plan.value(key, std::int64_t{0}); }

  template <class Config>
  Config configuration(const ChainStep& step, void (*declare)(OptionList&, Config&),
                       void (*declare_scores)(OptionList&, ScoreOptions&) = nullptr) const {
    Config config;
    ScoreOptions scores;  // they change nothing of the plan
    OptionList options;
    declare(options, config);
    if (declare_scores != nullptr) declare_scores(options, scores);
    options.apply_json(step.options, fmt::format("step \"{}\"", step.name));
    if constexpr (std::is_same_v<Config, SftConfig>) {
      const Trained& base = base_of(step, config);
      if (config.recipe == "auto") config.recipe = sft_recipe(base.model, base.stage);
    }
    if constexpr (std::is_same_v<Config, PretrainConfig> || std::is_same_v<Config, SftConfig>) apply_recipe(options, config);
    return config;
  }

  void prepare(const ChainStep& step, StepPlan& result) {
    const std::int64_t bytes = known(step, "bytes");
    if (step.command == "tokenizer train") {
      const auto vocabulary = step.options.find("vocab_size");
      if (vocabulary == step.options.end())
        throw ConfigError(fmt::format("step \"{}\": a plan needs its vocab_size", step.name));
      vocab_size_ = vocabulary->get<std::int64_t>();
      result.disk = vocab_size_ * kTokenizerBytesPerToken;
    } else if (step.command == "data toy") {
      result.disk = step.options.value("bytes", bytes);
    } else if (step.command == "data prepare") {
      result.tokens = known(step, "tokens");
      result.disk = result.tokens * (vocab_size_ <= 65536 ? 2 : 4);
    } else {
      result.disk = bytes;
    }
  }

  TrainingShape shape_of(const GptConfig& model, std::int64_t rows, const TrainerOptions& options) const {
    return training_shape(options, model, rows, options.runtime.dtype == "float32" ? 4 : 2, chain_.hardware.gpu);
  }

  // Weights, optimizer and their memory while training; checkpoints that stay.
  void train(const GptConfig& model, std::int64_t device_batch_size, const TrainerOptions& options, StepPlan& result) const {
    const TrainingShape shape = shape_of(model, device_batch_size, options);
    const double tokens = result.steps > 0 ? static_cast<double>(result.tokens) / static_cast<double>(result.steps) : 0.0;
    Cluster cluster = cluster_;
    cluster.gradient_bytes = options.grad_comm_dtype == "bfloat16" ? 2 : 4;
    const TrainingPlan plan = plan_training(model, shape, cluster, result.steps, tokens);
    result.parameters = model.parameter_count();
    result.memory = plan.memory.total();
    result.host_memory = plan.host_memory;
    result.sent = plan.traffic.total();
    result.communication_seconds = plan.step.communication();
    const std::int64_t interval = options.checkpoint_interval;
    std::int64_t checkpoints = interval > 0 ? (result.steps + interval - 1) / interval : 1;
    if (options.keep_last > 0) checkpoints = std::min(checkpoints, options.keep_last);
    checkpoints += options.keep_best ? 1 : 0;
    result.disk = checkpoints * (result.parameters * static_cast<std::int64_t>(sizeof(float)) +
                                 estimate_training_memory(model, shape).optimizer);
    result.seconds = plan.seconds;
  }
  // On all devices.
  double seconds(double flops) const {
    return cluster_.flops_per_second > 0 ? flops / (cluster_.flops_per_second * cluster_.ranks) : 0.0;
  }

  void pretrain(const ChainStep& step, StepPlan& result) {
    const auto config = configuration<PretrainConfig>(step, declare_pretrain_options, declare_core_scores);
    if (vocab_size_ == 0) throw ConfigError(fmt::format("step \"{}\": no step before it trains a tokenizer", step.name));
    const PretrainPlan plan = plan_pretraining(config, vocab_size_, chain_.hardware.gpu, cluster_);
    result.steps = plan.steps;
    result.tokens = plan.steps * plan.total_batch_size;
    train(plan.model, plan.shape.device_batch_size, config, result);
    remember(step, config, {plan.model, plan.shape.device_batch_size, plan.total_batch_size});
  }

  void remember(const ChainStep& step, const TrainerOptions& options, Trained trained) {
    trained.stage = step.command;
    trained_[options.output_dir.lexically_normal().string()] = trained;
  }
  const Trained& base_of(const ChainStep& step, const FinetuneConfig& config) const {
    for (const std::filesystem::path& path :
         {std::filesystem::path(config.base_model), "runs" / std::filesystem::path(config.base_model)}) {
      const auto found = trained_.find(path.lexically_normal().string());
      if (found != trained_.end()) return found->second;
    }
    throw ConfigError(fmt::format("step \"{}\": no step before it makes its base_model {}", step.name, config.base_model));
  }

  void midtrain(const ChainStep& step, StepPlan& result) {
    const auto config = configuration<MidtrainConfig>(step, declare_midtrain_options, declare_task_scores);
    const Trained base = with_rows(base_of(step, config), config);
    const std::int64_t batch = config.total_batch_size > 0 ? config.total_batch_size : base.total_batch_size;
    result.steps = config.num_iterations >= 0 ? config.num_iterations : epochs(known(step, "tokens"), config, batch);
    result.tokens = result.steps * batch;
    train(base.model, base.device_batch_size, config, result);
    remember(step, config, {base.model, base.device_batch_size, batch});
  }

  void sft(const ChainStep& step, StepPlan& result) {
    const auto config = configuration<SftConfig>(step, declare_sft_options, declare_task_scores);
    const Trained base = with_rows(base_of(step, config), config);
    const std::int64_t conversations = std::max<std::int64_t>(1, known(step, "conversations")), tokens = known(step, "tokens");
    const double rows_wanted = static_cast<double>(tokens) / static_cast<double>(conversations) *
                               static_cast<double>(config.examples_per_step) / static_cast<double>(base.model.sequence_len);
    const std::int64_t batch_size = config.total_batch_size > 0     ? config.total_batch_size
                                    : config.examples_per_step == 0 ? base.total_batch_size
                                                                    : 0;
    const std::int64_t rows = batch_size > 0 ? batch_size / base.model.sequence_len
                                             : std::max<std::int64_t>(1, std::llround(rows_wanted));
    const StepShape shape = step_shape(rows, base.device_batch_size, cluster_.ranks);
    const std::int64_t batch = shape.rows_of_step() * base.model.sequence_len;
    result.steps = config.num_iterations >= 0 ? config.num_iterations : epochs(tokens, config, batch);
    result.tokens = result.steps * batch;
    train(base.model, shape.device_batch_size, config, result);
    remember(step, config, base);
  }

  void rl(const ChainStep& step, StepPlan& result) {
    const auto config = configuration<RlConfig>(step, declare_rl_options);
    const Trained base = with_rows(base_of(step, config), config);
    result.steps = config.num_iterations >= 0 ? config.num_iterations
                                              : epochs(known(step, "conversations"), config, config.examples_per_step);
    const std::int64_t answers = result.steps * config.examples_per_step * config.num_samples;
    result.tokens = answers * (known(step, "question_tokens") + config.max_new_tokens);
    train(base.model, base.device_batch_size, config, result);
    // A token that is generated takes a third of what one trained on does, at a fraction of the rate.
    result.seconds += seconds(static_cast<double>(answers * config.max_new_tokens) * base.model.flops_per_token() / 3.0 /
                              kGenerationShare);
    remember(step, config, base);
  }

  Trained with_rows(Trained base, const FinetuneConfig& config) const {
    if (config.device_batch_size > 0) base.device_batch_size = config.device_batch_size;
    if (config.device_batch_size == kAutoDeviceBatch) {
      base.device_batch_size = plan_device_batch(config.runtime, base.model, shape_of(base.model, 1, config), cluster_.ranks);
    }
    return base;
  }
  static std::int64_t epochs(std::int64_t items, const FinetuneConfig& config, std::int64_t of_a_step) {
    if (config.num_epochs == 0.0) return 0;
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(config.num_epochs * static_cast<double>(items) /
                                                               static_cast<double>(of_a_step)));
  }

  const Chain& chain_;
  const Cluster& cluster_;
  std::int64_t vocab_size_ = 0;
  std::map<std::string, Trained> trained_;  // by output_dir
};

}  // namespace

std::vector<StepPlan> plan_chain(const Chain& chain, Cluster cluster) {
  if (cluster.flops_per_second == 0.0) cluster.flops_per_second = chain.hardware.flops_per_second;
  Planner planner(chain, cluster);
  std::vector<StepPlan> plans;
  for (const ChainStep& step : chain.steps) plans.push_back(planner.plan(step));
  return plans;
}

}  // namespace nanochat
