// A full disk, a read-only folder, too little memory, weights that do not fit: the right message and exit code, nothing
// half-written, and what stood before still stands.
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "small_run.h"

namespace nanochat::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using Arguments = std::vector<std::string>;

constexpr int kOther = 1, kUsage = 2, kCheckpoint = 4;

// In a mount namespace of its own this process may mount what nobody else sees: as root, or else as the root of a user
// namespace where the system allows that.
bool may_mount() {
  static const bool able = [] {
    const unsigned user = ::getuid(), group = ::getgid();
    if (::unshare(CLONE_NEWNS) != 0) {
      if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
      std::ofstream("/proc/self/setgroups") << "deny";
      std::ofstream("/proc/self/uid_map") << "0 " << user << " 1";
      std::ofstream("/proc/self/gid_map") << "0 " << group << " 1";
    }
    return ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  }();
  return able;
}

// A disk of a few bytes.
class SmallDisk {
 public:
  SmallDisk(fs::path path, const std::string& size) : path_(std::move(path)) {
    fs::create_directories(path_);
    if (::mount("tmpfs", path_.c_str(), "tmpfs", 0, ("size=" + size).c_str()) != 0) {
      throw std::runtime_error("cannot mount a tmpfs at " + path_.string());
    }
  }
  ~SmallDisk() { ::umount2(path_.c_str(), MNT_DETACH); }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  void remount(const std::string& size, bool read_only = false) const {
    const unsigned long flags = MS_REMOUNT | (read_only ? static_cast<unsigned long>(MS_RDONLY) : 0);
    if (::mount(nullptr, path_.c_str(), nullptr, flags, ("size=" + size).c_str()) != 0) {
      throw std::runtime_error("cannot remount " + path_.string());
    }
  }

 private:
  fs::path path_;
};

class Fault : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(small_run().failure, ""); }

  static Arguments with(Arguments arguments, const Arguments& more) {
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  // One line on standard error, nothing on standard output.
  static void expect(const ProgramResult& result, int exit_code, const ::testing::Matcher<std::string>& message) {
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    EXPECT_THAT(result.err, message);
  }
  static void expect_nothing_half_written(const fs::path& folder) {
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      EXPECT_FALSE(entry.path().filename().string().starts_with('.')) << entry.path();
    }
  }
  static nlohmann::json state_of(const fs::path& checkpoint) {
    return nlohmann::json::parse(read_file(checkpoint / "training_state.json"));
  }
  Arguments prepare(const fs::path& output) const {
    return {"data",
            "prepare",
            "--data-dir",
            small_run().corpus,
            "--tokenizer",
            small_run().tokenizer,
            "--output-dir",
            output,
            "--tokens-per-shard",
            "4000",
            "--quiet"};
  }

  TemporaryDirectory folder_;
  fs::path disk_ = folder_ / "disk";
};

#define NEEDS_MOUNTS() \
  if (!may_mount()) GTEST_SKIP() << "needs root or user namespaces to mount a small disk"

TEST_F(Fault, DataPrepareOnAFullDiskGoesOnWhenThereIsRoom) {
  NEEDS_MOUNTS();
  ASSERT_EQ(run_program(prepare(folder_ / "whole")).exit_code, 0);
  const SmallDisk disk(disk_, "200k");
  const fs::path output = disk_ / "shards";
  expect(run_program(prepare(output)), kOther, HasSubstr("No space left on device"));
  expect_nothing_half_written(output);
  EXPECT_FALSE(fs::exists(output / "manifest.json"));
  const auto state = nlohmann::json::parse(read_file(output / "preparing.json"));
  EXPECT_GT(state.at("shards").size(), 0u) << "the test wants a disk with room for some shards";
  disk.remount("10m");
  const ProgramResult resumed = run_program(with(prepare(output), {"--resume"}));
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  for (const auto& entry : fs::directory_iterator(folder_ / "whole")) {
    EXPECT_EQ(read_file(entry.path()), read_file(output / entry.path().filename())) << entry.path();
  }
}

