#pragma once
// For the implementation of prepare_shards() only: the output folder of a preparation, its finished shards, and the files of an
// earlier preparation. preparing.json lists the finished shards and is replaced atomically after each. A shard that it does not
// list is written again. For one thread.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace nanochat {

// A finished shard, as preparing.json and manifest.json list it.
struct ShardRow {
  std::string file, split;
  std::uint64_t documents = 0, tokens = 0, text_bytes = 0, bytes = 0;
  std::uint32_t text_checksum = 0;  // see add_to_checksum()
  std::string sha256;
};

// Adds the CRC-32 of a document to the checksum of a shard's text.
std::uint32_t add_to_checksum(std::uint32_t checksum, std::uint32_t document_checksum);

class PrepareFolder {
 public:
  // `description`: everything that determines the content of the shards. `created`: the folder was created for this
  // preparation. The caller must hold its lock (core/folder_lock.h).
  PrepareFolder(std::filesystem::path folder, nlohmann::json description, bool created);

  // Checks the existing files without writing. With `resume`, intact finished shards of the same preparation are kept; an
  // unfinished preparation without a finished shard is ignored. Throws ConfigError with the differences if the folder has
  // another preparation, or any preparation without `resume` and `overwrite`. Throws DataError for a damaged preparing.json or
  // manifest.json.
  void inspect(bool resume, bool overwrite);
  bool complete() const { return complete_; }  // all shards are intact, and there is a manifest
  // Writes preparing.json and removes files that are not kept. Throws IoError.
  void claim();
  // After a failure: if no shard is finished, undoes claim(), because there is nothing to resume.
  void give_up() noexcept;
  void add(ShardRow row);  // adds a finished shard
  // Writes the manifest, which has the description and the members of the object `notes`. Call it last.
  void finish(const nlohmann::json& notes = nlohmann::json::object());

  const std::filesystem::path& path() const { return folder_; }
  std::filesystem::path filters() const { return folder_ / "filters.json"; }  // the report of the filters
  const std::vector<ShardRow>& rows(const std::string& split) const { return split == "train" ? train_ : validation_; }
  // The name of the next shard, after the finished ones and `unlisted` more that are being written.
  std::filesystem::path next_shard(const std::string& split, std::size_t unlisted = 0) const;

 private:
  void load(const nlohmann::json& state, const std::filesystem::path& file);
  void keep_whole_shards();
  void write_state() const;

  std::filesystem::path folder_, marker_, manifest_;
  nlohmann::json description_;
  std::vector<ShardRow> train_, validation_;
  bool complete_ = false, created_ = false;
};

}  // namespace nanochat
