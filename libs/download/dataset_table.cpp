#include "download/dataset_table.h"

#include <algorithm>
#include <charconv>
#include <set>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/json_message.h"
#include "core/options.h"

namespace nanochat {
namespace {

using nlohmann::json;

constexpr std::uint64_t kMaxFiles = 1'000'000;  // of one entry: more is a slip of the keyboard

[[noreturn]] void wrong(const std::string& where, const std::string& found, const std::string& expected) {
  throw ConfigError(fmt::format("{}: found {}, expected {}", where, found, expected));
}

void check_keys(const json& object, const std::vector<std::string>& known, const std::string& where) {
  if (!object.is_object()) wrong(where, shown_json(object), "an object");
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string close = nearest(key, known);
    throw ConfigError(fmt::format("{}: unknown key \"{}\"{}", where, key,
                                  close.empty() ? "" : fmt::format(", did you mean \"{}\"?", close)));
  }
}

std::string text_of(const json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) return "";
  if (!found->is_string()) wrong(fmt::format("{}: \"{}\"", where, key), shown_json(*found), "text");
  return found->get<std::string>();
}

std::uint64_t number_of(const json& object, const char* key, std::uint64_t otherwise, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) return otherwise;
  if (!found->is_number_unsigned()) wrong(fmt::format("{}: \"{}\"", where, key), shown_json(*found), "a number from 0 on");
  return found->get<std::uint64_t>();
}

// What "bytes" or "sha256" says of file i of `count`; null when nothing.
json known_of(const json& object, const char* key, std::uint64_t i, std::uint64_t count, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) return nullptr;
  if (!found->is_array()) {
    if (count == 1) return *found;
    wrong(fmt::format("{}: \"{}\"", where, key), shown_json(*found), fmt::format("a list of {}, one for each file", count));
  }
  if (found->size() != count) {
    wrong(fmt::format("{}: \"{}\"", where, key), fmt::format("a list of {}", found->size()),
          fmt::format("{}, one for each file", count));
  }
  return (*found)[i];
}

void add_files(Dataset& set, const json& entry, const std::string& where) {
  check_keys(entry, {"url", "path", "count", "first", "bytes", "sha256"}, where);
  const std::string url = text_of(entry, "url", where);
  if (url.empty()) throw ConfigError(where + ": has no \"url\"");
  const std::uint64_t count = number_of(entry, "count", 1, where);
  const std::uint64_t first = number_of(entry, "first", 0, where);
  if (count < 1 || count > kMaxFiles) wrong(where + ": \"count\"", std::to_string(count), "1 to 1,000,000");
  const std::string path = text_of(entry, "path", where);
  for (std::uint64_t i = 0; i < count; ++i) {
    RemoteFile file;
    file.url = with_index(url, first + i, where + ": \"url\"");
    if (const std::string problem = url_problem(file.url); !problem.empty()) {
      wrong(where + ": \"url\"", "\"" + shown_url(file.url) + "\"", problem.substr(problem.find(' ') + 1));
    }
    file.path = path.empty() ? file_name_of(file.url) : with_index(path, first + i, where + ": \"path\"");
    if (!is_safe_path(file.path)) {
      wrong(where + ": \"path\"", "\"" + file.path.string() + "\"", "a relative path to a file, without \"..\"");
    }
    const json bytes = known_of(entry, "bytes", i, count, where);
    if (bytes.is_number_unsigned()) {
      file.bytes = bytes.get<std::uint64_t>();
    } else if (!bytes.is_null()) {
      wrong(where + ": \"bytes\"", shown_json(bytes), "a number from 0 on");
    }
    const json sha256 = known_of(entry, "sha256", i, count, where);
    if (!sha256.is_null()) {
      if (sha256.is_string()) file.sha256 = as_sha256(sha256.get<std::string>());
      if (file.sha256.empty()) wrong(where + ": \"sha256\"", shown_json(sha256), "64 hexadecimal digits");
    }
    set.files.push_back(std::move(file));
  }
}

