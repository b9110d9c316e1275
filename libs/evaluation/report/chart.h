#pragma once
// Line charts as SVG text, for a page that has the style sheet of report.h: colours are classes, so that one drawing
// suits light and dark. Pure functions.

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
  bool marked = false;             // few figures: a dot on each
};

struct Chart {
  std::string title, x_label, y_label;
  std::vector<ChartLine> lines;
  bool settles = false;  // as losses do: the y axis shows the bulk, the first tenth of a line may leave it
};

// 640 x 300 units, scaled by the page. Every line is a <polyline> with data-name and data-points (how many figures it
// stands for) and a <title>; long ones are drawn by means of groups, so that the page stays small. Axes have labels and
// round ticks.
std::string render_svg(const Chart& chart);

// About `count` round numbers in [low, high].
std::vector<double> axis_ticks(double low, double high, int count);
std::string axis_number(double value);  // 1500 -> "1.5k", 2e15 -> "2e15", 0.25

std::string escape_html(const std::string& text);

}  // namespace nanochat
