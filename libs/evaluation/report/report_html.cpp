#include <spdlog/fmt/fmt.h>

#include "evaluation/report/report.h"

namespace nanochat {
namespace {

// Colours after Okabe and Ito (2008), which people who see colours otherwise can tell apart; lighter on dark.
constexpr const char* kStyle = R"css(
:root { color-scheme: light dark; --back: #ffffff; --text: #1f2328; --soft: #59636e; --rule: #d8dee4; --panel: #f6f8fa;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #b58900; --c5: #56b4e9; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --soft: #9198a1; --rule: #30363d; --panel: #151b23;
  --c0: #58a6ff; --c1: #ff9d57; --c2: #3fcf9f; --c3: #e9a3ca; --c4: #e3c04f; --c5: #8ad1f5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px 16px 64px; max-width: 1080px; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 40px 0 12px; } h3 { font-size: 15px; margin: 0 0 8px; }
p.sub { margin: 0; color: var(--soft); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 12px; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--back); }
th { font-weight: 600; } td.other, th.other { color: var(--soft); } tr.mean td { font-weight: 600; }
.grid2 { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 16px; }
.card { background: var(--panel); border: 1px solid var(--rule); border-radius: 8px; padding: 14px; min-width: 0; }
.tabs > input { position: absolute; opacity: 0; } .tabs > label { display: inline-block; padding: 2px 10px; margin: 0 2px 8px 0;
  border-radius: 12px; color: var(--soft); cursor: pointer; font-size: 13px; border: 1px solid transparent; }
.tabs > input:checked + label { color: var(--text); border-color: var(--rule); background: var(--back); }
.tabs > input:focus-visible + label { outline: 2px solid var(--c0); } .tabs > .panel { display: none; }
.tabs > input:nth-of-type(1):checked ~ .panel:nth-of-type(1), .tabs > input:nth-of-type(2):checked ~ .panel:nth-of-type(2),
.tabs > input:nth-of-type(3):checked ~ .panel:nth-of-type(3), .tabs > input:nth-of-type(4):checked ~ .panel:nth-of-type(4) { display: block; }
svg.chart { width: 100%; height: auto; display: block; } .grid { stroke: var(--rule); stroke-width: 1; } .axis { stroke: var(--soft); }
.tick { fill: var(--soft); font-size: 12px; } .label { fill: var(--soft); font-size: 13px; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.line.c0 { stroke: var(--c0); } .line.c1 { stroke: var(--c1); } .line.c2 { stroke: var(--c2); } .line.c3 { stroke: var(--c3); }
.line.c4 { stroke: var(--c4); } .line.c5 { stroke: var(--c5); }
.dot.c0, .key.c0 { fill: var(--c0); background: var(--c0); } .dot.c1, .key.c1 { fill: var(--c1); background: var(--c1); }
.dot.c2, .key.c2 { fill: var(--c2); background: var(--c2); } .dot.c3, .key.c3 { fill: var(--c3); background: var(--c3); }
.dot.c4, .key.c4 { fill: var(--c4); background: var(--c4); } .dot.c5, .key.c5 { fill: var(--c5); background: var(--c5); }
.legend { font-size: 13px; color: var(--soft); margin-top: 6px; } .legend span { margin-right: 14px; white-space: nowrap; }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 5px; }
.sample { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 8px; padding-left: 10px; border-left: 3px solid var(--rule); }
details { margin: 8px 0; } summary { cursor: pointer; } code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; white-space: normal; }
td.value { text-align: left; white-space: normal; }
@media (max-width: 560px) { .tick, .label { font-size: 19px; } .line { stroke-width: 2.6; } th, td { padding: 5px 8px; } }
)css";