TEST_F(Fault, AFailedSaveLeavesTheCheckpointBeforeAndTheRunGoesOn) {
  NEEDS_MOUNTS();
  for (const char* async : {"--async-save", "--no-async-save"}) {
    const SmallDisk disk(disk_, "8m");  // a checkpoint has 5 MB
    const fs::path run = disk_ / "run";
    const Arguments arguments = with(small_run().pretrain_arguments(run), {"--checkpoint-interval", "4", async});
    expect(run_program(arguments), kOther,
           AllOf(HasSubstr("No space left on device"), HasSubstr("the last good checkpoint is"), HasSubstr("step-000004")));
    EXPECT_EQ(fs::read_symlink(run / "checkpoints/latest"), "step-000004");
    expect_nothing_half_written(run);
    const ProgramResult verified = run_program({"info", run, "--verify"});
    EXPECT_EQ(verified.exit_code, 0) << verified.err;
    disk.remount("40m");
    const ProgramResult resumed = run_program(with(arguments, {"--resume", "latest"}));
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
    EXPECT_EQ(state_of(run / "checkpoints/latest").at("sha256").at("model.safetensors"),
              state_of(small_run().run / "checkpoints/latest").at("sha256").at("model.safetensors"));
  }
}

TEST_F(Fault, NoRoomForTheFirstCheckpointLeavesNone) {
  NEEDS_MOUNTS();
  const SmallDisk disk(disk_, "3m");
  const fs::path run = disk_ / "run";
  expect(run_program(small_run().pretrain_arguments(run)), kOther,
         AllOf(HasSubstr("No space left on device"), HasSubstr("there is no checkpoint yet")));
  EXPECT_TRUE(fs::is_empty(run / "checkpoints"));
  expect_nothing_half_written(run);
}

TEST_F(Fault, OtherCommandsOnAFullDisk) {
  NEEDS_MOUNTS();
  const SmallDisk disk(disk_, "16k");
  expect(run_program({"data", "toy", "--output-dir", disk_ / "toy", "--bytes", "1000000", "--quiet"}), kOther,
         HasSubstr("No space left on device"));
  expect(run_program({"tokenizer", "train", "--data-dir", small_run().corpus, "--vocab-size", "400", "--output-dir",
                      disk_ / "tokenizer", "--quiet"}),
         kOther, HasSubstr("No space left on device"));
  expect_nothing_half_written(disk_);
}

