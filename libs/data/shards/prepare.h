#pragma once
// `nanochat data prepare`: tokenizes text into shards on all cores; memory does not grow with the corpus.
//
// The output folder has train-00000.tok, ..., validation-00000.tok, ..., the tokenizer (so a training run needs only this
// folder), filters.json if there are filters, and manifest.json, which is written last. During the preparation it has
// preparing.json instead, with the options, the input and the list of finished shards. Shards appear completely or not at all.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/text/document_mixture.h"
#include "data/text/documents.h"
#include "data/text/filters.h"

namespace nanochat {

class ProgressReporter;
class Tokenizer;

struct PrepareOptions {
  std::int64_t validation_every = 20;  // every 20th document is validation; 0: none
  std::int64_t tokens_per_shard = 100'000'000;  // a shard ends with the document that reaches this
  int workers = 0;  // 0: all
  bool resume = false;  // continue an interrupted preparation of the same text
  bool overwrite = false;  // replace another preparation in the output folder; before resume
  ReaderOptions reader;
  DocumentMixtureOptions mixture;  // with weights, each of the paths is a source
  FilterOptions filters;  // `threads` is taken from workers
};

struct PrepareResult {
  std::uint64_t train_documents = 0, validation_documents = 0;
  std::uint64_t train_tokens = 0, validation_tokens = 0;
  std::uint64_t text_bytes = 0;
  std::vector<std::filesystem::path> shards;
  FilterReport filtered;  // of this call; empty without filters, and if everything was finished before
  bool interrupted = false;  // an interrupt was requested (core/interrupt.h); there are complete shards and no manifest
};

// Writes the folder. The same input gives the same files, whatever the number of workers and whether or not the
// command was interrupted or killed and resumed. Finished shards with the correct SHA-256 are kept, others are
// written again. `resume` starts a new preparation if there is nothing to resume, and does nothing if all is done.
// Throws ConfigError with the differences if the weights do not fit the paths, if the folder holds another
// preparation without `overwrite`, or if another process writes the folder; TokenizerError if the tokenizer has no
// BOS token; DataError if there is no text (before writing), or if the text of finished shards has changed; IoError.
PrepareResult prepare_shards(const std::vector<std::string>& paths, const Tokenizer& tokenizer,
                             const std::filesystem::path& output, const PrepareOptions& options, ProgressReporter& progress);

}  // namespace nanochat
