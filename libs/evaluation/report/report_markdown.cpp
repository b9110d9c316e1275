#include <algorithm>

#include <spdlog/fmt/fmt.h>

#include "evaluation/report/report.h"

namespace nanochat {
namespace {

constexpr std::size_t kShownPoints = 9;  // of a curve

std::string cell(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  std::string escaped;
  for (const char c : text) escaped += c == '|' ? std::string("\\|") : std::string(1, c);
  return escaped;
}

std::string row_markdown(const std::vector<std::string>& cells) {
  std::string line = "|";
  for (const std::string& text : cells) line += fmt::format(" {} |", cell(text));
  return line + "\n";
}

std::string table_markdown(const ReportTable& table) {
  std::string text = fmt::format("## {}\n\n{}|---|", table.title, row_markdown(table.head));
  for (std::size_t i = 1; i < table.head.size(); ++i) text += "---:|";
  text += "\n";
  for (const auto& row : table.rows) text += row_markdown(row);
  text += "\n";
  return table.note.empty() ? text : text + table.note + "\n\n";
}

// Evenly chosen figures of each line, first and last among them.
std::string chart_markdown(const Chart& chart) {
  std::string text = fmt::format("### {}\n\n", chart.title);
  for (const ChartLine& line : chart.lines) {
    std::vector<std::string> x = {chart.x_label}, y = {line.name};
    const std::size_t shown = std::min(kShownPoints, line.points.size());
    for (std::size_t i = 0; i < shown; ++i) {
      const ChartPoint& point = line.points[shown == 1 ? 0 : i * (line.points.size() - 1) / (shown - 1)];
      x.push_back(axis_number(point.x));
      y.push_back(fmt::format("{:.4g}", point.y));
    }
    text += row_markdown(x) + "|---|";
    for (std::size_t i = 0; i < shown; ++i) text += "---:|";
    text += "\n" + row_markdown(y) + "\n";
  }
  return text;
}

}  // namespace

std::string report_markdown(std::span<const RunRecord> runs, const ReportOptions& options) {
  std::string names;
  for (const RunRecord& run : runs) names += (names.empty() ? "" : ", ") + run.name;
  std::string text = fmt::format("# {}: nanochat report\n\n", names);
  text += table_markdown(summary_table(runs, options));
  text += table_markdown(evaluation_table(runs));
  if (const auto core = core_table(runs)) text += table_markdown(*core);
  text += "## Training\n\n";
  for (const ChartGroup& group : report_charts(runs)) text += chart_markdown(group.charts.front());
  for (const RunRecord& run : runs) {
    if (run.samples.empty()) continue;
    text += fmt::format("## Samples of {}, step {}\n\n", run.name, run.samples.front().step);
    for (const RunSample& sample : run.samples) text += fmt::format("> {}\n\n", cell(sample.text));
  }
  for (const RunRecord& run : runs) {
    ReportTable table{fmt::format("Configuration of {}", run.name), {"", ""}, {}};
    for (const nlohmann::json* object : {&run.environment, &run.config}) {
      for (const auto& [key, value] : object->items()) {
        table.rows.push_back({key, value.is_string() ? value.get<std::string>() : value.dump()});
      }
    }
    text += table_markdown(table);
  }
  return text;
}

}  // namespace nanochat
