#include "evaluation/report/chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <spdlog/fmt/fmt.h>

namespace nanochat {
namespace {

constexpr double kWidth = 640, kHeight = 300, kLeft = 78, kRight = 16, kTop = 16, kBottom = 52;
constexpr std::size_t kDrawnPoints = 240;  // a line
constexpr int kColours = 6;                // classes c0 to c5 of the style sheet

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  void take(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  void widen() {
    if (!(low <= high)) *this = {0.0, 1.0};
    if (low == high) {
      const double half = low == 0.0 ? 0.5 : 0.05 * std::abs(low);
      low -= half;
      high += half;
    }
  }
};

// Means of consecutive groups: the curve rather than the noise.
std::vector<ChartPoint> thin(const std::vector<ChartPoint>& points) {
  const std::size_t size = (points.size() + kDrawnPoints - 1) / kDrawnPoints;
  if (size <= 1) return points;
  std::vector<ChartPoint> means;
  for (std::size_t begin = 0; begin < points.size(); begin += size) {
    const std::size_t end = std::min(points.size(), begin + size);
    ChartPoint mean;
    for (std::size_t i = begin; i < end; ++i) {
      mean.x += points[i].x / static_cast<double>(end - begin);
      mean.y += points[i].y / static_cast<double>(end - begin);
    }
    means.push_back(mean);
  }
  return means;
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&': escaped += "&amp;"; break;
      case '<': escaped += "&lt;"; break;
      case '>': escaped += "&gt;"; break;
      case '"': escaped += "&quot;"; break;
      default: escaped += c;
    }
  }
  return escaped;
}

std::vector<double> axis_ticks(double low, double high, int count) {
  const double raw = (high - low) / count;
  if (!(raw > 0.0) || !std::isfinite(raw)) return {low};
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10.0 * power;
  for (const double multiple : {1.0, 2.0, 2.5, 5.0}) {
    if (multiple * power >= raw * (1.0 - 1e-9)) {
      step = multiple * power;
      break;
    }
  }
  std::vector<double> ticks;
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i)
    ticks.push_back(i * step == 0.0 ? 0.0 : i * step);
  return ticks;
}

std::string axis_number(double value) {
  const double size = std::abs(value);
  if (size >= 1e15) return fmt::format("{:.3g}", value);
  for (const auto& [unit, suffix] : {std::pair{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}}) {
    if (size >= unit) return fmt::format("{:.4g}{}", value / unit, suffix);
  }
  return fmt::format("{:.4g}", value);
}

std::string render_svg(const Chart& chart) {
  Range x_range, y_range;
  std::vector<std::vector<ChartPoint>> drawn;
  for (const ChartLine& line : chart.lines) {
    drawn.push_back(line.marked ? line.points : thin(line.points));
    const auto& points = drawn.back();
    for (const ChartPoint& point : line.points) x_range.take(point.x);
    const std::size_t skip = chart.settles && points.size() > 3 ? std::max<std::size_t>(1, points.size() / 10) : 0;
    for (std::size_t i = skip; i < points.size(); ++i) y_range.take(points[i].y);
  }
  x_range.widen();
  y_range.widen();
  const double margin = 0.05 * (y_range.high - y_range.low);
  if (y_range.low < 0.0 || y_range.low - margin >= 0.0) y_range.low -= margin;
  y_range.high += margin;
  const auto x = [&](double value) {
    return kLeft + (kWidth - kLeft - kRight) * (value - x_range.low) / (x_range.high - x_range.low);
  };
  const auto y = [&](double value) {
    const double clamped = std::clamp(value, y_range.low, y_range.high);
    return kTop + (kHeight - kTop - kBottom) * (y_range.high - clamped) / (y_range.high - y_range.low);
  };

  std::string svg = fmt::format("<svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n", kWidth, kHeight,
                                escape_html(chart.title));
  for (const double tick : axis_ticks(y_range.low, y_range.high, 5)) {
    svg += fmt::format("<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", kLeft, kWidth - kRight,
                       y(tick), y(tick));
    svg += fmt::format("<text class=\"tick\" x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", kLeft - 8, y(tick) + 4,
                       axis_number(tick));
  }
  for (const double tick : axis_ticks(x_range.low, x_range.high, 6)) {
    svg += fmt::format("<text class=\"tick\" x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", x(tick),
                       kHeight - kBottom + 20, axis_number(tick));
  }
  svg += fmt::format("<line class=\"axis\" x1=\"{0}\" x2=\"{1}\" y1=\"{2}\" y2=\"{2}\"/>\n", kLeft, kWidth - kRight,
                     kHeight - kBottom);
  svg += fmt::format("<text class=\"label\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                     (kLeft + kWidth - kRight) / 2, kHeight - 8, escape_html(chart.x_label));
  svg += fmt::format("<text class=\"label\" transform=\"translate(13 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
                     (kTop + kHeight - kBottom) / 2, escape_html(chart.y_label));
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    const ChartLine& line = chart.lines[i];
    const int colour = static_cast<int>(i) % kColours;
    std::string path;
    for (const ChartPoint& point : drawn[i]) path += fmt::format("{:.1f},{:.1f} ", x(point.x), y(point.y));
    if (!path.empty()) path.pop_back();
    svg += fmt::format(
        "<polyline class=\"line c{}\" data-name=\"{}\" data-points=\"{}\" points=\"{}\"><title>{}</title></polyline>\n", colour,
        escape_html(line.name), line.points.size(), path, escape_html(line.name));
    for (const ChartPoint& point : drawn[i]) {
      if (!line.marked && drawn[i].size() > 1) break;
      svg += fmt::format(
          "<circle class=\"dot c{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\"><title>{}: {:.6g} at {}</title></circle>\n", colour,
          x(point.x), y(point.y), escape_html(line.name), point.y, axis_number(point.x));
    }
  }
  return svg + "</svg>\n";
}

}  // namespace nanochat