Dataset parse_set(const std::string& name, const json& object, const std::string& where) {
  if (!is_safe_path(name) || name.find('/') != std::string::npos) {
    wrong(where, "the name \"" + name + "\"", "one that can name a folder");
  }
  check_keys(object, {"description", "licence", "homepage", "files"}, where);
  Dataset set;
  set.name = name;
  set.description = text_of(object, "description", where);
  set.licence = text_of(object, "licence", where);
  set.homepage = text_of(object, "homepage", where);
  const auto files = object.find("files");
  if (files == object.end() || !files->is_array() || files->empty()) {
    throw ConfigError(where + ": has no \"files\", expected a list of objects with a \"url\"");
  }
  for (std::size_t i = 0; i < files->size(); ++i) {
    add_files(set, (*files)[i], fmt::format("{}: files[{}]", where, i));
  }
  std::set<std::filesystem::path> paths;
  for (const RemoteFile& file : set.files) {
    if (paths.insert(file.path).second) continue;
    throw ConfigError(
        fmt::format("{}: two files go to {}; give each a \"path\" of its own ({{index}} where \"count\" is "
                    "more than 1)",
                    where, file.path.string()));
  }
  return set;
}

// "12" of "12-15", advancing.
std::uint64_t take_number(std::string_view& text, const std::string& shards) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) wrong("--shards", "\"" + shards + "\"", "numbers and ranges such as 0-7,1822");
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

}  // namespace

DatasetTable DatasetTable::built_in() {
  DatasetTable table;
  table.merge_text(kBuiltInDatasets, "configs/datasets.json");
  return table;
}

void DatasetTable::merge_file(const std::filesystem::path& file) {
  std::string text;
  try {
    text = read_file(file, std::size_t{1} << 28);
  } catch (const DataError& error) {
    throw ConfigError(error.what());
  }
  merge_text(text, file.string());
}

void DatasetTable::merge_text(std::string_view text, const std::string& where) {
  json table;
  try {
    table = json::parse(text, nullptr, true, true);
  } catch (const json::exception& error) {
    throw ConfigError(fmt::format("{}: not JSON: {}", where, error.what()));
  }
  if (!table.is_object()) wrong(where, shown_json(table), "an object with a key for each set");
  std::vector<Dataset> merged = sets_;
  for (const auto& [name, object] : table.items()) {
    Dataset set = parse_set(name, object, fmt::format("{}: \"{}\"", where, name));
    std::erase_if(merged, [&](const Dataset& known) { return known.name == set.name; });
    merged.push_back(std::move(set));
  }
  std::sort(merged.begin(), merged.end(), [](const Dataset& a, const Dataset& b) { return a.name < b.name; });
  sets_ = std::move(merged);
}

const Dataset& DatasetTable::find(const std::string& name) const {
  std::vector<std::string> names;
  for (const Dataset& set : sets_) {
    if (set.name == name) return set;
    names.push_back(set.name);
  }
  const std::string close = nearest(name, names);
  throw ConfigError(fmt::format("unknown set \"{}\"{}; --list shows all", name,
                                close.empty() ? "" : fmt::format(", did you mean \"{}\"?", close)));
}

std::vector<RemoteFile> select_files(const Dataset& set, const std::string& shards, std::int64_t first) {
  std::vector<RemoteFile> files;
  if (shards.empty()) files = set.files;
  std::set<std::uint64_t> taken;
  for (std::string_view left = shards; !left.empty();) {
    const std::uint64_t low = take_number(left, shards);
    std::uint64_t high = low;
    if (left.starts_with('-')) {
      left.remove_prefix(1);
      high = take_number(left, shards);
    }
    if (high < low || high >= set.files.size()) {
      wrong("--shards", fmt::format("{}-{}", low, high),
            fmt::format("0 to {} in rising order, as {} has {} files", set.files.size() - 1, set.name, set.files.size()));
    }
    for (std::uint64_t i = low; i <= high; ++i) {
      if (taken.insert(i).second) files.push_back(set.files[i]);
    }
    if (left.empty()) break;
    if (!left.starts_with(',') || left.size() == 1) {
      wrong("--shards", "\"" + shards + "\"", "numbers and ranges such as 0-7,1822");
    }
    left.remove_prefix(1);
  }
  if (first > 0 && static_cast<std::uint64_t>(first) < files.size()) files.resize(static_cast<std::size_t>(first));
  return files;
}

}  // namespace nanochat
