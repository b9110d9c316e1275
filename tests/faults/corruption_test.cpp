// A thousand corruptions of every file format: an error or a whole result, never a crash, a hang over five seconds, or
// memory beyond twice the file and 64 MiB. Where a checksum guards a file, what is read equals what was written: shards,
// training_state.json, and by its SHA-256 list every file of a checkpoint.
#include <algorithm>
#include <cstdlib>

#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "checkpoint/testing.h"
#include "core/atomic_file.h"
#include "core/random.h"
#include "core/sha256.h"
#include "core/testing_corruption.h"
#include "data/batches/loader.h"
#include "formats.h"
#include "model/config.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat::testing {
namespace {

namespace fs = std::filesystem;

constexpr int kRounds = 1000;
constexpr std::uint64_t kSeed = 20251123;

CorruptionReport expect_harmless(const CorruptionSubject& subject) {
  const CorruptionReport report = check_corruptions(subject, kRounds, kSeed);
  EXPECT_EQ(report.failures, "");
  EXPECT_EQ(report.refused + report.equal + report.different, kRounds);
  EXPECT_GT(report.refused, kRounds / 10) << "the damage did not damage";
  ::testing::Test::RecordProperty("refused", report.refused);
  ::testing::Test::RecordProperty("equal", report.equal);
  ::testing::Test::RecordProperty("different", report.different);
  std::printf("%-50s %4d refused, %4d equal, %4d otherwise whole; slowest %.0f ms\n", subject.name.c_str(), report.refused,
              report.equal, report.different, 1e3 * report.slowest_seconds);
  return report;
}

class Corruption : public ::testing::TestWithParam<std::string> {};

TEST_P(Corruption, OfAFileInMemory) {
  const Format& format = format_of(GetParam());
  expect_harmless({format.name, format.sample(), format.read, format.detects_all});
}

std::vector<std::string> names() {
  std::vector<std::string> result;
  for (const Format& format : formats()) result.push_back(format.name);
  return result;
}
INSTANTIATE_TEST_SUITE_P(Formats, Corruption, ::testing::ValuesIn(names()), [](const auto& format) { return format.param; });

std::string digest_of(const at::Tensor& tensor) {
  return sha256_hex({static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()});
}

// All that resuming reads of a checkpoint.
std::string read_checkpoint(const fs::path& folder) {
  const LoadedModel loaded = load_model(folder, at::kFloat);
  std::string all = std::to_string(loaded.model->config().sequence_len) + std::to_string(loaded.model->config().rope_base);
  for (const Parameter& parameter : loaded.model->parameters()) all += parameter.name + digest_of(parameter.value);
  NamedTensors state = {{"m", at::zeros_like(loaded.model->parameters()[0].value)}};
  load_optimizer_state(folder, state);
  all += digest_of(state[0].second) + loaded.training_state.dump();
  return sha256_hex(all + (loaded.tokenizer == nullptr ? "none" : loaded.tokenizer->fingerprint()));
}

class CheckpointCorruption : public ::testing::TestWithParam<std::string> {
 protected:
  CheckpointCorruption() {
    const auto tokenizer = GetParam() == "tokenizer.model" ? small_sentencepiece() : byte_tokenizer(temporary_.path());
    GptConfig config = small_config();
    config.vocab_size = tokenizer->vocab_size();
    const Gpt model = small_model(config);
    CheckpointContents contents;
    contents.config = &config;
    contents.weights = model_weights(model);
    contents.optimizer = {{"m", model.parameters()[0].value}};
    contents.tokenizer = tokenizer.get();
    contents.training_state = {{"step", 3}, {"stage", "pretrain"}, {"loop", {{"smooth_loss", 1.5}}}};
    save_checkpoint(folder_, contents);
  }
  TemporaryDirectory temporary_;
  fs::path folder_ = temporary_ / "checkpoint";
};

TEST_P(CheckpointCorruption, IsFoundOrHarmless) {
  const fs::path file = folder_ / GetParam();
  const auto read = [&](const std::string& bytes) {
    write_text(file, bytes);
    return read_checkpoint(folder_);
  };
  expect_harmless({"checkpoint/" + GetParam(), read_file(file), read, /*detects_all=*/true});
}

// The folder of another program has no list of hashes: whatever its numbers claim, an error or a model.
TEST_P(CheckpointCorruption, WithoutHashesIsAnErrorOrAModel) {
  if (GetParam() == "training_state.json") GTEST_SKIP() << "the file that is left out here";
  fs::remove(folder_ / "training_state.json");
  const fs::path file = folder_ / GetParam();
  const auto read = [&](const std::string& bytes) {
    write_text(file, bytes);
    return read_checkpoint(folder_);
  };
  expect_harmless({"checkpoint without hashes/" + GetParam(), read_file(file), read});
}

INSTANTIATE_TEST_SUITE_P(Files, CheckpointCorruption,
                         ::testing::Values("model.safetensors", "optimizer.rank-0-of-1.safetensors", "config.json",
                                           "training_state.json", "tokenizer.json", "tokenizer.model"),
                         [](const auto& file) {
                           std::string name = file.param;
                           std::replace_if(
                               name.begin(), name.end(), [](char c) { return std::isalnum(c) == 0; }, '_');
                           return name;
                         });

// What training reads of a damaged shard: an error, or the batches of the whole one.
TEST(ShardCorruption, NeverReachesTraining) {
  const TemporaryDirectory folder;
  const std::string original = format_of("shard").sample();
  const auto read = [&](const std::string& bytes) {
    write_text(folder / "train-00000.tok", bytes);
    LoaderOptions options;
    options.rows = 2;
    options.sequence_len = 8;
    options.prefetch = 0;
    options.loop = false;
    const auto loader = make_shard_loader({folder.path().string()}, 999, sha256_hex("tokenizer"), options, nullptr);
    std::string all;
    for (TokenBatch batch; loader->next(batch);) {
      for (const std::int32_t id : batch.inputs) all += std::to_string(id) + ",";
    }
    return all;
  };
  expect_harmless({"shard in training", original, read, /*detects_all=*/true});
}

// The harness itself: what it is to find, it finds.
TEST(CorruptionHarness, FindsWhatItLooksFor) {
  const auto failures = [](std::function<std::string(const std::string&)> read, bool detects_all = false) {
    CorruptionLimits limits;
    limits.seconds = 0.5;
    return check_corruptions({"x", std::string(100, 'a'), std::move(read), detects_all}, 3, 1, limits).failures;
  };
  const auto damaged = [](const std::string& bytes) { return bytes != std::string(100, 'a'); };
  EXPECT_EQ(failures([](const std::string&) { return "same"; }), "");
  EXPECT_NE(failures([](const std::string& bytes) { return bytes; }, true).find("was read as something else"),
            std::string::npos);
  EXPECT_NE(failures([&](const std::string& bytes) -> std::string {
              if (damaged(bytes)) std::abort();
              return "";
            }).find("round 2: crashed"),
            std::string::npos);
  EXPECT_NE(failures([&](const std::string& bytes) -> std::string {
              for (volatile bool on = damaged(bytes); on;) {
              }
              return "";
            }).find("hangs"),
            std::string::npos);
  EXPECT_NE(failures([&](const std::string& bytes) -> std::string {
              if (damaged(bytes)) throw std::runtime_error("untyped");
              return "";
            }).find("threw what is no Error: untyped"),
            std::string::npos);
  EXPECT_NE(failures([&](const std::string& bytes) {
              std::string memory(damaged(bytes) ? std::size_t{66} << 20 : 1, 'x');
              return memory.substr(memory.size() / 2, 1);
            }).find("too much memory"),
            std::string::npos);
  EXPECT_EQ(failures([&](const std::string& bytes) {
              std::string memory(damaged(bytes) ? std::size_t{50} << 20 : 1, 'x');
              return memory.substr(memory.size() / 2, 1);
            }),
            "");
}

}  // namespace
}  // namespace nanochat::testing
