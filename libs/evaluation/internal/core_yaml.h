#pragma once
// Internal to evaluation: the little of YAML and CSV that an evaluation bundle is written in.

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

// One entry of a list of maps: key to scalar, quotes and escapes resolved; `[a, b]` stays as it is written.
struct YamlEntry {
  std::size_t line = 0;  // where it begins, from 1
  std::map<std::string, std::string> values;
};

// A file that is one key with a block sequence of flat block mappings below it ("icl_tasks:" and "- label: …" lines).
// Comments and empty lines are passed over. Throws DataError naming file and line for anything else: this is no YAML
// parser, and does not guess.
std::vector<YamlEntry> read_yaml_list(const std::filesystem::path& file, std::string_view key);

// RFC 4180: rows of fields, quotes resolved. Throws DataError for a quote that does not end.
std::vector<std::vector<std::string>> read_csv(const std::filesystem::path& file);

}  // namespace nanochat
