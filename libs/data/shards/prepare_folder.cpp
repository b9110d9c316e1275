#include "data/shards/prepare_folder.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include <spdlog/fmt/fmt.h>
#include <zlib.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/folder_lock.h"
#include "core/log.h"
#include "core/sha256.h"
#include "core/thread_pool.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string shard_name(const std::string& split, std::size_t number) { return fmt::format("{}-{:05}.tok", split, number); }

bool is_shard(std::string_view name) {
  return name.ends_with(".tok") && (name.starts_with("train-") || name.starts_with("validation-"));
}

// What AtomicFile leaves of this program's files when the process is killed: ".train-00003.tok.tmp-PID-N".
bool is_leftover(std::string_view name) {
  const std::size_t tag = name.find(".tmp-");
  if (!name.starts_with('.') || tag == std::string_view::npos) return false;
  const std::string_view target = name.substr(1, tag - 1);
  return is_shard(target) || target == "preparing.json" || target == "manifest.json" || target == "filters.json" ||
         target.starts_with("tokenizer");
}

json to_json(const ShardRow& row) {
  return {{"file", row.file},     {"split", row.split},           {"documents", row.documents},
          {"tokens", row.tokens}, {"text_bytes", row.text_bytes}, {"text_checksum", row.text_checksum},
          {"bytes", row.bytes},   {"sha256", row.sha256}};
}

json totals(const std::vector<ShardRow>& rows) {
  std::uint64_t documents = 0, tokens = 0, text_bytes = 0;
  for (const ShardRow& row : rows) {
    documents += row.documents;
    tokens += row.tokens;
    text_bytes += row.text_bytes;
  }
  return {{"documents", documents}, {"tokens", tokens}, {"text_bytes", text_bytes}, {"shards", rows.size()}};
}

json read_json(const fs::path& file) {
  json result = json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
  if (!result.is_object()) {
    throw DataError(fmt::format("{}: is damaged: not a JSON object; --overwrite prepares the folder anew", file.string()));
  }
  return result;
}

// "options.tokens_per_shard was 5000 and is 100000", at most a few of them.
std::string differences(const json& before, const json& now) {
  const json old_values = before.flatten(), new_values = now.flatten();
  std::set<std::string> keys;
  for (const json* values : {&old_values, &new_values}) {
    for (const auto& [key, value] : values->items()) keys.insert(key);
  }
  constexpr std::size_t kShown = 4;
  std::vector<std::string> found;
  for (const std::string& key : keys) {
    const json old_value = old_values.contains(key) ? old_values.at(key) : json();
    const json new_value = new_values.contains(key) ? new_values.at(key) : json();
    if (old_value == new_value) continue;
    std::string name = key.substr(1);
    std::replace(name.begin(), name.end(), '/', '.');
    found.push_back(fmt::format("{} was {} and is {}", name, old_value.dump(), new_value.dump()));
  }
  const std::size_t hidden = found.size() > kShown ? found.size() - kShown : 0;
  found.resize(found.size() - hidden);
  return fmt::format("{}{}", fmt::join(found, ", "), hidden > 0 ? fmt::format(", and {} more", hidden) : "");
}

// The part of a state file that describes what is prepared from what.
json description_of(const json& state, const json& like) {
  json result = json::object();
  for (const auto& [key, value] : like.items()) {
    if (state.contains(key)) result[key] = state.at(key);
  }
  return result;
}

}  // namespace

std::uint32_t add_to_checksum(std::uint32_t checksum, std::uint32_t document_checksum) {
  std::array<Bytef, 4> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<Bytef>(document_checksum >> (8 * i));
  return static_cast<std::uint32_t>(crc32_z(checksum, bytes.data(), bytes.size()));
}

PrepareFolder::PrepareFolder(fs::path folder, json description, bool created)
    : folder_(std::move(folder)), marker_(folder_ / "preparing.json"), manifest_(folder_ / "manifest.json"),
      description_(std::move(description)), created_(created) {}

void PrepareFolder::inspect(bool resume, bool overwrite) {
  if (overwrite) return;
  // Both stand when a kill came between the manifest and the removal of the marker.
  const bool finished = fs::exists(manifest_);
  const fs::path file = finished ? manifest_ : marker_;
  if (!fs::exists(file)) {
    std::error_code ignored;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder_, ignored)) {
      if (!is_shard(entry.path().filename().string())) continue;
      throw ConfigError(
          fmt::format("{} holds token shards of unknown origin; choose another --output-dir, or --overwrite "
                      "to replace them",
                      folder_.string()));
    }
    return;
  }
  const json state = read_json(file);
  // Nothing is lost with it: text that turned out malformed must not stand in the way of the corrected one.
  if (!finished && state.value("shards", json::array()).empty()) return;
  const json there = description_of(state, description_);
  if (there != description_) {
    throw ConfigError(fmt::format(
        "{} already holds {} of other text or options: {}; choose another --output-dir, or "
        "--overwrite to replace it",
        folder_.string(), finished ? "prepared data" : "an unfinished preparation", differences(there, description_)));
  }
  if (!resume) {
    throw ConfigError(
        finished
            ? fmt::format("{} already holds prepared data (manifest.json); choose another --output-dir, or --overwrite to "
                          "replace it",
                          folder_.string())
            : fmt::format("{} already holds an unfinished preparation; --resume to continue it, or --overwrite to begin again",
                          folder_.string()));
  }
  load(state, file);
  const std::size_t listed = train_.size() + validation_.size();
  keep_whole_shards();
  const std::size_t kept = train_.size() + validation_.size();
  if (kept < listed) log_warn("{}: {} shards are missing or damaged; they are made again", folder_.string(), listed - kept);
  complete_ = finished && kept == listed;
}

