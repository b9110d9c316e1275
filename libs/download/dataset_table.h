#pragma once
// The data sets that `nanochat data download` knows by name: configs/datasets.json, which is compiled into the program, and
// files of the user in the same format.
//
//   {"my-set": {"description": "...", "licence": "...", "homepage": "https://...",
//               "files": [{"url": "https://host/shard_{index:05d}.parquet", "count": 100}]}}
//
// An entry of "files" describes `count` files (default 1), numbered from `first` (default 0). "path" is the place of each in
// the output folder (default: the last part of the URL). "bytes" and "sha256" are optional: a value for one file, or a list
// with one value per file, where null means unknown. Not thread-safe during a merge.

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

  // Adds sets, and replaces those of the same name. // comments are allowed. Throws ConfigError with the file or `where`, the
  // set and the key, and then changes nothing.
  void merge_file(const std::filesystem::path& file);
  void merge_text(std::string_view json, const std::string& where);

  const std::vector<Dataset>& all() const { return sets_; }  // sorted by name
  // Throws ConfigError with the nearest known name.
  const Dataset& find(const std::string& name) const;

 private:
  std::vector<Dataset> sets_;
};

// Selects files of a set. `shards` has numbers from 0 and inclusive ranges ("0-7,1822"); empty selects all. Then `first` > 0
// keeps only so many. Throws ConfigError for numbers that the set does not have.
std::vector<RemoteFile> select_files(const Dataset& set, const std::string& shards, std::int64_t first);

extern const char* const kBuiltInDatasets;  // the text of configs/datasets.json

}  // namespace nanochat
