#pragma once
// Batches of BOS-aligned training rows from token shards or raw text.
//
// Every document begins with BOS. Three packings:
//   kStream   cuts the concatenated documents into B*T+1 tokens a batch, as the reference's
//             tokenizing_distributed_data_loader does (the last token of one batch is not repeated in the next).
//   kBestFit  begins every row with BOS and fills it with the longest waiting document that fits; when none fits, the
//             longest one is cut and its rest waits on, with a BOS of its own. Nothing is discarded or repeated: every
//             token of every document is in exactly one row of an epoch (see packing.h).
//   kBestFitCrop  chooses from a buffer of 1,000 waiting documents. Every row begins with BOS and is filled with the longest
//             that fits. When none fits, the shortest fills the row and the rest of it is discarded, about a third of all
//             tokens. Source: tokenizing_distributed_data_loader_with_state_bos_bestfit of the reference at 92d63d4.
//
// A loader's position is a JSON value taken after a batch; a loader made with it continues with the very next batch,
// whatever was prefetched. It is small, except that kBestFitCrop lists the numbers of the documents in its buffer. Batches do not depend on thread counts. There is one order of batches, of which rank r
// of W gets those numbered r, r+W, r+2W, ...; a position is always behind W batches, and the same for all ranks, so that
// another number of ranks continues the same order. Every rank reads the whole text for this, and tokenizes it where it is
// raw: several ranks do better with token shards.
//
// Best fit packs documents in independent windows (kWindowDocuments, kWindowTokens), so a
// position is only the window's first document and a row. With `shuffle`, the documents of
// shards are permuted in each epoch and the rows of a window are shuffled, both by the seed.
// Raw text cannot be read in any order, so only its rows are shuffled. Without `shuffle`,
// both loaders give the same rows for the same documents. kBestFitCrop shuffles the documents of shards alone, kStream
// nothing.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/batches/batch.h"
#include "data/text/documents.h"

namespace nanochat {

class Tokenizer;

enum class Packing { kStream, kBestFit, kBestFitCrop };
enum class Split { kTrain, kValidation };

struct LoaderOptions {
  std::int64_t rows = 8;  // B, the device batch size
  std::int64_t sequence_len = 2048;  // T
  Packing packing = Packing::kBestFit;
  Split split = Split::kTrain;
  int rank = 0, world_size = 1;
  int workers = 1;  // threads that tokenize raw text (0: all); shards need none
  int prefetch = 4;  // batches made ahead on a thread; 0: made when asked for
  bool loop = true;  // begin a new epoch at the end; otherwise next() returns false
  bool shuffle = true;  // not for kStream
  std::uint64_t seed = 42;
  // Of kBestFitCrop: documents that must wait before one is chosen, and how many are added at a time when there are fewer.
  std::size_t buffer_documents = 1000, refill_documents = 128;
};

// For one thread.
class Loader {
 public:
  virtual ~Loader() = default;
  // The next batch. False at the end when not looping; a last partial batch is dropped. Throws DataError.
  virtual bool next(TokenBatch& batch) = 0;
  // Position after the last batch that next() returned, to be handed to make_*_loader.
  virtual nlohmann::json position() const = 0;
  virtual std::int64_t epoch() const = 0;  // of the last row returned, from 0
};

// Token shards *.tok as `nanochat data prepare` writes them (folders, files or globs); validation-*.tok hold the
// validation split. `position` is null or an object from Loader::position(); one of another sequence_len or seed
// continues at the beginning of the same window. Throws DataError when there is no document for the split, when the tokenizer fingerprint of a shard is not
// `tokenizer_fingerprint` (empty: not checked), or for a position that does not belong to the corpus and packing;
// ConfigError for options out of range.
std::unique_ptr<Loader> make_shard_loader(const std::vector<std::string>& paths, std::int32_t bos_id,
                                          const std::string& tokenizer_fingerprint, const LoaderOptions& options,
                                          const nlohmann::json& position);

// Raw text (see documents.h), tokenized on background threads as it goes. Holds out every
// `validation_every`-th document for Split::kValidation. Errors in the text come from next().
std::unique_ptr<Loader> make_text_loader(const std::vector<std::string>& paths, std::shared_ptr<const Tokenizer> tokenizer,
                                         std::int64_t validation_every, const LoaderOptions& options,
                                         const nlohmann::json& position, const ReaderOptions& reader = {});

}  // namespace nanochat
