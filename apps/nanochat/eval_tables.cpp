#include "eval_tables.h"

#include <algorithm>
#include <optional>

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "evaluation/published_core.h"

namespace nanochat::cli {
namespace {

constexpr std::size_t kColumn = 14;

std::string number(const std::optional<double>& value) { return value ? fmt::format("{:.4f}", *value) : "-"; }

std::string figure(const TaskResult& result) {
  if (!result.ok()) return "failed";
  return result.standard_error ? fmt::format("{:.4f}±{:.4f}", result.value, *result.standard_error)
                               : fmt::format("{:.4f}", result.value);
}

std::optional<double> value_of(const EvaluationResult& evaluation, const TaskResult& wanted) {
  for (const TaskResult& result : evaluation.results) {
    if (result.ok() && result.suite == wanted.suite && result.task == wanted.task) return result.value;
  }
  return std::nullopt;
}

class Table {
 public:
  explicit Table(std::size_t first_width) : first_width_(first_width) {}
  void row(const std::string& first, const std::vector<std::string>& cells) {
    text_ += fmt::format("{:<{}}", first, first_width_);
    for (const std::string& cell : cells) text_ += fmt::format(" {:>{}}", cell.substr(0, kColumn), kColumn);
    text_ += '\n';
  }
  std::string take() { return std::move(text_); }

 private:
  std::size_t first_width_;
  std::string text_;
};

// Two models of the published family beside one's own figures are enough to see where one stands.
const PublishedCore* published(const std::string& model) {
  const auto& rows = published_core();
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const PublishedCore& row) { return row.model == model; });
  return found == rows.end() ? nullptr : &*found;
}

std::string suite_table(const EvaluationResult& evaluation, const std::string& suite, const Compared& compared) {
  const std::vector<TaskResult> results = evaluation.of(suite);
  const bool core = suite == "core";
  std::size_t width = 10;
  for (const TaskResult& result : results) width = std::max(width, result.task.size());
  Table table(width);
  std::vector<std::string> head = {results.front().metric, "centred"};
  for (const auto& [name, other] : compared) head.push_back(name);
  const std::vector<const PublishedCore*> gpt2 = core ? std::vector<const PublishedCore*>{published("GPT-2"),
                                                                                          published("GPT-2 XL")}
                                                      : std::vector<const PublishedCore*>{};
  for (const PublishedCore* model : gpt2) head.push_back(model->model);
  table.row(suite, head);
  for (const TaskResult& result : results) {
    std::vector<std::string> cells = {figure(result), number(result.centered())};
    for (const auto& [name, other] : compared) cells.push_back(number(value_of(other, result)));
    for (const PublishedCore* model : gpt2) {
      const auto found = model->accuracy.find(result.task);
      cells.push_back(found == model->accuracy.end() ? "-" : fmt::format("{:.4f}", found->second));
    }
    table.row(result.task, cells);
  }
  const auto mean = [&](const char* name, const auto& of) {
    if (!of(evaluation)) return;
    std::vector<std::string> cells = {"", number(of(evaluation))};
    for (const auto& [other_name, other] : compared) cells.push_back(number(of(other)));
    for (const PublishedCore* model : gpt2) cells.push_back(fmt::format("{:.4f}", model->core));
    table.row(name, cells);
  };
  if (core) mean("CORE", [](const EvaluationResult& e) { return e.core(); });
  if (suite == "chat") mean("ChatCORE", [](const EvaluationResult& e) { return e.chat_core(); });
  return table.take();
}

}  // namespace

std::string evaluation_table(const EvaluationResult& evaluation, const Compared& compared) {
  std::vector<std::string> suites;
  for (const TaskResult& result : evaluation.results) {
    if (std::find(suites.begin(), suites.end(), result.suite) == suites.end()) {
      suites.push_back(result.suite);
    }
  }
  std::string text;
  for (const std::string& suite : suites) {
    text += (text.empty() ? "" : "\n") + suite_table(evaluation, suite, compared);
  }
  if (const auto most = evaluation.settings.value("max_per_task", std::int64_t{-1}); most > 0) {
    text += fmt::format("at most {} examples of each task\n", most);
  }
  for (const TaskResult& result : evaluation.results) {
    if (!result.ok()) {
      text += fmt::format("{}: {}\n", result.task, result.error);
    } else if (!result.notes.empty()) {
      text += fmt::format("{}: {}\n", result.task, fmt::join(result.notes, "; "));
    }
    for (const auto& [group, counts] : result.groups) {
      text += fmt::format("  {} {}: {} of {}, {:.1f}%\n", result.task, group.empty() ? "-" : group, counts.correct,
                          counts.total, 100.0 * counts.accuracy());
    }
  }
  return text;
}

}  // namespace nanochat::cli
