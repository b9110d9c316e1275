#pragma once
// A run, or several beside each other, as a page to show to a colleague: one HTML file that needs nothing else, no
// script either, light or dark as the reader's system is; and the same in Markdown. Pure functions of what read_run()
// found.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "evaluation/report/chart.h"
#include "evaluation/report/run_record.h"

namespace nanochat {

struct ReportOptions {
  double hourly_rate = 0.0;  // dollars an hour of the machine; 0: not known
};

std::string report_html(std::span<const RunRecord> runs, const ReportOptions& options);
std::string report_markdown(std::span<const RunRecord> runs, const ReportOptions& options);

// What both show.

// A quantity over training, against steps, tokens, FLOPs and time, as far as the runs tell them.
struct ChartGroup {
  std::string title;
  std::vector<Chart> charts;  // the first against steps
};
std::vector<ChartGroup> report_charts(std::span<const RunRecord> runs);

struct ReportTable {
  std::string title;
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
  std::string note = {};  // below it, what a reader has to know; may be empty
};
ReportTable summary_table(std::span<const RunRecord> runs, const ReportOptions& options);
// CORE and the chat tasks: a column a run, then the reference's d20 after each of its stages.
ReportTable evaluation_table(std::span<const RunRecord> runs);
// Accuracy in each task of CORE beside GPT-2; nullopt when no run has one.
std::optional<ReportTable> core_table(std::span<const RunRecord> runs);

}  // namespace nanochat