void PrepareFolder::load(const json& state, const fs::path& file) {
  try {
    for (const json& entry : state.value("shards", json::array())) {
      ShardRow row;
      row.file = entry.at("file").get<std::string>();
      row.split = entry.at("split").get<std::string>();
      row.documents = entry.at("documents").get<std::uint64_t>();
      row.tokens = entry.at("tokens").get<std::uint64_t>();
      row.text_bytes = entry.at("text_bytes").get<std::uint64_t>();
      row.text_checksum = entry.at("text_checksum").get<std::uint32_t>();
      row.bytes = entry.at("bytes").get<std::uint64_t>();
      row.sha256 = entry.at("sha256").get<std::string>();
      std::vector<ShardRow>& rows = row.split == "train" ? train_ : validation_;
      if (row.documents == 0 || row.file != shard_name(row.split == "train" ? "train" : "validation", rows.size())) {
        throw DataError(
            fmt::format("{}: is damaged: \"{}\" is not where it should be in the list of shards; --overwrite "
                        "prepares the folder anew",
                        file.string(), row.file));
      }
      rows.push_back(std::move(row));
    }
  } catch (const json::exception& error) {
    throw DataError(fmt::format("{}: is damaged: its list of shards: {}; --overwrite prepares the folder anew", file.string(),
                                error.what()));
  }
}

// A shard after a damaged one would stand; but documents are made in order, so that it comes again anyway.
void PrepareFolder::keep_whole_shards() {
  for (std::vector<ShardRow>* rows : {&train_, &validation_}) {
    std::vector<char> whole(rows->size());
    for_each_index(rows->size(), 0, [&](std::size_t i) {
      const ShardRow& row = (*rows)[i];
      std::error_code error;
      whole[i] = fs::file_size(folder_ / row.file, error) == row.bytes && !error &&
                 sha256_hex_of_file(folder_ / row.file) == row.sha256;
    });
    const auto bad = std::find(whole.begin(), whole.end(), 0);
    rows->resize(static_cast<std::size_t>(bad - whole.begin()));
  }
}

void PrepareFolder::give_up() noexcept {
  if (!train_.empty() || !validation_.empty()) return;
  std::error_code ignored;
  if (created_) {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder_, ignored)) {
      if (entry.path().filename() != FolderLock::kFileName)
        fs::remove_all(entry.path(), ignored);  // the lock removes the folder
    }
  } else {
    fs::remove(marker_, ignored);
  }
}

void PrepareFolder::claim() {
  std::error_code error;
  // The marker first: at no time are there shards that belong to neither a marker nor a manifest.
  write_state();
  fs::remove(manifest_, error);
  if (error) throw IoError(fmt::format("{}: cannot remove: {}", manifest_.string(), error.message()));
  std::set<std::string> kept;
  for (const std::vector<ShardRow>* rows : {&train_, &validation_}) {
    for (const ShardRow& row : *rows) kept.insert(row.file);
  }
  std::vector<fs::path> gone;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    if (is_leftover(name) || entry.path() == filters() || (is_shard(name) && !kept.contains(name)))
      gone.push_back(entry.path());
  }
  for (const fs::path& path : gone) {
    fs::remove(path, error);
    if (error) throw IoError(fmt::format("{}: cannot remove: {}", path.string(), error.message()));
  }
}

fs::path PrepareFolder::next_shard(const std::string& split, std::size_t unlisted) const {
  return folder_ / shard_name(split, rows(split).size() + unlisted);
}

void PrepareFolder::add(ShardRow row) {
  std::vector<ShardRow>& rows = row.split == "train" ? train_ : validation_;
  rows.push_back(std::move(row));
  write_state();
}

void PrepareFolder::write_state() const {
  json state = description_;
  state["shards"] = json::array();
  for (const std::vector<ShardRow>* rows : {&train_, &validation_}) {
    for (const ShardRow& row : *rows) state["shards"].push_back(to_json(row));
  }
  write_file_atomically(marker_, state.dump(2) + "\n");
}

void PrepareFolder::finish(const json& notes) {
  json manifest = description_;
  manifest.update(notes);
  manifest["train"] = totals(train_);
  manifest["validation"] = totals(validation_);
  manifest["shards"] = json::array();
  for (const std::vector<ShardRow>* rows : {&train_, &validation_}) {
    for (const ShardRow& row : *rows) manifest["shards"].push_back(to_json(row));
  }
  write_file_atomically(manifest_, manifest.dump(2) + "\n");
  std::error_code ignored;  // the manifest wins
  fs::remove(marker_, ignored);
}

}  // namespace nanochat
