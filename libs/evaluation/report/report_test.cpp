#include "evaluation/report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::ThrowsMessage;

TEST(AxisTicks, AreRound) {
  EXPECT_THAT(axis_ticks(0, 100, 5), ElementsAre(0, 20, 40, 60, 80, 100));
  EXPECT_THAT(axis_ticks(0.13, 0.4, 5),
              ElementsAre(::testing::DoubleEq(0.2), ::testing::DoubleEq(0.3), ::testing::DoubleEq(0.4)));
  EXPECT_EQ(axis_ticks(1, 1, 5).size(), 1U);
  EXPECT_EQ(axis_number(1500), "1.5k");
  EXPECT_EQ(axis_number(2.5e15), "2.5e+15");
  EXPECT_EQ(axis_number(0.25), "0.25");
}

TEST(RenderSvg, DrawsEveryLineInsideAndThinsLongOnes) {
  Chart chart{"T <1>", "steps", "loss", {{"a & b", {}, false}, {"few", {{0, 5}, {10, 4}}, true}}};
  for (int i = 0; i < 5000; ++i) chart.lines[0].points.push_back({static_cast<double>(i), 5.0 - 0.0001 * i});
  const std::string svg = render_svg(chart);
  EXPECT_THAT(svg, HasSubstr("aria-label=\"T &lt;1&gt;\""));
  EXPECT_THAT(svg, HasSubstr("data-name=\"a &amp; b\" data-points=\"5000\""));
  EXPECT_THAT(svg, HasSubstr("data-name=\"few\" data-points=\"2\""));
  EXPECT_LT(svg.size(), 20000U);
  EXPECT_THAT(svg, HasSubstr(">steps</text>"));
  EXPECT_THAT(render_svg({"flat", "x", "y", {{"one", {{1, 2}}, false}}}), HasSubstr("<circle"));
  EXPECT_THAT(render_svg({"none", "x", "y", {}}), Not(HasSubstr("nan")));
}

class Report : public ::testing::Test {
 protected:
  Report() {
    std::string lines;
    for (int step = 0; step < 30; ++step) {
      lines += nlohmann::json{{"step", step},
                              {"loss", 3.0 - 0.1 * step},
                              {"bpb", 2.0 - 0.05 * step},
                              {"step_ms", 100},
                              {"tokens", 10 * (step + 1)},
                              {"grad_norm", 1},
                              {"mfu", step == 7 ? 1.75 : 0.5},
                              {"tokens_per_second", 100},
                              {"lr_multiplier", 1}}
                   .dump() +
               "\n";
    }
    lines +=
        "{\"step\":30,\"validation_bpb\":0.9,\"bad\":null}\nnot json\n{\"step\":30,\"samples\":\"one <two>\\nthree | "
        "four\"}\n{\"step\":31,\"lo";
    make("base", lines);
    testing::write_text(folder_.path() / "base/config.json", "{\"depth\":2,\"data_dir\":[\"x\"]}");
    EvaluationResult evaluation;
    TaskResult task;
    task.suite = "core";
    task.task = "copa";
    task.baseline = 0.5;
    take_accuracy(task, {75, 100});
    TaskResult arc = task;
    arc.suite = "chat";
    arc.task = "arc-easy";
    TaskResult own = arc;
    own.task = "my-task";
    evaluation.results = {task, arc, own};
    std::filesystem::create_directories(folder_.path() / "base/eval/step-000030");
    testing::write_text(folder_.path() / "base/eval/step-000030/eval.json", to_json(evaluation).dump());
    make("sft", "{\"step\":0,\"loss\":1,\"step_ms\":50,\"tokens_per_second\":200,\"accuracy\":0.25}\n");
  }
  void make(const std::string& name, const std::string& metrics) {
    std::filesystem::create_directories(folder_.path() / name);
    testing::write_text(folder_.path() / name / "metrics.jsonl", metrics);
  }
  RunRecord read(const std::string& name) const { return read_run(folder_.path() / name); }
  testing::TemporaryDirectory folder_;
};

TEST_F(Report, SaysWhereARunWasTrained) {
  RunRecord run = read("base");
  run.environment = {{"device", "CPU, 2 threads"}, {"processor", "a fast one"}};
  const std::string text = report_markdown({&run, 1}, {});
  EXPECT_THAT(text, HasSubstr("| trained on | CPU, 2 threads |"));
  EXPECT_THAT(text, HasSubstr("| processor | a fast one |"));
}

