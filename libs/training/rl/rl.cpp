#include "training/rl/rl.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include <spdlog/fmt/fmt.h>

#include "core/elapsed.h"
#include "core/errors.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "core/options.h"
#include "core/random.h"
#include "tasks/factory.h"
#include "tokenizer/special_tokens.h"
#include "training/finetune/conversation_data.h"
#include "training/rl/pass_at_k.h"
#include "training/rl/policy_batches.h"
#include "training/trainer/same_everywhere.h"
#include "training/trainer/train_step.h"

namespace nanochat {
namespace {

using Clock = std::chrono::steady_clock;

void require_reward(const TaskMixture& tasks, const std::string& flag) {
  for (const TaskMixtureEntry& entry : tasks.entries()) {
    const AnswerRule rule = entry.task->size() > 0 ? entry.task->example(0).rule : AnswerRule::kNone;
    if (rule != AnswerRule::kNone && rule != AnswerRule::kProgram) continue;
    throw ConfigError(
        fmt::format("{}: answers to the task {} cannot be checked, so none would earn a reward; tasks with a right "
                    "answer are gsm8k, arc, mmlu, spelling, spelling-bee and those of the toy world",
                    flag, entry.task->name()));
  }
}

class Reinforcement : public Stage {
 public:
  Reinforcement(const RlConfig& config, Communicator& communicator)
      : config_(config), communicator_(communicator), base_(open_base_model(config, "rl")), model_config_(base_.stored.config),
        tokenizer_(base_.stored.tokenizer), training_(mixture_of(config.mixture, "--mixture")),
        validation_(mixture_of(config.validation_mixture, "--validation-mixture")) {
    require_reward(*training_, "--mixture");
    require_reward(*validation_, "--validation-mixture");
    constexpr std::int64_t kRows = 8;
    device_batch_size_ = config.device_batch_size > 0 ? config.device_batch_size : base_.inherit("device_batch_size", kRows);
  }

  TrainerParts parts(const Runtime& runtime) const {
    const std::int64_t iterations = num_iterations();
    return {.stage = "rl",
            .shown = "reward",
            .score = "failure_rate",
            .options = config_,
            .runtime = runtime,
            .model = model_config_,
            .tokenizer = tokenizer_,
            .device_batch_size = device_batch_size_,
            .horizon = {.steps = steps_to_take(config_, iterations)},
            .scheduled_steps = iterations,
            .schedule = {.warmdown_ratio = 1.0},
            .muon_warmup = false,
            .declare = [copy = config_](OptionList& options) mutable { declare_rl_options(options, copy); },
            .initialize = [this](Gpt& model) { read_weights(base_.stored, model); },
            .announcement = announcement(iterations),
            .communicator = &communicator_};
  }

  StepReport step(Learner learner, std::int64_t, const StepSettings& settings) override {
    const auto start = Clock::now();
    learner.optimizer.wait_for_weights();
    const std::vector<AnsweredQuestion> questions = roll_out(learner.model);
    const double rollout_seconds = seconds_since(start);
    StepReport report = learn(learner, questions, settings);
    report.seconds = seconds_since(start);
    report.metrics["rollout_ms"] = 1e3 * rollout_seconds;
    return report;
  }

  std::optional<Evaluation> evaluate(Gpt& model, std::int64_t) override {
    std::vector<TaskExample> examples;
    for (std::int64_t i = 0; i < std::min(config_.eval_examples, validation_->size()); ++i) {
      if (is_mine(i)) examples.push_back(validation_->example(i));
    }
    const auto questions = gather_results(sample_answers(model, *tokenizer_, examples,
                                                         answer_options(config_.eval_samples, seed_of("validation"))));
    if (sum_over_ranks(communicator_, std::int64_t{interrupt_requested()}) > 0) return std::nullopt;
    Evaluation evaluation;
    std::string line;
    for (std::int64_t k = 1; k <= config_.eval_samples; ++k) {
      const PassRate passed = pass_at(k, questions);
      evaluation.metrics[fmt::format("pass@{}", k)] = passed.value;
      if (k == 1) {
        evaluation.score = 1.0 - passed.value;
        evaluation.metrics["stderr_pass@1"] = passed.standard_error;
      }
      if (k == 1 || k == config_.eval_samples) {
        line += fmt::format("{}pass@{} {:.3f} ± {:.3f}", line.empty() ? "" : " | ", k, passed.value, passed.standard_error);
      }
    }
    evaluation.summary = line;
    return evaluation;
  }

