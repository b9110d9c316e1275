#include "checkpoint/internal/tensorboard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>

#include "checkpoint/testing_tensorboard.h"
#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

// RFC 3720, appendix B.4.
TEST(Crc32c, KnownValues) {
  std::string ascending;
  for (int i = 0; i < 32; ++i) ascending.push_back(static_cast<char>(i));
  for (const auto crc : {crc32c, testing::slow_crc32c}) {
    EXPECT_EQ(crc(std::string(32, '\0')), 0x8A9136AAu);
    EXPECT_EQ(crc(std::string(32, '\xff')), 0x62A8AB43u);
    EXPECT_EQ(crc(ascending), 0x46DD794Eu);
    EXPECT_EQ(crc("123456789"), 0xE3069283u);
    EXPECT_EQ(crc(""), 0u);
  }
}

RC_GTEST_PROP(Crc32c, EqualsTheDefinition, (const std::string& bytes)) {
  RC_ASSERT(crc32c(bytes) == testing::slow_crc32c(bytes));
  RC_ASSERT(masked_crc32c(bytes) == testing::slow_masked_crc32c(bytes));
}

TEST(EventFile, ReadsBack) {
  const testing::TemporaryDirectory folder;
  const double before = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  {
    EventFile file(folder.path(), std::nullopt);
    file.add_scalars(0, {{"loss", 6.5f}});
    file.add_scalars(300, {{"loss", -1.25f}, {"bpb", std::numeric_limits<float>::quiet_NaN()}});
    file.add_scalars(301, {});
    file.add_scalars(std::int64_t{1} << 40, {{std::string(200, 'x'), 1e30f}});
  }
  const auto files = testing::event_files(folder.path());
  ASSERT_EQ(files.size(), 1u);
  EXPECT_THAT(files[0].filename().string(), MatchesRegex("events\\.out\\.tfevents\\.[0-9]+\\.nanochat"));
  const auto events = testing::read_event_file(files[0]);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].file_version, "brain.Event:2");
  EXPECT_GE(events[0].wall_time, before);
  EXPECT_LT(events[0].wall_time, before + 60);
  EXPECT_EQ(events[1].step, 0);
  EXPECT_EQ(events[1].scalars.at("loss"), 6.5f);
  EXPECT_EQ(events[2].step, 300);
  EXPECT_EQ(events[2].scalars.at("loss"), -1.25f);
  EXPECT_TRUE(std::isnan(events[2].scalars.at("bpb")));
  EXPECT_EQ(events[3].step, std::int64_t{1} << 40);
  EXPECT_EQ(events[3].scalars.at(std::string(200, 'x')), 1e30f);
  for (const auto& event : events) EXPECT_FALSE(event.session_start);
}

// As docs/formats/run-folder.md shows it.
TEST(EventFile, FirstRecordByteForByte) {
  const testing::TemporaryDirectory folder;
  { EventFile file(folder.path(), std::nullopt); }
  const std::string bytes = read_file(testing::event_files(folder.path()).at(0));
  ASSERT_EQ(bytes.size(), 40u);
  EXPECT_EQ(bytes.substr(0, 13), std::string("\x18\0\0\0\0\0\0\0\xA3\x7F\x4B\x22\x09", 13));
  EXPECT_EQ(bytes.substr(21, 15),
            "\x1A\x0D"
            "brain.Event:2");
}

TEST(EventFile, EachRunOfAProcessHasItsOwnLaterFile) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "events.out.tfevents.9999999990.other", "");
  { EventFile first(folder.path(), std::nullopt); }
  { EventFile second(folder.path(), 41); }
  const auto files = testing::event_files(folder.path());
  ASSERT_EQ(files.size(), 3u);
  EXPECT_EQ(files[1].filename(), "events.out.tfevents.9999999991.nanochat");
  EXPECT_EQ(files[2].filename(), "events.out.tfevents.9999999992.nanochat");
  const auto events = testing::read_event_file(files[2]);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_TRUE(events[1].session_start) << "tells TensorBoard to forget steps from 41 on";
  EXPECT_EQ(events[1].step, 41);
}

TEST(EventFile, MissingFolderIsAnIoError) {
  const testing::TemporaryDirectory folder;
  EXPECT_THROW(EventFile(folder / "absent", std::nullopt), IoError);
}

// Writing to /dev/full fails as a full disk does.
TEST(AppendFile, FullDiskIsAnIoError) {
  AppendFile file("/dev/full", false);
  try {
    file.append("x");
    ADD_FAILURE() << "no error";
  } catch (const IoError& error) {
    EXPECT_THAT(error.what(), HasSubstr("/dev/full: cannot be written"));
  }
}

TEST(AppendFile, Appends) {
  const testing::TemporaryDirectory folder;
  { AppendFile(folder / "a", true).append("one "); }
  EXPECT_THROW(AppendFile(folder / "a", true), IoError) << "exists";
  { AppendFile(folder / "a", false).append("two"); }
  EXPECT_EQ(read_file(folder / "a"), "one two");
}

}  // namespace
}  // namespace nanochat
