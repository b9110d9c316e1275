#include "training/pretrain/training_data.h"

#include <filesystem>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "data/rows/paths.h"
#include "data/shards/corpus.h"
#include "tokenizer/load.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

// `nanochat data prepare` leaves the tokenizer in the folder of the shards.
fs::path tokenizer_beside(const std::string& path) {
  const fs::path folder = fs::is_directory(path) ? fs::path(path) : fs::path(path).parent_path();
  return fs::exists(folder / "tokenizer.json") ? folder : fs::path();
}

}  // namespace

TrainingData::TrainingData(const PretrainConfig& config, int rank, int world_size)
    : config_(config), rank_(rank), world_size_(world_size) {
  if (config.data_dir.empty()) throw ConfigError("--data-dir is missing: name token shards or text to train on");
  shards_ = names_shards(config.data_dir.front());
  for (const std::string& path : config.data_dir) {
    if (names_shards(path) != shards_) {
      throw ConfigError(fmt::format("--data-dir mixes token shards and text: {} is {}, {} is not", config.data_dir.front(),
                                    shards_ ? "token shards" : "text", path));
    }
  }
  fs::path tokenizer = config.tokenizer;
  if (tokenizer.empty() && shards_) tokenizer = tokenizer_beside(config.data_dir.front());
  if (tokenizer.empty()) {
    throw ConfigError(
        "--tokenizer is missing: name a folder that `nanochat tokenizer train` made, or use token shards with a tokenizer "
        "beside them");
  }
  tokenizer_ = load_tokenizer(tokenizer, {.bos_token = config.bos_token});
}

std::unique_ptr<Loader> TrainingData::open(LoaderOptions options, const nlohmann::json& position) const {
  options.rank = rank_;
  options.world_size = world_size_;
  if (shards_) {
    return make_shard_loader(config_.data_dir, tokenizer_->bos_id(), tokenizer_->fingerprint(), options, position);
  }
  return make_text_loader(config_.data_dir, tokenizer_, config_.validation_every, options, position,
                          {.text_column = config_.text_column});
}

std::unique_ptr<Loader> TrainingData::training(const nlohmann::json& position) const {
  LoaderOptions options;
  options.rows = config_.device_batch_size;
  options.sequence_len = config_.sequence_len;
  options.packing = config_.packing == "stream"          ? Packing::kStream
                    : config_.packing == "best-fit-crop" ? Packing::kBestFitCrop
                                                         : Packing::kBestFit;
  options.workers = config_.workers;
  options.seed = config_.seed;
  return open(options, position);
}

std::string TrainingData::reason_without_validation() const {
  if (has_validation(config_.data_dir, config_.validation_every, {.text_column = config_.text_column})) return "";
  if (shards_) return "the token shards have no validation split; `nanochat data prepare --validation-every N` makes one";
  if (config_.validation_every == 0) return "--validation-every is 0";
  return fmt::format("--validation-every is {0}, and there are fewer than {0} documents; a lower number holds some out",
                     config_.validation_every);
}

std::string TrainingData::fingerprint() const { return corpus_fingerprint(config_.data_dir); }

std::unique_ptr<Loader> TrainingData::validation(std::int64_t rows, std::int64_t sequence_len) const {
  LoaderOptions options;
  options.rows = rows;
  options.sequence_len = sequence_len;
  options.packing = Packing::kStream;
  options.split = Split::kValidation;
  options.workers = config_.workers;
  options.loop = false;
  return open(options, nullptr);
}

}  // namespace nanochat
