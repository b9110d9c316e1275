#pragma once
// `nanochat data prepare`: text to token shards, on all cores, with memory that does not grow with the corpus.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/documents.h"

namespace nanochat {

class ProgressReporter;
class Tokenizer;

struct PrepareOptions {
  std::int64_t validation_every = 20;          // every 20th document is validation; 0: none
  std::int64_t tokens_per_shard = 100'000'000;
  int workers = 0;                             // 0: all
  ReaderOptions reader;
};

struct PrepareResult {
  std::uint64_t train_documents = 0, validation_documents = 0;
  std::uint64_t train_tokens = 0, validation_tokens = 0;
  std::uint64_t text_bytes = 0;
  std::vector<std::filesystem::path> shards;
};

// Writes train-00000.tok, ..., validation-00000.tok, ... and manifest.json into `output`. The same input gives the
// same shards whatever the number of workers. Throws DataError, IoError.
PrepareResult prepare_shards(const std::vector<std::string>& paths, const Tokenizer& tokenizer,
                             const std::filesystem::path& output, const PrepareOptions& options, ProgressReporter& progress);

}  // namespace nanochat
