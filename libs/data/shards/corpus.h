#pragma once
// What is known of a corpus without reading it.

#include <cstdint>
#include <string>
#include <vector>

#include "data/text/documents.h"

namespace nanochat {

// Tells it from others, wherever it lies: the checksums of token shards in their order, or the names and sizes of files of
// text. Throws DataError as expand_paths, and for damaged shards.
std::string corpus_fingerprint(const std::vector<std::string>& paths);

// Whether there is a validation split: shards of one, or, in text of which every `validation_every`-th document is held
// out (0: none), so many documents. Throws DataError as expand_paths, and for text that cannot be read.
bool has_validation(const std::vector<std::string>& paths, std::int64_t validation_every, const ReaderOptions& reader = {});

}  // namespace nanochat
