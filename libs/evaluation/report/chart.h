#pragma once
// Line charts as SVG text, for a page with the style sheet of report.h.
// Colours are classes, so one drawing works in light and dark. Pure functions.

#include <cstdint>
#include <string>
#include <vector>

namespace nanochat {

struct ChartPoint {
  double x = 0.0, y = 0.0;
};

struct ChartLine {
  std::string name;
  std::vector<ChartPoint> points;  // in the order of x
  bool marked = false;             // few points: draw a dot on each
};

struct Chart {
  std::string title, x_label, y_label;
  std::vector<ChartLine> lines;
  bool settles = false;  // for losses: the y axis shows most of the values; the first tenth of a line may leave it
};

// 640 x 300 units, scaled by the page. Every line is a <polyline> with data-name,
// data-points (the number of points) and a <title>. Long lines are drawn as means
// of groups, which keeps the page small. Axes have labels and round ticks.
std::string render_svg(const Chart& chart);

// About `count` round numbers in [low, high].
std::vector<double> axis_ticks(double low, double high, int count);
std::string axis_number(double value);  // 1500 -> "1.5k", 2e15 -> "2e15", 0.25

std::string escape_html(const std::string& text);

}  // namespace nanochat
