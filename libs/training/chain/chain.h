#pragma once
// A chain of commands, from text to a chat model, read from a JSON file. `nanochat run` runs or resumes it.
//
//   {"name": "toy",                                   // the chain's folder: runs/toy, or "output_dir"
//    "hardware": {"name": "two CPU cores", "gpu": false, "flops_per_second": 1.2e11},
//    "steps": [
//      {"name": "corpus", "command": "data toy", "options": {"output_dir": "{run}/corpus", "bytes": 12000000}},
//      {"name": "base", "command": "pretrain", "options": {"data_dir": ["{run}/shards"], "output_dir": "{run}/base", …}},
//      …]}
//
// "{run}" in any string is the chain's folder. An option that is an object, or a list of objects (a mixture), is passed
// on as JSON text. "plan" of a step has values that only its data would tell: see plan.h. Comments (//) are allowed.

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace nanochat {

struct ChainStep {
  std::string name;        // unique
  std::string command;     // "data toy", "pretrain"
  nlohmann::json options;  // as in a --config file of the command, with "{run}" replaced
  nlohmann::json plan;     // an object
};

struct ChainHardware {
  std::string name;
  bool gpu = true;
  double flops_per_second = 0.0;  // effective rate of training; 0: unknown
};

struct Chain {
  std::string name;
  std::filesystem::path folder;
  ChainHardware hardware;
  std::vector<ChainStep> steps;
};

// Throws ConfigError with file, step and key.
Chain load_chain(const std::filesystem::path& file);

// The finished steps, in the chain's folder (chain.json). A finished step is recorded with its options.
class ChainRecord {
 public:
  explicit ChainRecord(const Chain& chain);
  // Throws ConfigError with the options if the step was done with others.
  bool done(const ChainStep& step) const;
  void mark_done(const ChainStep& step, double seconds);  // throws IoError
  std::filesystem::path options_file(const ChainStep& step) const;

 private:
  std::filesystem::path folder_;
  nlohmann::json record_;
};

// Options to add to the step's command so that it resumes an earlier attempt; empty for a new start.
std::vector<std::string> resume_flags(const ChainStep& step);

}  // namespace nanochat
