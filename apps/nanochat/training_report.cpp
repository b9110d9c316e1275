#include "training_report.h"

#include <cmath>
#include <iostream>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/format.h"

namespace nanochat::cli {

nlohmann::json training_json(const TrainingResult& result, const std::string& score) {
  nlohmann::json json{{"steps", result.steps},
                      {"parameters", result.parameters},
                      {"training_seconds", result.training_seconds},
                      {"checkpoint_seconds", result.checkpoint_seconds},
                      {"tokens_per_second", result.tokens_per_second},
                      {"interrupted", result.interrupted},
                      {"checkpoint", result.checkpoint.string()}};
  if (std::isfinite(result.minimum_score)) {
    json.update({{"validation_" + score, result.score}, {"minimum_validation_" + score, result.minimum_score}});
  }
  return json;
}

void print_training(const TrainingResult& result, const std::string& score, const std::filesystem::path& output_dir) {
  std::cout << fmt::format("{} steps, {} parameters, {} of training, {} tokens/s\n", with_commas(result.steps),
                           with_commas(result.parameters), human_duration(result.training_seconds),
                           with_commas(std::llround(result.tokens_per_second)));
  if (std::isfinite(result.minimum_score)) {
    std::cout << fmt::format("validation {} {:.4f}, at best {:.4f}\n", score, result.score, result.minimum_score);
  }
  if (!result.checkpoint.empty()) std::cout << "checkpoint " << result.checkpoint.string() << '\n';
  if (result.interrupted)
    std::cout << fmt::format("interrupted; continue with --resume latest --output-dir {}\n", output_dir.string());
}

}  // namespace nanochat::cli
