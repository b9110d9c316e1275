#pragma once
// Documents of several sources, mixed by shares of the text. The same sources and weights give the same order
// of documents on every machine: the next document comes from the source that is furthest behind its share of
// the bytes so far (the largest-deficit rule of weighted round robin); among equal ones, from the first.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/text/documents.h"

namespace nanochat {

struct DocumentMixtureOptions {
  // One for each source, > 0, of any sum: shares of the bytes of text. Empty: no mixture, sources one after the other.
  std::vector<double> weights;
  // false: the mixture ends when the first source ends; the shares hold to the end and nothing is repeated.
  // true: sources repeat until each has ended once.
  bool until_all = false;
};

// Throws ConfigError unless there is one positive, finite weight per source.
void check_weights(const std::vector<double>& weights, std::size_t sources);

// Sources are lists of files, none empty. With until_all, standard input and pipes are copied to temporary files, so that
// they can begin anew. bytes_total() is an estimate by the weights, which bytes_read() does not exceed.
std::unique_ptr<DocumentReader> open_document_mixture(std::vector<std::vector<std::filesystem::path>> sources,
                                                      const DocumentMixtureOptions& mixture, const ReaderOptions& options);

}  // namespace nanochat
