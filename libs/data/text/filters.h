#pragma once
// Documents that a corpus is better without: too short or long, repetitive, mostly symbols, or told before. Applied in
// the order of the corpus, so that what remains does not depend on threads; docs/algorithms-data.md has the measures.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/text/documents.h"

namespace nanochat {

struct FilterOptions {
  std::int64_t min_bytes = 0;     // shorter documents are dropped
  std::int64_t max_bytes = 0;     // longer ones are; 0: no limit
  double max_symbols = 1.0;       // share of characters other than letters, digits and white space; 1: any
  double max_repetition = 1.0;    // share of the text that was in the document before; 1: any
  bool drop_duplicates = false;   // the same bytes as an earlier document (128-bit hash)
  bool drop_near_duplicates = false;  // most of an earlier document's text (MinHash)
  std::uint64_t seed = 42;        // of the hashes
  int threads = 0;                // that measure documents; 0: all

  bool any() const;
};

nlohmann::json to_json(const FilterOptions& options);  // what decides which documents remain

struct FilterExample {
  std::uint64_t document = 0;     // its number in the corpus, from 0
  std::string beginning;          // of its text
  double value = 0;               // its size or share, or the number of the document that it repeats
};

struct FilterCount {
  std::string name;               // "too_short", "too_long", "symbols", "repetition", "duplicate", "near_duplicate"
  std::uint64_t documents = 0, text_bytes = 0;
  std::vector<FilterExample> examples;  // the first few
};

struct FilterReport {
  std::uint64_t documents = 0, text_bytes = 0;            // read
  std::uint64_t kept_documents = 0, kept_text_bytes = 0;
  std::vector<FilterCount> dropped;                       // of every filter in use, in the order they are applied
};

nlohmann::json to_json(const FilterReport& report);

// Hands on the documents that pass every filter in use; a document counts for the first that it fails. Memory of
// drop_duplicates: some 40 bytes a document kept; of drop_near_duplicates: some 350.
class FilteredDocuments : public DocumentReader {
 public:
  // Throws ConfigError for options out of range.
  FilteredDocuments(std::unique_ptr<DocumentReader> reader, const FilterOptions& options);
  ~FilteredDocuments() override;

  bool next(std::string& document) override;  // false, without an error, also when none passes
  std::uint64_t bytes_read() const override;
  std::uint64_t bytes_total() const override;
  const FilterReport& report() const;  // once next() has returned false

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanochat
