#include "checkpoint/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RunFolderTest : public ::testing::Test {
 protected:
  void add(const RunFolder& run, std::int64_t step) {
    fs::create_directories(run.checkpoint_path(step));
    testing::write_text(run.checkpoint_path(step) / "model.safetensors", std::to_string(step));
  }
  testing::TemporaryDirectory temporary_;
  fs::path path_ = temporary_ / "runs/a";
};

TEST_F(RunFolderTest, CreatesAndReopens) {
  RunFolder run(path_, false);
  EXPECT_EQ(run.path(), path_);
  EXPECT_TRUE(fs::is_directory(path_ / "checkpoints"));
  run.write_config({{"depth", 4}});
  EXPECT_EQ(nlohmann::json::parse(read_file(path_ / "config.json")), nlohmann::json({{"depth", 4}}));
  const RunFolder again(path_, true);
  EXPECT_TRUE(fs::exists(path_ / "config.json"));
}

TEST_F(RunFolderTest, RefusesToMixTwoRuns) {
  for (const char* name : {"config.json", "metrics.jsonl"}) {
    const fs::path path = temporary_ / ("with_" + std::string(name));
    fs::create_directory(path);
    testing::write_text(path / name, "{}");
    try {
      RunFolder run(path, false);
      ADD_FAILURE() << "a folder with " << name << " was taken for a new run";
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr("already holds a run (" + std::string(name) + ")"));
      EXPECT_THAT(error.what(), HasSubstr("--resume"));
    }
  }
  fs::create_directory(temporary_ / "other");
  testing::write_text(temporary_ / "other/notes.txt", "x");
  EXPECT_NO_THROW(RunFolder(temporary_ / "other", false)) << "a folder with other things is free";
}

TEST_F(RunFolderTest, FolderThatCannotBeMadeIsAnIoError) {
  testing::write_text(temporary_ / "file", "x");
  EXPECT_THROW(RunFolder(temporary_ / "file", false), IoError);
  EXPECT_THROW(RunFolder(temporary_ / "file/run", true), IoError);
}

TEST_F(RunFolderTest, StepsAreNamedAndSortedByNumber) {
  RunFolder run(path_, false);
  EXPECT_EQ(run.checkpoint_path(100), path_ / "checkpoints/step-000100");
  EXPECT_EQ(run.checkpoint_path(1234567), path_ / "checkpoints/step-1234567");
  EXPECT_TRUE(run.checkpoint_steps().empty());
  EXPECT_TRUE(RunFolder::checkpoint_steps(temporary_ / "absent").empty());
  for (const std::int64_t step : {1000000, 5, 999999, 0}) add(run, step);
  for (const char* other : {"step-7", "step-00000a", "step-", "best", "step--00001", ".step-000003.tmp-1-0"}) {
    fs::create_directory(path_ / "checkpoints" / other);
  }
  testing::write_text(path_ / "checkpoints/step-000009", "a file");
  EXPECT_THAT(run.checkpoint_steps(), ElementsAre(0, 5, 999999, 1000000));
}

TEST_F(RunFolderTest, LatestIsARelativeLinkThatMoves) {
  RunFolder run(path_, false);
  add(run, 10);
  add(run, 20);
  run.mark_latest(10);
  const fs::path link = path_ / "checkpoints/latest";
  EXPECT_EQ(fs::read_symlink(link), "step-000010");
  run.mark_latest(20);
  EXPECT_EQ(read_file(link / "model.safetensors"), "20");
  EXPECT_THROW(run.mark_latest(30), IoError);
  EXPECT_EQ(fs::read_symlink(link), "step-000020");
  fs::rename(path_, temporary_ / "moved");
  EXPECT_EQ(read_file(temporary_ / "moved/checkpoints/latest/model.safetensors"), "20");
}

TEST_F(RunFolderTest, PruningKeepsWhatItMust) {
  RunFolder run(path_, false);
  for (const std::int64_t step : {10, 20, 30, 40, 50}) add(run, step);
  run.mark_latest(10);
  run.prune_checkpoints(0);
  run.prune_checkpoints(-1);
  EXPECT_EQ(run.checkpoint_steps().size(), 5u);
  run.prune_checkpoints(2, {20});
  EXPECT_THAT(run.checkpoint_steps(), ElementsAre(10, 20, 40, 50));
  run.mark_best(40);
  run.mark_latest(50);
  run.prune_checkpoints(1);
  EXPECT_THAT(run.checkpoint_steps(), ElementsAre(40, 50)) << "the best stays";
  EXPECT_EQ(fs::read_symlink(path_ / "checkpoints/best"), "step-000040");
  run.mark_best(50);
  run.prune_checkpoints(1);
  EXPECT_THAT(run.checkpoint_steps(), ElementsAre(50));
  run.prune_checkpoints(9);
  EXPECT_THAT(run.checkpoint_steps(), ElementsAre(50));
  int entries = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(path_ / "checkpoints")) ++entries;
  EXPECT_EQ(entries, 3) << "step-000050, latest and best";
}

TEST_F(RunFolderTest, ResumingRemovesWhatACrashLeft) {
  const fs::path checkpoints = path_ / "checkpoints";
  const auto make = [&](const std::string& name) {
    fs::create_directories(checkpoints / name);
    return checkpoints / name;
  };
  // No process has the number 2^30: Linux ends at 2^22.
  const fs::path dead = make(".step-000010.tmp-1073741824-0"), removed = make(".step-000020.removed");
  const fs::path own = make(".step-000030.tmp-" + std::to_string(::getpid()) + "-0");
  const fs::path alive = make(".step-000040.tmp-" + std::to_string(::getppid()) + "-0"), other = make(".notes");
  const fs::path link = make(".best.tmp-1073741824"), file = path_ / ".config.json.tmp-1073741824-3";
  testing::write_text(file, "{");
  const RunFolder run(path_, true);
  EXPECT_FALSE(fs::exists(link));
  EXPECT_FALSE(fs::exists(file));
  EXPECT_FALSE(fs::exists(dead));
  EXPECT_FALSE(fs::exists(removed));
  EXPECT_FALSE(fs::exists(own)) << "of an earlier process with the same number";
  EXPECT_TRUE(fs::exists(alive));
  EXPECT_TRUE(fs::exists(other));
}

TEST_F(RunFolderTest, ANameIsThatOfARunWhereThereIsNoSuchPath) {
  const fs::path before = fs::current_path();
  fs::current_path(temporary_.path());
  add(RunFolder("runs/first", false), 5);
  EXPECT_EQ(locate_run("first"), "runs/first");
  EXPECT_EQ(locate_run("first/checkpoints/step-000005"), "runs/first/checkpoints/step-000005");
  EXPECT_EQ(locate_run("runs/first"), "runs/first");
  EXPECT_EQ(locate_run("second"), "second") << "neither is there";
  EXPECT_EQ(locate_run(""), "");
  EXPECT_EQ(locate_run("/first"), "/first");
  fs::create_directory("first");
  EXPECT_EQ(locate_run("first"), "first") << "a path comes first";
  EXPECT_EQ(places_of_run("second"), "second, nor runs/second");
  EXPECT_EQ(places_of_run("/second"), "/second");
  fs::current_path(before);
}

}  // namespace
}  // namespace nanochat
