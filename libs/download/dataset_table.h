#pragma once
// The sets that `nanochat data download` knows by name: configs/datasets.json, compiled in, and tables of the user's in
// the same form.
//
//   {"my-set": {"description": "...", "licence": "...", "homepage": "https://...",
//               "files": [{"url": "https://host/shard_{index:05d}.parquet", "count": 100}]}}
//
// An entry of "files" stands for `count` files (1), numbered from `first` (0). "path" (the URL's last part) is where
// each goes below the output folder. "bytes" and "sha256" are given where they are known: a value when there is one
// file, else a list with one for each, in which null stands for unknown. Not thread-safe while it is merged into.

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "download/remote_file.h"

namespace nanochat {

struct Dataset {
  std::string name, description, licence, homepage;
  std::vector<RemoteFile> files;  // shard i is files[i]
};

class DatasetTable {
 public:
  static DatasetTable built_in();

  // Adds sets; one with a known name replaces it. // comments are allowed. Throws ConfigError naming the file or
  // `where`, the set and the key, and then changes nothing.
  void merge_file(const std::filesystem::path& file);
  void merge_text(std::string_view json, const std::string& where);

  const std::vector<Dataset>& all() const { return sets_; }  // by name
  // Throws ConfigError naming the nearest known name.
  const Dataset& find(const std::string& name) const;

 private:
  std::vector<Dataset> sets_;
};

// A part of a set. `shards` is empty (all) or counts from 0, both ends included: "0-7,1822". `first` > 0 then keeps that
// many. Throws ConfigError for what the set does not have.
std::vector<RemoteFile> select_files(const Dataset& set, const std::string& shards, std::int64_t first);

extern const char* const kBuiltInDatasets;  // configs/datasets.json, word for word

}  // namespace nanochat
