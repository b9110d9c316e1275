#pragma once
// Filters that drop documents: too short or long, repetitive, mostly symbols, or duplicates. They apply in the
// order of the corpus, so the result does not depend on threads. docs/algorithms-data.md describes the measures.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/text/documents.h"

namespace nanochat {

struct FilterOptions {
  std::int64_t min_bytes = 0;     // drop shorter documents
  std::int64_t max_bytes = 0;     // drop longer documents; 0: no limit
  double max_symbols = 1.0;       // share of characters other than letters, digits and white space; 1: any
  double max_repetition = 1.0;    // share of the text that repeats earlier text of the document; 1: any
  bool drop_duplicates = false;   // the same bytes as an earlier document (128-bit hash)
  bool drop_near_duplicates = false;  // mostly the text of an earlier document (MinHash)
  std::uint64_t seed = 42;        // random seed of the hashes
  int threads = 0;                // threads that measure documents; 0: all

  bool any() const;
};

nlohmann::json to_json(const FilterOptions& options);  // the options that decide which documents remain

struct FilterExample {
  std::uint64_t document = 0;     // its number in the corpus, from 0
  std::string beginning;          // beginning of its text
  double value = 0;               // its size or share, or the number of the earlier document
};

struct FilterCount {
  std::string name;               // "too_short", "too_long", "symbols", "repetition", "duplicate", "near_duplicate"
  std::uint64_t documents = 0, text_bytes = 0;
  std::vector<FilterExample> examples;  // the first few
};

struct FilterReport {
  std::uint64_t documents = 0, text_bytes = 0;            // read
  std::uint64_t kept_documents = 0, kept_text_bytes = 0;
  std::vector<FilterCount> dropped;                       // for every active filter, in the order of application
};

nlohmann::json to_json(const FilterReport& report);

// Returns the documents that pass every active filter; a document counts for the first filter that drops
// it. Memory of drop_duplicates: about 40 bytes per kept document; of drop_near_duplicates: about 350.
class FilteredDocuments : public DocumentReader {
 public:
  // Throws ConfigError for options out of range.
  FilteredDocuments(std::unique_ptr<DocumentReader> reader, const FilterOptions& options);
  ~FilteredDocuments() override;

  bool next(std::string& document) override;  // false, without an error, also if no document passes
  std::uint64_t bytes_read() const override;
  std::uint64_t bytes_total() const override;
  const FilterReport& report() const;  // complete after next() has returned false

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanochat
