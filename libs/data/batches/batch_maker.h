#pragma once
// The packings of loader.h, without threads: from documents to batches and positions.

#include <cstdint>
#include <memory>
#include <stop_token>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/batches/batch.h"
#include "data/batches/loader.h"
#include "data/batches/packing.h"
#include "data/batches/token_source.h"

namespace nanochat {

// Position of the next batch.
struct LoaderPosition {
  std::int64_t epoch = 0;
  std::uint64_t document = 0;  // kBestFit: the first of the window; kBestFitCrop: the next to join the buffer
  std::uint64_t offset = 0;    // kBestFit: rows of the window already used; kStream: tokens of the document, BOS first
  std::int64_t last_epoch = 0; // of the last row before it
  // kBestFitCrop: epoch and number of the documents in the buffer, ascending.
  std::vector<std::pair<std::int64_t, std::uint64_t>> waiting = {};
};

nlohmann::json to_json(const LoaderPosition& position, const LoaderOptions& options);
// Null is the beginning. Throws DataError for anything that to_json() does not write for this packing.
LoaderPosition parse_position(const nlohmann::json& json, const LoaderOptions& options);

class BatchMaker {
 public:
  virtual ~BatchMaker() = default;
  // Replaces `batch`. False at the end if not looping, or if `stop` is requested. Throws DataError.
  virtual bool make(TokenBatch& batch, const std::stop_token& stop) = 0;
  // The position after the last batch.
  virtual LoaderPosition position() const = 0;
};

std::unique_ptr<BatchMaker> make_batch_maker(std::unique_ptr<TokenSource> source, std::int32_t bos_id,
                                             const LoaderOptions& options, const LoaderPosition& position);

}  // namespace nanochat
