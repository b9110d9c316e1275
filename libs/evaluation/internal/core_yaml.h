#pragma once
// Internal to evaluation: the subset of YAML and CSV that an evaluation bundle uses.

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

// One entry of a list of maps: key to scalar, with quotes and escapes resolved; `[a, b]` is not changed.
struct YamlEntry {
  std::size_t line = 0;  // where it begins, from 1
  std::map<std::string, std::string> values;
};

// A file with one key and a block sequence of flat block mappings below it
// ("icl_tasks:" and "- label: …" lines). Comments and empty lines are skipped. Throws
// DataError with file and line for anything else: this is not a full YAML parser.
std::vector<YamlEntry> read_yaml_list(const std::filesystem::path& file, std::string_view key);

// RFC 4180: rows of fields, with quotes resolved. Throws DataError for an unclosed quote.
std::vector<std::vector<std::string>> read_csv(const std::filesystem::path& file);

}  // namespace nanochat
