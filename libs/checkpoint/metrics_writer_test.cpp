#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <sstream>

#include <nlohmann/json.hpp>

#include "checkpoint/run_folder.h"
#include "checkpoint/testing_tensorboard.h"
#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;

class MetricsWriterTest : public ::testing::Test {
 protected:
  std::string text() { return read_file(folder_ / "metrics.jsonl"); }
  std::vector<std::int64_t> steps() {
    std::vector<std::int64_t> result;
    std::istringstream stream(text());
    for (std::string line; std::getline(stream, line);) result.push_back(json::parse(line).value("step", -1));
    return result;
  }
  testing::TemporaryDirectory folder_;
};

TEST_F(MetricsWriterTest, WritesALineAtOnce) {
  MetricsWriter writer(folder_.path());
  writer.write(0, {{"loss", 6.25}, {"stage", "pretrain"}, {"tokens", 4096}, {"final", true}});
  EXPECT_EQ(text(), "{\"step\":0,\"final\":true,\"loss\":6.25,\"stage\":\"pretrain\",\"tokens\":4096}\n");
  writer.write(1, {{"loss", std::numeric_limits<double>::quiet_NaN()}, {"text", "\xff"}});
  EXPECT_EQ(text().substr(text().find('\n') + 1), "{\"step\":1,\"loss\":null,\"text\":\"\xef\xbf\xbd\"}\n");
  EXPECT_THROW(writer.write(2, json::array()), c10::Error);
  EXPECT_THAT(steps(), ElementsAre(0, 1));
}

TEST_F(MetricsWriterTest, NumbersGoToTensorBoard) {
  MetricsWriter writer(folder_.path());
  writer.write(7, {{"loss", 6.25}, {"stage", "pretrain"}, {"tokens", 4096}, {"final", true}});
  writer.write(8, {{"stage", "pretrain"}});
  const auto events = testing::read_event_file(testing::event_files(folder_.path()).at(0));
  ASSERT_EQ(events.size(), 2u) << "the version, and one event with numbers";
  EXPECT_EQ(events[1].step, 7);
  EXPECT_EQ(events[1].scalars, (std::map<std::string, float>{{"loss", 6.25f}, {"tokens", 4096.0f}}));
}

TEST_F(MetricsWriterTest, ResumedRunReadsAsOne) {
  {
    MetricsWriter writer(folder_.path());
    for (int step = 0; step < 6; ++step) writer.write(step, {{"loss", 6.0 - step}});
  }
  const std::string uninterrupted = text();
  {
    MetricsWriter writer(folder_.path(), 3);
    EXPECT_THAT(steps(), ElementsAre(0, 1, 2, 3));
    for (int step = 4; step < 6; ++step) writer.write(step, {{"loss", 6.0 - step}});
  }
  EXPECT_EQ(text(), uninterrupted);
  const auto files = testing::event_files(folder_.path());
  ASSERT_EQ(files.size(), 2u);
  const auto resumed = testing::read_event_file(files[1]);
  ASSERT_EQ(resumed.size(), 4u);
  EXPECT_TRUE(resumed[1].session_start);
  EXPECT_EQ(resumed[1].step, 4);
  EXPECT_EQ(resumed[2].step, 4);
}

TEST_F(MetricsWriterTest, ResumingDropsWhatACrashLeft) {
  testing::write_text(folder_ / "metrics.jsonl",
                      "{\"step\":0,\"loss\":1}\n{\"event\":\"note\"}\nnot json\n{\"step\":9}\n{\"step\":1}\n{\"step\":2,\"lo");
  MetricsWriter writer(folder_.path(), 2);
  writer.write(3, json::object());
  EXPECT_THAT(steps(), ElementsAre(0, -1, 1, 3)) << "a line without a step stays";
}

TEST_F(MetricsWriterTest, WithoutResumingNothingIsDropped) {
  testing::write_text(folder_ / "metrics.jsonl", "{\"step\":9}\n");
  MetricsWriter writer(folder_.path());
  writer.write(1, json::object());
  EXPECT_THAT(steps(), ElementsAre(9, 1));
}

TEST_F(MetricsWriterTest, ResumingBeforeTheFirstStepDropsAllSteps) {
  testing::write_text(folder_ / "metrics.jsonl", "{\"step\":0}\n{\"step\":1}\n");
  MetricsWriter writer(folder_.path(), -1);
  writer.write(0, json::object());
  EXPECT_THAT(steps(), ElementsAre(0));
}

TEST_F(MetricsWriterTest, MissingFolderIsAnIoError) {
  EXPECT_THROW(MetricsWriter(folder_ / "absent"), IoError);
  EXPECT_THROW(MetricsWriter(folder_ / "absent", 5), IoError);
}

}  // namespace
}  // namespace nanochat