TEST_F(Fault, AReadOnlyFolder) {
  NEEDS_MOUNTS();
  const SmallDisk disk(disk_, "40m");
  fs::copy(small_run().run, disk_ / "run", fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  disk.remount("40m", /*read_only=*/true);
  const auto refused = HasSubstr("Read-only file system");
  expect(run_program({"data", "toy", "--output-dir", disk_ / "toy", "--bytes", "1000", "--quiet"}), kOther, refused);
  expect(run_program({"tokenizer", "train", "--data-dir", small_run().corpus, "--vocab-size", "400", "--output-dir",
                      disk_ / "tokenizer", "--quiet"}),
         kOther, refused);
  expect(run_program(prepare(disk_ / "shards")), kOther, refused);
  expect(run_program(small_run().pretrain_arguments(disk_ / "new")), kOther, refused);
  expect(run_program(with(small_run().pretrain_arguments(disk_ / "run"), {"--resume", "latest"})), kOther, refused);
  EXPECT_EQ(run_program({"infer", disk_ / "run", "--prompt", "The", "--max-tokens", "2"}).exit_code, 0) << "reading is enough";
}

class FaultyWeights : public Fault {
 protected:
  // Exchanges text of the same length in the header of the weights of a copy.
  ProgramResult infer_after(const std::string& from, const std::string& to) const {
    const fs::path copy = folder_ / "checkpoint";
    fs::remove_all(copy);
    fs::copy(small_run().run / "checkpoints/step-000012", copy, fs::copy_options::recursive);
    std::string bytes = read_file(copy / "model.safetensors");
    const std::size_t at = bytes.find(from);
    EXPECT_TRUE(at < 10000 && from.size() == to.size()) << from;
    write_text(copy / "model.safetensors", bytes.replace(at, from.size(), to));
    return run_program({"infer", copy, "--prompt", "The", "--max-tokens", "2"});
  }
};

TEST_F(FaultyWeights, OfAnotherTypeShapeOrName) {
  const std::string q = "\"model.layers.1.self_attn.q_proj.weight\":{\"dtype\":\"F32\",\"shape\":[128,128]";
  expect(infer_after(q, "\"model.layers.1.self_attn.q_proj.weight\":{\"dtype\":\"I32\",\"shape\":[128,128]"), kCheckpoint,
         AllOf(HasSubstr("model.layers.1.self_attn.q_proj.weight holds I32"), HasSubstr("expected F32, BF16 or F16")));
  expect(infer_after("mlp.fc1.weight\":{\"dtype\":\"F32\",\"shape\":[512,128]",
                     "mlp.fc1.weight\":{\"dtype\":\"F32\",\"shape\":[128,512]"),
         kCheckpoint, AllOf(HasSubstr("mlp.fc1.weight has shape (128, 512)"), HasSubstr("asks for (512, 128)")));
  expect(infer_after("model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.x_proj"), kCheckpoint,
         HasSubstr("tensor model.layers.1.self_attn.q_proj.weight is missing"));
  expect(infer_after("\"shape\":[512,128]", "\"shape\":[999,128]"), kCheckpoint, HasSubstr("its shape (999, 128) needs"));
}

#if !defined(__SANITIZE_ADDRESS__)
// Limits of the address space, in MiB.
class OutOfMemory : public Fault {
 protected:
  static ProgramResult run_with(const Arguments& words, std::uint64_t megabytes) {
    try {
      return Program(words, {.address_space_bytes = megabytes << 20}).wait();
    } catch (const std::runtime_error&) {  // too little for the dynamic linker
      return {};
    }
  }
  // What the program needs before it has done anything: its libraries.
  static std::uint64_t libraries() {
    static const std::uint64_t found = [] {
      std::uint64_t least = 64, most = std::uint64_t{1} << 16;
      while (most - least > 8) {
        const std::uint64_t middle = (least + most) / 2;
        (run_with({"info"}, middle).exit_code == 0 ? most : least) = middle;
      }
      return most;
    }();
    return found;
  }
  // Under a falling limit a command works, or says that memory ran out and what to lower; it never crashes and never
  // says anything else.
  static void expect_advice(const Arguments& arguments) {
    const ::testing::Matcher<std::string> message = AllOf(HasSubstr("memory"), AnyOf(HasSubstr("lower"), HasSubstr("raise")));
    std::uint64_t least = libraries(), most = libraries() + 2048;
    ASSERT_EQ(run_with(arguments, most).exit_code, 0) << run_with(arguments, most).err;
    int refused = 0;
    while (most - least > 4) {
      const std::uint64_t middle = (least + most) / 2;
      const ProgramResult result = run_with(arguments, middle);
      if (result.exit_code == 0) {
        most = middle;
        continue;
      }
      least = middle;
      ++refused;
      EXPECT_TRUE(result.exit_code == kOther || result.exit_code == kUsage) << result.exit_code << ": " << result.err;
      EXPECT_THAT(result.err, message) << "with " << middle << " MiB";
    }
    EXPECT_GT(refused, 0);
    std::printf("%s needs %llu MiB beyond the %llu of the libraries\n", arguments[0].c_str(),
                static_cast<unsigned long long>(most - libraries()), static_cast<unsigned long long>(libraries()));
  }
};

TEST_F(OutOfMemory, InGenerationSaysWhatToLower) {
  expect_advice({"infer", small_run().run, "--prompt", "The", "--max-tokens", "2", "--threads", "1"});
}

TEST_F(OutOfMemory, InTrainingSaysWhatItNeeds) {
  const Arguments arguments = with(small_run().pretrain_arguments(folder_ / "run"), {"--depth", "12"});
  const ProgramResult result = run_with(arguments, libraries() + 1024);
  expect(result, kUsage,
         AllOf(HasSubstr("training needs about"), HasSubstr("is available"),
               AnyOf(HasSubstr("--device-batch-size"), HasSubstr("lower"))));
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}
#endif

}  // namespace
}  // namespace nanochat::testing
