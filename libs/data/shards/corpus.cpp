#include "data/shards/corpus.h"

#include <filesystem>

#include <spdlog/fmt/fmt.h>

#include "core/sha256.h"
#include "data/rows/byte_source.h"
#include "data/rows/file_form.h"
#include "data/rows/paths.h"
#include "data/shards/shard.h"
#include "data/text/documents.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> shards_of(const std::vector<std::string>& paths) {
  return expand_paths(paths, {FileFormat::kShard}, "token shard");
}

bool is_validation_shard(const fs::path& file) { return file.filename().string().starts_with("validation-"); }

}  // namespace

std::string corpus_fingerprint(const std::vector<std::string>& paths) {
  Sha256 digest;
  if (!paths.empty() && names_shards(paths.front())) {
    for (const fs::path& file : shards_of(paths)) {
      const ShardReader shard(file);
      digest.update(fmt::format("{} {} {} {:08x}\n", is_validation_shard(file) ? "validation" : "train", shard.info().documents,
                                shard.info().tokens, shard.info().checksum));
    }
  } else {
    for (const fs::path& file : expand_paths(paths)) {
      const std::string name = is_stream(file) ? "stream" : file.filename().string();
      digest.update(fmt::format("{} {}\n", name, fs::file_size(reopenable(file))));
    }
  }
  return to_hex(digest.digest());
}

bool has_validation(const std::vector<std::string>& paths, std::int64_t validation_every, const ReaderOptions& reader) {
  if (!paths.empty() && names_shards(paths.front())) {
    for (const fs::path& file : shards_of(paths)) {
      if (is_validation_shard(file)) return true;
    }
    return false;
  }
  if (validation_every <= 0) return false;
  std::vector<fs::path> files = expand_paths(paths, reader);
  for (fs::path& file : files) file = reopenable(file);  // training reads it again
  const auto documents = open_documents(files, reader);
  std::string document;
  for (std::int64_t i = 0; i < validation_every; ++i) {
    if (!documents->next(document)) return false;
  }
  return true;
}

}  // namespace nanochat