  nlohmann::json position() const override { return {{"question", next_}, {"questions", training_->size()}}; }
  void seek(const nlohmann::json& position) override {
    next_ = 0;
    if (position.is_null()) return;
    if (position.at("questions") != training_->size()) {
      throw DataError(fmt::format("loader position: there were {} questions, now there are {}; the tasks have changed",
                                  position.at("questions").dump(), training_->size()));
    }
    next_ = position.at("question").get<std::int64_t>();
  }

 private:
  std::int64_t num_iterations() const {
    if (config_.num_iterations >= 0) return config_.num_iterations;
    if (config_.num_epochs == 0.0) return 0;
    const double steps = config_.num_epochs * static_cast<double>(training_->size() / config_.examples_per_step);
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(steps));
  }

  std::string announcement(std::int64_t iterations) const {
    return fmt::format("training: {} steps of {} questions, {} answers to each of at most {} tokens; {} questions in all",
                       with_commas(iterations), config_.examples_per_step, config_.num_samples, config_.max_new_tokens,
                       with_commas(training_->size()));
  }

  AnswerOptions answer_options(std::int64_t samples, std::uint64_t seed) const {
    return {.samples = samples,
            .max_tokens = config_.max_new_tokens,
            .temperature = config_.temperature,
            .top_k = config_.top_k,
            .seed = seed,
            .max_running = config_.max_running};
  }

  // Questions and their answers are dealt out among the processes.
  bool is_mine(std::int64_t question) const { return question % communicator_.size() == communicator_.rank(); }
  std::uint64_t seed_of(const std::string& purpose) const {
    const int rank = communicator_.rank();
    return derive_seed(config_.seed, rank == 0 ? purpose : fmt::format("{} of rank {}", purpose, rank));
  }

  // Of every process: how many of the answers to each question are right, which is all that they are asked for.
  std::vector<AnsweredQuestion> gather_results(std::vector<AnsweredQuestion> mine) const {
    if (communicator_.alone()) return mine;
    const auto all = static_cast<std::size_t>(std::min(config_.eval_examples, validation_->size()));
    std::vector<double> right(all);
    for (std::size_t i = 0, next = 0; i < all; ++i) {
      if (!is_mine(static_cast<std::int64_t>(i))) continue;
      for (const SampledAnswer& answer : mine[next].answers) right[i] += answer.right ? 1.0 : 0.0;
      ++next;
    }
    right = sum_over_ranks(communicator_, std::move(right));
    std::vector<AnsweredQuestion> results(all);
    for (std::size_t i = 0; i < all; ++i) {
      results[i].answers.resize(static_cast<std::size_t>(config_.eval_samples));
      for (std::size_t a = 0; a < results[i].answers.size(); ++a)
        results[i].answers[a].right = static_cast<double>(a) < right[i];
    }
    return results;
  }

  // Of this process: the next questions, in the order of the mixture's epochs, answered by the model as it is.
  std::vector<AnsweredQuestion> roll_out(Gpt& model) {
    const std::uint64_t seed = seed_of(fmt::format("answers from question {}", next_));
    std::vector<TaskExample> examples;
    for (std::int64_t i = 0; i < config_.examples_per_step; ++i, ++next_) {
      if (!epoch_ || epoch_number_ != next_ / training_->size()) {
        epoch_number_ = next_ / training_->size();
        epoch_ = training_->epoch(epoch_number_);
      }
      if (is_mine(i)) examples.push_back(epoch_->example(next_ % training_->size()));
    }
    return sample_answers(model, *tokenizer_, examples, answer_options(config_.num_samples, seed));
  }

