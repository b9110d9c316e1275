#pragma once
// For the implementation of pretrain() only: loaders and tokenizer from the options.

#include <memory>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "data/batches/loader.h"
#include "tokenizer/tokenizer.h"
#include "training/pretrain/pretrain_options.h"

namespace nanochat {

class TrainingData {
 public:
  // Tells token shards from text. Throws ConfigError when a tokenizer is needed and none is given, DataError when the
  // data is missing or was made with another tokenizer.
  // rank, world_size: of LoaderOptions, for every loader.
  explicit TrainingData(const PretrainConfig& config, int rank = 0, int world_size = 1);

  const std::shared_ptr<const Tokenizer>& tokenizer() const { return tokenizer_; }
  std::unique_ptr<Loader> training(const nlohmann::json& position) const;
  // The reason why no document is held out, for a warning; empty if some are.
  std::string reason_without_validation() const;
  // One pass, packed as in the reference so that scores are comparable. `rows` rows of sequence_len per batch.
  std::unique_ptr<Loader> validation(std::int64_t rows, std::int64_t sequence_len) const;
  std::string fingerprint() const;  // corpus_fingerprint() of the data

 private:
  std::unique_ptr<Loader> open(LoaderOptions options, const nlohmann::json& position) const;
  const PretrainConfig& config_;
  int rank_, world_size_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool shards_ = false;
};

}  // namespace nanochat
