#include "training_scores.h"

#include <memory>
#include <string>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/log.h"
#include "core/progress.h"
#include "evaluation/chat_eval.h"
#include "evaluation/chat_tasks.h"
#include "evaluation/core_eval.h"
#include "evaluation/sandbox.h"
#include "evaluation_files.h"
#include "model/gpt.h"

namespace nanochat::cli {
namespace {

nlohmann::json core_figures(EvaluationResult evaluation) {
  nlohmann::json figures = nlohmann::json::object();
  for (const TaskResult& result : evaluation.results) {
    if (!result.ok()) log_error("{}", result.error);
    if (const auto centered = result.centered()) figures["core_" + result.task] = *centered;
  }
  if (const auto core = evaluation.core()) {
    figures["core"] = *core;
    log_info("CORE {:.4f}", *core);
  }
  return figures;
}

nlohmann::json task_figures(const EvaluationResult& evaluation) {
  nlohmann::json figures = nlohmann::json::object();
  double sum = 0.0;
  for (const TaskResult& result : evaluation.results) {
    figures["accuracy_" + result.task] = result.value;
    sum += result.value;
    log_info("{} {:.4f} ({} of {})", result.task, result.value, result.counts.correct, result.counts.total);
  }
  if (!evaluation.results.empty()) figures["accuracy"] = sum / static_cast<double>(evaluation.results.size());
  if (const auto chat_core = evaluation.chat_core()) figures["chat_core"] = *chat_core;
  return figures;
}

}  // namespace

std::vector<ScheduledScore> core_scores(const ScoreOptions& options) {
  if (options.every == 0) return {};
  const EvaluationFiles files(options.data, options.task_files, "--core-bundle");
  const std::vector<CoreTask> tasks = read_core_bundle(files.core_bundle(), files.core_tasks());
  for (const CoreTask& task : tasks) read_core_rows(task);
  const auto ask = [tasks, max_per_task = options.max_per_task](Gpt& model, const Tokenizer& tokenizer) {
    CoreOptions core;
    core.scoring = default_scoring(model.device());
    core.max_per_task = max_per_task;
    ExampleStore store;
    SilentProgress progress;
    EvaluationResult evaluation;
    evaluation.results = evaluate_core(model, tokenizer, tasks, core, store, progress);
    return core_figures(std::move(evaluation));
  };
  return {{.every = options.every, .ask = ask}};
}

std::vector<ScheduledScore> others_scores(const ScoreOptions& options) {
  if (options.every == 0) return {};
  return {{.every = options.every, .ask = [](Gpt&, const Tokenizer&) { return nlohmann::json::object(); }}};
}

std::vector<ScheduledScore> task_scores(const ScoreOptions& options) {
  if (options.every == 0) return {};
  if (options.benchmarks.empty()) throw ConfigError("--benchmarks is missing: name the tasks that --task-every scores");
  const EvaluationFiles files(options.data, options.task_files, "--benchmark-dir");
  std::vector<std::shared_ptr<const Task>> tasks;
  std::shared_ptr<const Sandbox> sandbox;
  for (const std::string& name : expand_task_names(options.benchmarks)) {
    tasks.push_back(open_chat_task(name, files.of(name)));
    if (name == "humaneval" && !sandbox) sandbox = std::make_shared<Sandbox>();
  }
  const auto ask = [tasks, sandbox, max_per_task = options.max_per_task,
                    max_tokens = options.max_tokens](Gpt& model, const Tokenizer& tokenizer) {
    ChatOptions chat;
    chat.scoring = default_scoring(model.device());
    chat.max_examples = max_per_task;
    chat.max_tokens = max_tokens;
    chat.sandbox = sandbox.get();
    EvaluationResult evaluation;
    for (const auto& task : tasks) {
      try {
        evaluation.results.push_back(task_accuracy(model, tokenizer, *task, chat));
      } catch (const DataError& error) {  // of this tokenizer: it costs the task, not the training
        log_error("{}", error.what());
      }
    }
    return task_figures(evaluation);
  };
  return {{.every = options.every, .ask = ask}};
}

}  // namespace nanochat::cli
