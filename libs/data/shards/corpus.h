#pragma once
// Facts about a corpus without reading it.

#include <cstdint>
#include <string>
#include <vector>

#include "data/text/documents.h"

namespace nanochat {

// Identifies the corpus, wherever it is stored: the checksums of token shards in their order, or
// the names and sizes of text files. Throws DataError as expand_paths, and for damaged shards.
std::string corpus_fingerprint(const std::vector<std::string>& paths);

// True if there is a validation split: shards of one, or a text with at least as many documents as
// `validation_every` (0: none). Throws DataError as expand_paths, and for text that cannot be read.
bool has_validation(const std::vector<std::string>& paths, std::int64_t validation_every, const ReaderOptions& reader = {});

}  // namespace nanochat