  StepReport learn(Learner learner, const std::vector<AnsweredQuestion>& questions, const StepSettings& settings) {
    const auto batches = policy_batches(questions, device_batch_size_, model_config_.sequence_len,
                                        tokenizer_->require_special(kAssistantEnd), config_.examples_per_step);
    const StepResult result = train_step(learner.model, learner.optimizer, batches, settings);
    return report(questions, result.loss, result.grad_norm, settings.lr_multiplier);
  }

  StepReport report(const std::vector<AnsweredQuestion>& questions, double loss, double norm, double lr_multiplier) const {
    StepReport report;
    double reward = 0.0;
    std::int64_t answer_tokens = 0, answers = 0;
    for (const AnsweredQuestion& question : questions) {
      reward += mean_reward(question) / static_cast<double>(config_.examples_per_step);
      for (const SampledAnswer& answer : question.answers) {
        answer_tokens += static_cast<std::int64_t>(answer.ids.size());
        report.tokens += static_cast<std::int64_t>(question.prompt.size() + answer.ids.size());
        ++answers;
      }
    }
    reward = sum_over_ranks(communicator_, std::vector<double>{reward}).front();
    for (std::int64_t* count : {&answer_tokens, &report.tokens, &answers}) *count = sum_over_ranks(communicator_, *count);
    report.value = reward;
    const double length = static_cast<double>(answer_tokens) / static_cast<double>(answers);
    report.metrics = {
        {"reward", reward}, {"loss", loss}, {"grad_norm", norm}, {"lr_multiplier", lr_multiplier}, {"answer_tokens", length}};
    report.summary = fmt::format("answers of {:.0f} tokens | norm {:.4f}", length, norm);
    return report;
  }

  const RlConfig& config_;
  Communicator& communicator_;
  BaseModel base_;
  GptConfig model_config_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const TaskMixture> training_, validation_, epoch_;
  std::int64_t epoch_number_ = 0, next_ = 0, device_batch_size_ = 1;
};

}  // namespace

RlConfig::RlConfig() {
  init_lr_frac = 0.05;
  eval_interval = 60;
  checkpoint_interval = 60;
}

void declare_rl_options(OptionList& options, RlConfig& config) {
  options.add("mixture", config.mixture,
              "Mixture of data sets (tasks) to train on. A program checks the answers, so the tasks must have known answers, "
              "such as gsm8k. Give a JSON file or JSON text; docs/data.md lists the tasks and their keys.");
  options
      .add("validation_mixture", config.validation_mixture,
           "Mixture of data sets (tasks) to validate on, in the form of --mixture.")
      .may_change();
  declare_finetune_options(options, config);
  options.add("examples_per_step", config.examples_per_step, "Number of questions in one optimizer step.").at_least(1);
  options.add("num_samples", config.num_samples, "Number of answers sampled for each question.").at_least(2);
  options.add("max_new_tokens", config.max_new_tokens, "Maximum number of tokens in an answer.").at_least(1);
  options.add("temperature", config.temperature, "Sampling temperature of the answers.").at_least(0.01);
  options.add("top_k", config.top_k, "Sample from the k most likely tokens; 0 samples from all.").at_least(0);
  options.add("generation_batch", config.max_running, "Number of answers to generate at a time.").at_least(1).may_change();
  options.add("eval_examples", config.eval_examples, "Number of validation questions.").at_least(1).may_change();
  options
      .add("eval_samples", config.eval_samples,
           "Number N of answers sampled for each validation question. pass@k, the share of questions with a correct answer "
           "among k, is reported for k from 1 to N.")
      .at_least(1)
      .may_change();
  declare_measuring_options(options, config, "pass@k");
}

TrainingResult rl(const RlConfig& config, ProgressReporter& progress, Communicator& communicator) {
  const Runtime runtime = select_training_runtime(config, communicator);
  if (config.mixture.empty() || config.validation_mixture.empty()) {
    throw ConfigError("--mixture and --validation-mixture are missing: name tasks to learn from and to be judged by");
  }
  Reinforcement stage(config, communicator);
  return run_stage(stage.parts(runtime), stage, progress);
}

}  // namespace nanochat
