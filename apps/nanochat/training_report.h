#pragma once
// What a stage of training says at its end.

#include <filesystem>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "training/trainer/trainer.h"

namespace nanochat::cli {

// `score`: what a lower value of which is better, as in metrics.jsonl: "bpb".
nlohmann::json training_json(const TrainingResult& result, const std::string& score);
void print_training(const TrainingResult& result, const std::string& score, const std::filesystem::path& output_dir);

}  // namespace nanochat::cli
