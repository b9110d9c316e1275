#include <algorithm>
#include <array>
#include <cmath>

#include <spdlog/fmt/fmt.h>

#include "core/format.h"
#include "evaluation/published_core.h"
#include "evaluation/report/report.h"

namespace nanochat {
namespace {

// The reference's speedrun of depth 20, from its README: BASE, MID, SFT, RL; below 0: not measured.
struct ReferenceRow {
  const char* label;
  const char* task;
  std::array<double, 4> d20;
};
constexpr std::array kReference = {
    ReferenceRow{"CORE", "CORE", {0.2219, -1, -1, -1}},
    ReferenceRow{"ARC-Challenge", "arc-challenge", {-1, 0.2875, 0.2807, -1}},
    ReferenceRow{"ARC-Easy", "arc-easy", {-1, 0.3561, 0.3876, -1}},
    ReferenceRow{"GSM8K", "gsm8k", {-1, 0.0250, 0.0455, 0.0758}},
    ReferenceRow{"HumanEval", "humaneval", {-1, 0.0671, 0.0854, -1}},
    ReferenceRow{"MMLU", "mmlu", {-1, 0.3111, 0.3151, -1}},
    ReferenceRow{"SpellingBee", "spelling-bee", {-1, -1, -1, -1}},
    ReferenceRow{"ChatCORE", "ChatCORE", {-1, 0.0730, 0.0884, -1}},
};

std::string figure(const std::optional<double>& value) { return value ? fmt::format("{:.4f}", *value) : "–"; }

std::string stage_name(const RunRecord& run) {
  if (run.stage == "pretrain") return "BASE";
  if (run.stage == "midtrain") return "MID";
  std::string upper = run.stage;
  std::transform(upper.begin(), upper.end(), upper.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return upper;
}

// That of RL is the policy's: no cross-entropy, and no measure of how good the model is.
bool has_loss(const RunRecord& run) { return run.stage != "rl"; }

std::string accuracy_name(const std::string& key) {
  if (key == "core") return "CORE";
  if (key == "chat_core") return "ChatCORE";
  if (key == "accuracy") return "mean of the tasks";
  return key.starts_with("accuracy_") ? key.substr(9) : key;
}

std::optional<double> total_flops(const RunRecord& run) {
  std::optional<double> most;
  for (const auto& [key, points] : run.curves) {
    if (!points.empty() && points.back().flops) most = std::max(most.value_or(0.0), *points.back().flops);
  }
  return most;
}

std::optional<double> total_tokens(const RunRecord& run) {
  std::optional<double> most;
  for (const auto& [key, points] : run.curves) {
    if (!points.empty() && points.back().tokens) most = std::max(most.value_or(0.0), *points.back().tokens);
  }
  return most;
}

std::string dollars(double amount) { return amount < 0.01 ? "below $0.01" : fmt::format("${:.2f}", amount); }

// What the machine cost, or what the same work would cost on an H100 at 40 % of its peak and 3 dollars an hour.
std::string cost(const RunRecord& run, const ReportOptions& options) {
  if (options.hourly_rate > 0.0) return dollars(run.training_seconds / 3600.0 * options.hourly_rate);
  const auto flops = total_flops(run);
  if (!flops) return "–";
  constexpr double kFlopsPerHour = 0.4 * 989e12 * 3600.0, kDollarsPerHour = 3.0;
  return fmt::format("{} (H100)", dollars(*flops / kFlopsPerHour * kDollarsPerHour));
}

double median(const std::vector<CurvePoint>& points) {
  std::vector<double> values;
  for (const CurvePoint& point : points) values.push_back(point.value);
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

std::optional<double> median_of(const RunRecord& run, const char* key) {
  const auto found = run.curves.find(key);
  return found == run.curves.end() || found->second.empty() ? std::nullopt : std::optional(median(found->second));
}

}  // namespace

ReportTable summary_table(std::span<const RunRecord> runs, const ReportOptions& options) {
  ReportTable table{"Runs", {""}, {}};
  for (const RunRecord& run : runs) table.head.push_back(run.name);
  const auto row = [&](const std::string& name, const auto& value_of) {
    std::vector<std::string> cells = {name};
    bool any = false;
    for (const RunRecord& run : runs) {
      cells.push_back(value_of(run));
      any = any || cells.back() != "–";
    }
    if (any) table.rows.push_back(std::move(cells));
  };
  const auto quantity = [](const std::optional<double>& value) { return value ? axis_number(*value) : std::string("–"); };
  row("stage", [](const RunRecord& run) { return stage_name(run); });
  row("parameters", [](const RunRecord& run) {
    const auto found = run.environment.find("parameters");
    return found == run.environment.end() ? std::string("–") : with_commas(found->get<std::int64_t>());
  });
  row("trained on", [](const RunRecord& run) {
    const auto found = run.environment.find("device");
    return found != run.environment.end() && found->is_string() ? found->get<std::string>() : std::string("–");
  });
  row("steps", [](const RunRecord& run) { return with_commas(run.steps); });
  row("tokens", [&](const RunRecord& run) { return quantity(total_tokens(run)); });
  row("training FLOPs", [](const RunRecord& run) {
    const auto flops = total_flops(run);
    return flops ? fmt::format("{:.3g}", *flops) : std::string("–");
  });
  row("training time",
      [](const RunRecord& run) { return run.training_seconds > 0 ? human_duration(run.training_seconds) : std::string("–"); });
  row("cost, estimated", [&](const RunRecord& run) { return cost(run, options); });
  row("loss, last", [](const RunRecord& run) { return has_loss(run) ? figure(run.last("loss")) : "–"; });
  row("validation bpb, last", [](const RunRecord& run) { return figure(run.last("validation_bpb")); });
  row("reward, last", [](const RunRecord& run) { return figure(run.last("reward")); });
  row("tokens/s, median", [&](const RunRecord& run) { return quantity(median_of(run, "tokens_per_second")); });
  row("MFU, median", [](const RunRecord& run) {
    const auto mfu = median_of(run, "mfu");
    return mfu ? fmt::format("{:.1f}%", 100.0 * *mfu) : std::string("–");
  });
  return table;
}

ReportTable evaluation_table(std::span<const RunRecord> runs) {
  ReportTable table{"Evaluation", {"metric"}, {}, "d20: the reference's model of depth 20 after each of its stages."};
  for (const RunRecord& run : runs) {
    const bool alone = std::count_if(runs.begin(), runs.end(),
                                     [&](const RunRecord& other) { return other.stage == run.stage; }) == 1;
    table.head.push_back(alone ? stage_name(run) : fmt::format("{} ({})", stage_name(run), run.name));
  }
  for (const char* stage : {"BASE", "MID", "SFT", "RL"}) table.head.push_back(fmt::format("d20 {}", stage));
  for (const ReferenceRow& row : kReference) {
    std::vector<std::string> cells = {row.label};
    for (const RunRecord& run : runs) cells.push_back(figure(run.score(row.task)));
    for (const double value : row.d20) cells.push_back(value < 0 ? "–" : fmt::format("{:.4f}", value));
    if (std::any_of(cells.begin() + 1, cells.end(), [](const std::string& cell) { return cell != "–"; }))
      table.rows.push_back(std::move(cells));
  }
  // What the reference does not have: a user's own tasks, the toy world, bits per byte.
  std::vector<std::string> others;
  for (const RunRecord& run : runs) {
    for (const auto& [folder, evaluation] : run.evaluations) {
      for (const TaskResult& result : evaluation.results) {
        const bool known = result.suite == "core" ||
                           std::any_of(kReference.begin(), kReference.end(),
                                       [&](const ReferenceRow& row) { return row.task == result.task; });
        if (!known && result.ok() && std::find(others.begin(), others.end(), result.task) == others.end())
          others.push_back(result.task);
      }
    }
  }
  for (const std::string& task : others) {
    std::vector<std::string> cells = {task == "train" || task == "validation" ? "bpb, " + task : task};
    for (const RunRecord& run : runs) cells.push_back(figure(run.score(task)));
    cells.insert(cells.end(), 4, "–");
    table.rows.push_back(std::move(cells));
  }
  return table;
}

std::optional<ReportTable> core_table(std::span<const RunRecord> runs) {
  ReportTable table{"CORE, accuracy by task", {"task"}, {}};
  std::vector<std::vector<TaskResult>> results;
  std::vector<std::string> tasks;
  for (const RunRecord& run : runs) {
    for (auto newest = run.evaluations.rbegin(); newest != run.evaluations.rend(); ++newest) {
      const std::vector<TaskResult> core = newest->second.of("core");
      if (core.empty()) continue;
      table.head.push_back(run.name);
      for (const TaskResult& result : core) {
        if (std::find(tasks.begin(), tasks.end(), result.task) == tasks.end()) tasks.push_back(result.task);
      }
      results.push_back(core);
      break;
    }
  }
  if (results.empty()) return std::nullopt;
  for (const PublishedCore& model : published_core()) table.head.push_back(model.model);
  for (const std::string& task : tasks) {
    std::vector<std::string> cells = {task};
    for (const auto& core : results) {
      const auto found = std::find_if(core.begin(), core.end(), [&](const TaskResult& result) { return result.task == task; });
      if (found == core.end()) {
        cells.push_back("–");
      } else if (!found->ok()) {
        cells.push_back("failed");
      } else {
        const bool replaced = std::any_of(found->notes.begin(), found->notes.end(),
                                          [](const std::string& note) { return note.starts_with("data file replaced"); });
        cells.push_back(fmt::format("{:.4f}{}", found->value, replaced ? " (other data)" : ""));
      }
    }
    for (const PublishedCore& model : published_core()) {
      const auto found = model.accuracy.find(task);
      cells.push_back(found == model.accuracy.end() ? "–" : fmt::format("{:.4f}", found->second));
    }
    table.rows.push_back(std::move(cells));
  }
  std::vector<std::string> core = {"CORE"};
  for (const auto& one : results) core.push_back(figure(mean_centered(one)));
  for (const PublishedCore& model : published_core()) core.push_back(fmt::format("{:.4f}", model.core));
  table.rows.push_back(std::move(core));
  return table;
}

std::vector<ChartGroup> report_charts(std::span<const RunRecord> runs) {
  struct Axis {
    const char* label;
    std::optional<double> (*of)(const CurvePoint&);
  };
  constexpr std::array kAxes = {
      Axis{"steps", [](const CurvePoint& point) { return std::optional(point.step); }},
      Axis{"tokens", [](const CurvePoint& point) { return point.tokens; }},
      Axis{"FLOPs", [](const CurvePoint& point) { return point.flops; }},
      Axis{"time, minutes",
           [](const CurvePoint& point) { return point.seconds ? std::optional(*point.seconds / 60.0) : std::nullopt; }},
  };
  struct Quantity {
    std::string title, unit;
    std::vector<std::pair<std::string, std::string>> keys;  // of metrics.jsonl, and what they are called
    bool over_all = true;                                   // against every axis
    bool settles = false;                                   // see Chart
  };
  std::vector<Quantity> quantities = {
      {"Loss", "nats a token", {{"loss", "training"}, {"validation_loss", "validation"}}, true, true},
      {"Bits per byte", "bits per byte", {{"bpb", "training"}, {"validation_bpb", "validation"}}, true, true},
      {"Reward", "reward", {{"reward", ""}}},
      {"Accuracy in training", "accuracy", {}},
      {"Learning rate", "multiplier", {{"lr_multiplier", ""}}, false},
      {"Gradient norm", "norm before clipping", {{"grad_norm", ""}}, false, true},
      {"Throughput", "tokens a second", {{"tokens_per_second", ""}}, false},
      {"MFU", "share of the peak", {{"mfu", ""}}, false},
  };
  for (const RunRecord& run : runs) {
    for (const auto& [key, points] : run.curves) {
      const bool accuracy = key.starts_with("pass@") || key.starts_with("accuracy") || key == "core" || key == "chat_core";
      auto& keys = quantities[3].keys;
      const std::pair named{key, accuracy_name(key)};
      if (accuracy && std::find(keys.begin(), keys.end(), named) == keys.end()) keys.push_back(named);
    }
  }
  std::vector<ChartGroup> groups;
  for (const Quantity& quantity : quantities) {
    ChartGroup group{quantity.title, {}};
    for (const Axis& axis : kAxes) {
      Chart chart{fmt::format("{} over {}", quantity.title, axis.label), axis.label, quantity.unit, {}, quantity.settles};
      for (const RunRecord& run : runs) {
        for (const auto& [key, name] : quantity.keys) {
          const auto found = run.curves.find(key);
          if (found == run.curves.end() || (key == "loss" && !has_loss(run))) continue;
          ChartLine line{name.empty()       ? run.name
                         : runs.size() == 1 ? name
                                            : run.name + ", " + name,
                         {},
                         !quantity.over_all ? false : key != "loss" && key != "bpb" && key != "reward"};
          for (const CurvePoint& point : found->second) {
            if (const auto x = axis.of(point)) line.points.push_back({*x, point.value});
          }
          if (!line.points.empty()) chart.lines.push_back(std::move(line));
        }
      }
      if (!chart.lines.empty()) group.charts.push_back(std::move(chart));
      if (!quantity.over_all) break;
    }
    if (!group.charts.empty()) groups.push_back(std::move(group));
  }
  return groups;
}

}  // namespace nanochat
