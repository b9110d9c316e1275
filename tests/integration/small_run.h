#pragma once
// A tiny trained run that the tests of one executable share: corpus, tokenizer, shards, model.

#include <filesystem>
#include <string>
#include <vector>

#include "core/testing.h"
#include "program.h"

namespace nanochat::testing {

struct SmallRun {
  TemporaryDirectory folder;
  std::filesystem::path corpus = folder / "toy/toy.jsonl", tokenizer = folder / "tokenizer", shards = folder / "shards",
                        run = folder / "run";

  std::vector<std::string> pretrain_arguments(const std::filesystem::path& output) const {
    return {"pretrain",
            "--data-dir",
            shards.string(),
            "--output-dir",
            output.string(),
            "--recipe",
            "nanochat-2025-12",
            "--depth",
            "2",
            "--sequence-len",
            "64",
            "--device-batch-size",
            "8",
            "--total-batch-size",
            "1024",
            "--num-iterations",
            "12",
            "--eval-tokens",
            "2048",
            "--eval-interval",
            "-1",
            "--threads",
            "1",
            "--quiet"};
  }

  // Empty when all went well, else what failed.
  std::string failure;
  SmallRun() {
    for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
             {"data", "toy", "--output-dir", (folder / "toy").string(), "--bytes", "300000", "--quiet"},
             {"tokenizer", "train", "--data-dir", corpus.string(), "--vocab-size", "512", "--output-dir", tokenizer.string(),
              "--quiet"},
             {"data", "prepare", "--data-dir", corpus.string(), "--tokenizer", tokenizer.string(), "--output-dir",
              shards.string(), "--quiet"},
             pretrain_arguments(run)}) {
      const ProgramResult result = run_program(arguments);
      if (result.exit_code != 0) {
        failure = arguments[0] + ": " + result.err;
        return;
      }
    }
  }
};

// Made on first use, removed at exit.
inline SmallRun& small_run() {
  static SmallRun run;
  return run;
}

}  // namespace nanochat::testing