TEST_F(Report, ShowsNoLossOfRl) {
  make("rl", "{\"step\":0,\"loss\":-0.5,\"reward\":0.25}\n");
  RunRecord run = read("rl");
  run.stage = "rl";
  const std::string text = report_markdown({&run, 1}, {});
  EXPECT_THAT(text, Not(HasSubstr("-0.5")));
  EXPECT_THAT(text, HasSubstr("| reward, last | 0.2500 |"));
}

TEST_F(Report, ReadsARun) {
  const RunRecord run = read("base");
  EXPECT_EQ(run.stage, "pretrain");
  EXPECT_EQ(run.curves.at("loss").size(), 30U);
  EXPECT_DOUBLE_EQ(*run.curves.at("loss").back().tokens, 300);
  EXPECT_DOUBLE_EQ(run.training_seconds, 3.0);
  EXPECT_FALSE(run.curves.at("loss").back().flops) << "no checkpoint says what a token costs";
  EXPECT_DOUBLE_EQ(*run.last("validation_bpb"), 0.9);
  ASSERT_EQ(run.samples.size(), 2U);
  EXPECT_EQ(run.samples[1].text, "three | four");
  EXPECT_DOUBLE_EQ(*run.score("CORE"), 0.5);
  EXPECT_DOUBLE_EQ(*run.score("arc-easy"), 0.75);
  EXPECT_FALSE(run.score("ChatCORE"));
  EXPECT_DOUBLE_EQ(*read("sft").curves.at("loss").back().tokens, 10) << "by the rate, where none are counted";
  EXPECT_THAT([&] { read("."); }, ThrowsMessage<DataError>(HasSubstr("no metrics.jsonl")));
}

TEST_F(Report, HasAChartOfEachQuantityOverEachAxisThatIsKnown) {
  const std::vector<RunRecord> runs = {read("base"), read("sft")};
  std::vector<std::string> titles;
  for (const ChartGroup& group : report_charts(runs)) {
    for (const Chart& chart : group.charts) titles.push_back(chart.title);
  }
  EXPECT_THAT(titles,
              ElementsAre("Loss over steps", "Loss over tokens", "Loss over time, minutes", "Bits per byte over steps",
                          "Bits per byte over tokens", "Bits per byte over time, minutes", "Accuracy in training over steps",
                          "Accuracy in training over tokens", "Accuracy in training over time, minutes",
                          "Learning rate over steps", "Gradient norm over steps", "Throughput over steps", "MFU over steps"));
  EXPECT_EQ(report_charts(runs).front().charts.front().lines.size(), 2U);
}

TEST_F(Report, PutsFiguresBesideTheReferences) {
  const std::vector<RunRecord> runs = {read("base")};
  const ReportTable table = evaluation_table(runs);
  EXPECT_THAT(table.head, ElementsAre("metric", "BASE", "d20 BASE", "d20 MID", "d20 SFT", "d20 RL"));
  EXPECT_THAT(table.rows.front(), ElementsAre("CORE", "0.5000", "0.2219", "–", "–", "–"));
  EXPECT_THAT(table.rows.back(), ElementsAre("my-task", "0.7500", "–", "–", "–", "–"));
  const auto core = core_table(runs);
  ASSERT_TRUE(core);
  EXPECT_THAT(core->rows.front(), ElementsAre("copa", "0.7500", "0.6000", ::testing::_, ::testing::_, ::testing::_));
  EXPECT_FALSE(core_table(std::vector<RunRecord>{read("sft")}));
  const ReportTable summary = summary_table(runs, {.hourly_rate = 3600.0});
  EXPECT_THAT(summary.rows, ::testing::Contains(ElementsAre("cost, estimated", "$3.00")));
}

TEST_F(Report, IsOnePageWithoutScriptsAndEscapesWhatAModelWrote) {
  const std::vector<RunRecord> runs = {read("base"), read("sft")};
  const std::string html = report_html(runs, {});
  EXPECT_THAT(html, HasSubstr("one &lt;two&gt;"));
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("http")));
  EXPECT_THAT(html, HasSubstr("prefers-color-scheme: dark"));
  const std::string markdown = report_markdown(runs, {});
  EXPECT_THAT(markdown, HasSubstr("# base, sft: nanochat report"));
  EXPECT_THAT(markdown, HasSubstr("| CORE | 0.5000 | – | 0.2219 |"));
  EXPECT_THAT(markdown, HasSubstr("three \\| four"));
}

}  // namespace
}  // namespace nanochat
