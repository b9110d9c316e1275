#include "evaluation/core_eval.h"

#include <cmath>
#include <exception>

#include <spdlog/fmt/fmt.h>

#include "core/elapsed.h"
#include "core/errors.h"
#include "core/interrupt.h"
#include "core/progress.h"
#include "core/thread_pool.h"
#include "model/gpt.h"

namespace nanochat {
namespace {

// Rows whose prompts are in memory at a time: enough to find many of one length.
constexpr std::size_t kWindow = 1024;

nlohmann::json sample_of(const CorePrompts& prompts) {
  nlohmann::json sample = nlohmann::json::array();
  for (const PromptSpan& option : prompts.options) {
    sample.push_back({{"tokens", option.tokens}, {"start", option.start}, {"end", option.end}});
  }
  return sample;
}

nlohmann::json verdict(const CoreTask& task, const CoreRow& row, const std::vector<SpanScore>& scores) {
  nlohmann::json losses = nlohmann::json::array();
  for (const SpanScore& score : scores) {
    losses.push_back(std::isfinite(score.mean_loss) ? nlohmann::json(score.mean_loss) : nlohmann::json(nullptr));
  }
  if (task.type == CoreTaskType::kLanguageModeling) return {{"correct", scores.front().greedy}, {"losses", losses}};
  const std::size_t chosen = best_option(scores);
  return {{"correct", chosen == row.gold}, {"losses", losses}, {"chosen", chosen}, {"gold", row.gold}};
}

class CoreTaskRun {
 public:
  CoreTaskRun(Gpt& model, const Tokenizer& tokenizer, const CoreTask& task, const std::vector<CoreRow>& rows,
              const CoreOptions& options, ExampleStore& store, ProgressReporter& progress)
      : model_(model), tokenizer_(tokenizer), task_(task), rows_(rows), options_(options), store_(store), progress_(progress),
        key_("core/" + task.label) {}

  TaskResult run() {
    const auto start = SteadyClock::now();
    std::vector<std::size_t> open;
    for (auto i = static_cast<std::size_t>(options_.rank); i < rows_.size(); i += static_cast<std::size_t>(options_.world)) {
      if (!store_.of(key_).contains(static_cast<std::int64_t>(i))) open.push_back(i);
    }
    progress_.start(task_.label, static_cast<std::int64_t>(open.size()), "examples");
    for (std::size_t begin = 0; begin < open.size() && !interrupt_requested(); begin += kWindow) {
      answer({open.begin() + static_cast<std::ptrdiff_t>(begin),
              open.begin() + static_cast<std::ptrdiff_t>(std::min(open.size(), begin + kWindow))});
    }
    progress_.finish();
    TaskResult result = count();
    result.seconds = seconds_since(start);
    return result;
  }

 private:
  void answer(const std::vector<std::size_t>& indices) {
    const std::int64_t limit = options_.max_prompt_tokens > 0 ? options_.max_prompt_tokens : longest_prompt(model_);
    std::vector<CorePrompts> prompts(indices.size());
    for_each_index(indices.size(), 0,
                   [&](std::size_t i) { prompts[i] = core_prompts(tokenizer_, task_, rows_, indices[i], limit); });
    std::vector<Question> questions(indices.size());
    for (std::size_t i = 0; i < indices.size(); ++i) questions[i].options = prompts[i].options;
    score_questions(model_, questions, options_.scoring, [&](std::size_t i, const std::vector<SpanScore>& scores) {
      nlohmann::json example = verdict(task_, rows_[indices[i]], scores);
      if (prompts[i].truncated) example["truncated"] = true;
      if (prompts[i].boundary_moved) example["boundary_moved"] = true;
      if (options_.save_samples) example["sample"] = sample_of(prompts[i]);
      store_.add(key_, static_cast<std::int64_t>(indices[i]), std::move(example));
      progress_.advance(1);
    });
  }

  TaskResult count() const {
    TaskResult result;
    result.suite = "core";
    result.task = task_.label;
    result.baseline = task_.random_baseline;
    TaskCounts counts;
    std::int64_t truncated = 0, moved = 0;
    for (const auto& [index, example] : store_.of(key_)) {
      ++counts.total;
      counts.correct += example.at("correct").get<bool>() ? 1 : 0;
      truncated += example.contains("truncated") ? 1 : 0;
      moved += example.contains("boundary_moved") ? 1 : 0;
    }
    take_accuracy(result, counts);
    if (task_.replaced) result.notes.push_back("data file replaced by " + task_.file.filename().string());
    if (truncated > 0) result.notes.push_back(fmt::format("{} prompts cut on the left", truncated));
    if (moved > 0) {
      result.notes.push_back(fmt::format("{} continuations begin inside a token of their prompt", moved));
    }
    if (counts.total < static_cast<std::int64_t>(rows_.size())) {
      result.notes.push_back(fmt::format("{} of {} examples", counts.total, rows_.size()));
    }
    return result;
  }

  Gpt& model_;
  const Tokenizer& tokenizer_;
  const CoreTask& task_;
  const std::vector<CoreRow>& rows_;
  const CoreOptions& options_;
  ExampleStore& store_;
  ProgressReporter& progress_;
  std::string key_;
};

}  // namespace

TaskResult evaluate_core_task(Gpt& model, const Tokenizer& tokenizer, const CoreTask& task,
                              const std::vector<CoreRow>& shuffled_rows, const CoreOptions& options, ExampleStore& store,
                              ProgressReporter& progress) {
  return CoreTaskRun(model, tokenizer, task, shuffled_rows, options, store, progress).run();
}

std::vector<TaskResult> evaluate_core(Gpt& model, const Tokenizer& tokenizer, const std::vector<CoreTask>& tasks,
                                      const CoreOptions& options, ExampleStore& store, ProgressReporter& progress) {
  std::vector<TaskResult> results;
  for (const CoreTask& task : tasks) {
    if (interrupt_requested()) break;
    try {
      if (!task.random_baseline) {
        throw DataError(fmt::format("task {}: eval_meta_data.csv has no random baseline between 0 and 100 for it", task.label));
      }
      std::vector<CoreRow> rows = read_core_rows(task);
      shuffle_core_rows(rows, options.max_per_task);
      results.push_back(evaluate_core_task(model, tokenizer, task, rows, options, store, progress));
    } catch (const DataError& error) {
      TaskResult failed;
      failed.suite = "core";
      failed.task = task.label;
      failed.error = error.what();
      results.push_back(std::move(failed));
    }
  }
  return results;
}

}  // namespace nanochat
