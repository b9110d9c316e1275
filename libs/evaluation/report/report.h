#pragma once
// A report of one or several runs as a self-contained HTML file without
// scripts, light or dark as the reader's system is, and the same
// content in Markdown. Pure functions of the result of read_run().

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "evaluation/report/chart.h"
#include "evaluation/report/run_record.h"

namespace nanochat {

struct ReportOptions {
  double hourly_rate = 0.0;  // dollars per hour of the machine; 0: not known
};

std::string report_html(std::span<const RunRecord> runs, const ReportOptions& options);
std::string report_markdown(std::span<const RunRecord> runs, const ReportOptions& options);

// Common content of both formats.

// A quantity during training over steps, tokens, FLOPs and time, as far as the runs have them.
struct ChartGroup {
  std::string title;
  std::vector<Chart> charts;  // the first over steps
};
std::vector<ChartGroup> report_charts(std::span<const RunRecord> runs);

struct ReportTable {
  std::string title;
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
  std::string note = {};  // text below it; may be empty
};
ReportTable summary_table(std::span<const RunRecord> runs, const ReportOptions& options);
// CORE and the chat tasks: one column per run, then the reference's d20 after each of its stages.
ReportTable evaluation_table(std::span<const RunRecord> runs);
// Accuracy on each task of CORE beside GPT-2; nullopt if no run has one.
std::optional<ReportTable> core_table(std::span<const RunRecord> runs);

}  // namespace nanochat
