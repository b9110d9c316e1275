#pragma once
// For the implementation of pretrain() only: which loader and tokenizer the options mean.

#include <memory>

#include <nlohmann/json_fwd.hpp>

#include "data/loader.h"
#include "tokenizer/tokenizer.h"
#include "training/pretrain/pretrain_options.h"

namespace nanochat {

class TrainingData {
 public:
  // Tells token shards from text. Throws ConfigError when a tokenizer is needed and none is given, DataError when the
  // data is missing or was made with another tokenizer.
  explicit TrainingData(const PretrainConfig& config);

  const std::shared_ptr<const Tokenizer>& tokenizer() const { return tokenizer_; }
  std::unique_ptr<Loader> training(const nlohmann::json& position) const;
  // Once through the held-out documents, packed as the reference does, so that figures compare. `rows` a batch.
  std::unique_ptr<Loader> validation(std::int64_t rows) const;

 private:
  std::unique_ptr<Loader> open(const LoaderOptions& options, const nlohmann::json& position) const;
  const PretrainConfig& config_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool shards_ = false;
};

}  // namespace nanochat
