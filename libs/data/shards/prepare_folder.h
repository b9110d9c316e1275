#pragma once
// For the implementation of prepare_shards() only: the folder of a preparation, which of its shards are finished, and
// what an earlier preparation left in it. preparing.json, replaced atomically with every shard that is finished, is the
// truth: a shard that it does not list is made again. For one thread.

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

// The checksum of a shard's text after one more document, by the document's own CRC-32.
std::uint32_t add_to_checksum(std::uint32_t checksum, std::uint32_t document_checksum);

class PrepareFolder {
 public:
  // `description`: everything that decides what the shards hold. `created`: the folder was made for this preparation. The
  // caller holds its lock (core/folder_lock.h).
  PrepareFolder(std::filesystem::path folder, nlohmann::json description, bool created);

  // Looks at what is there and writes nothing. With `resume`, finished shards of the same preparation are kept as far as
  // they are whole; an unfinished preparation without a finished shard counts as nothing. Throws ConfigError naming what
  // differs when the folder holds another preparation, or any without `resume` and `overwrite`; DataError for a damaged
  // preparing.json or manifest.json.
  void inspect(bool resume, bool overwrite);
  bool complete() const { return complete_; }  // all that inspect() found is whole, and the manifest stands
  // Marks the folder as being made and clears away what is not kept. Throws IoError.
  void claim();
  // After a failure: takes back what claim() did when no shard has been finished, so that there is nothing to resume.
  void give_up() noexcept;
  void add(ShardRow row);  // of a shard that stands
  // The manifest, last, with the members of the object `notes` beside the description.
  void finish(const nlohmann::json& notes = nlohmann::json::object());

  const std::filesystem::path& path() const { return folder_; }
  std::filesystem::path filters() const { return folder_ / "filters.json"; }  // what the filters dropped
  const std::vector<ShardRow>& rows(const std::string& split) const { return split == "train" ? train_ : validation_; }
  // The name of the shard behind those that stand and `unlisted` more that are being finished.
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
