#pragma once
// For tests of stages only: a folder of its own, a tokenizer of bytes, and what a run leaves behind.

#include <ATen/ops/equal.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/run_folder.h"
#include "core/interrupt.h"
#include "core/testing.h"
#include "model/gpt.h"
#include "tokenizer/load.h"
#include "tokenizer/tokenizer.h"

namespace nanochat::testing {

inline std::string base64_of_byte(int byte) {
  static const std::string kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  return {kDigits[static_cast<std::size_t>(byte >> 2)], kDigits[static_cast<std::size_t>((byte & 3) << 4)], '=', '='};
}

// The 256 bytes and the special tokens, also left in folder/bytes.tiktoken.
inline std::shared_ptr<const Tokenizer> byte_tokenizer(const std::filesystem::path& folder) {
  std::string ranks;
  for (int byte = 0; byte < 256; ++byte) ranks += fmt::format("{} {}\n", base64_of_byte(byte), byte);
  write_text(folder / "bytes.tiktoken", ranks);
  return load_tokenizer(folder / "bytes.tiktoken");
}

inline void expect_same_weights(Gpt& one, Gpt& other) {
  ASSERT_EQ(one.parameters().size(), other.parameters().size());
  for (std::size_t i = 0; i < one.parameters().size(); ++i) {
    EXPECT_TRUE(at::equal(one.parameters()[i].value, other.parameters()[i].value)) << one.parameters()[i].name;
  }
}

// A run on one thread of the CPU, in a fresh folder; every checkpoint is kept. The derived fixture gives the rest.
template <typename Config>
class StageTest : public ::testing::Test {
 protected:
  StageTest() {
    reset_interrupt_for_testing();
    config_.output_dir = folder_ / "run";
    config_.runtime = {.device = "cpu", .dtype = "float32", .threads = 1};
    config_.keep_last = 0;
    config_.workers = 1;
  }

  // Rows of the run's metrics.jsonl, and one figure of those that have it.
  std::vector<nlohmann::json> metrics() const {
    std::vector<nlohmann::json> rows;
    std::ifstream file(config_.output_dir / "metrics.jsonl");
    for (std::string line; std::getline(file, line);) rows.push_back(nlohmann::json::parse(line));
    return rows;
  }
  std::vector<double> figures(const char* key) const {
    std::vector<double> found;
    for (const nlohmann::json& row : metrics()) {
      if (row.contains(key)) found.push_back(row.at(key));
    }
    return found;
  }

  std::string log() const {
    std::ifstream file(config_.output_dir / "log.txt");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // As if the run had been killed when its last checkpoint was that of this step.
  void forget_after(std::int64_t step) const {
    const std::filesystem::path checkpoints = config_.output_dir / "checkpoints";
    for (const std::int64_t saved : RunFolder::checkpoint_steps(config_.output_dir)) {
      if (saved > step) std::filesystem::remove_all(RunFolder::checkpoint_path(config_.output_dir, saved));
    }
    std::filesystem::remove(checkpoints / "latest");
    std::filesystem::create_directory_symlink(RunFolder::checkpoint_path("", step).filename(), checkpoints / "latest");
  }

  TemporaryDirectory folder_;
  std::shared_ptr<const Tokenizer> tokenizer_ = byte_tokenizer(folder_.path());
  Config config_;
};

}  // namespace nanochat::testing