std::string table_html(const ReportTable& table) {
  std::string html = fmt::format("<h2>{}</h2>\n<div class=\"scroll\"><table>\n<thead><tr>", escape_html(table.title));
  std::vector<bool> other;
  for (const std::string& cell : table.head) {
    other.push_back(cell.starts_with("d20 ") || cell.starts_with("GPT-2"));
    html += fmt::format("<th{}>{}</th>", other.back() ? " class=\"other\"" : "", escape_html(cell));
  }
  html += "</tr></thead>\n<tbody>\n";
  for (const auto& row : table.rows) {
    html += row.front() == "CORE" || row.front() == "ChatCORE" ? "<tr class=\"mean\">" : "<tr>";
    for (std::size_t i = 0; i < row.size(); ++i) {
      html += fmt::format("<td{}>{}</td>", i < other.size() && other[i] ? " class=\"other\"" : "", escape_html(row[i]));
    }
    html += "</tr>\n";
  }
  html += "</tbody></table></div>\n";
  return table.note.empty() ? html : html + fmt::format("<p class=\"sub\">{}</p>\n", escape_html(table.note));
}

std::string legend_html(const Chart& chart) {
  if (chart.lines.size() < 2) return "";
  std::string html = "<div class=\"legend\">";
  for (std::size_t i = 0; i < chart.lines.size(); ++i) {
    html += fmt::format("<span><i class=\"key c{}\"></i>{}</span>", i % 6, escape_html(chart.lines[i].name));
  }
  return html + "</div>\n";
}

std::string group_html(const ChartGroup& group, std::size_t number) {
  std::string html = fmt::format("<section class=\"card\"><h3>{}</h3>\n", escape_html(group.title));
  if (group.charts.size() == 1) {
    return html + render_svg(group.charts.front()) + legend_html(group.charts.front()) + "</section>\n";
  }
  html += "<div class=\"tabs\">\n";
  for (std::size_t i = 0; i < group.charts.size(); ++i) {
    html += fmt::format("<input type=\"radio\" name=\"t{0}\" id=\"t{0}-{1}\"{2}><label for=\"t{0}-{1}\">{3}</label>\n", number,
                        i, i == 0 ? " checked" : "", escape_html(group.charts[i].x_label));
  }
  for (const Chart& chart : group.charts) {
    html += "<div class=\"panel\">\n" + render_svg(chart) + legend_html(chart) + "</div>\n";
  }
  return html + "</div></section>\n";
}

std::string json_rows(const nlohmann::json& object) {
  std::string html;
  for (const auto& [key, value] : object.items()) {
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    html += fmt::format("<tr><td>{}</td><td class=\"value\"><code>{}</code></td></tr>\n", escape_html(key), escape_html(text));
  }
  return html;
}

std::string samples_html(std::span<const RunRecord> runs) {
  std::string html;
  for (const RunRecord& run : runs) {
    if (run.samples.empty()) continue;
    html += fmt::format("<section class=\"card\"><h3>{}, step {}</h3>\n", escape_html(run.name), run.samples.front().step);
    for (const RunSample& sample : run.samples) html += fmt::format("<p class=\"sample\">{}</p>\n", escape_html(sample.text));
    html += "</section>\n";
  }
  return html.empty() ? "" : "<h2>Samples</h2>\n<div class=\"grid2\">\n" + html + "</div>\n";
}

}  // namespace

std::string report_html(std::span<const RunRecord> runs, const ReportOptions& options) {
  std::string names;
  for (const RunRecord& run : runs) names += (names.empty() ? "" : ", ") + run.name;
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{0}: nanochat report</title>\n"
      "<style>{1}</style>\n</head>\n<body>\n<h1>{0}</h1>\n<p class=\"sub\">nanochat report</p>\n",
      escape_html(names), kStyle);
  html += table_html(summary_table(runs, options));
  html += "<h2>Training</h2>\n<div class=\"grid2\">\n";
  std::size_t number = 0;
  for (const ChartGroup& group : report_charts(runs)) html += group_html(group, number++);
  html += "</div>\n";
  html += table_html(evaluation_table(runs));
  if (const auto core = core_table(runs)) html += table_html(*core);
  html += samples_html(runs);
  html += "<h2>Configuration and environment</h2>\n";
  for (const RunRecord& run : runs) {
    html += fmt::format(
        "<details{}><summary>{}</summary>\n<div class=\"scroll\"><table><tbody>\n{}{}</tbody></table></div></details>\n",
        runs.size() == 1 ? " open" : "", escape_html(run.name), json_rows(run.environment), json_rows(run.config));
  }
  return html + "</body>\n</html>\n";
}

}  // namespace nanochat
