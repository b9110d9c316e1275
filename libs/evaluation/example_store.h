#pragma once
// The verdict on every example, on disk as soon as it is known, so that a killed evaluation goes on and ranks can be put
// together: examples.jsonl, or examples.rank-R-of-W.jsonl. Its first line is {"format_version", "settings"}, every other
// {"task", "example", "correct", …}. Not thread-safe.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

namespace nanochat {

class AppendFile;

class ExampleStore {
 public:
  ExampleStore();  // in memory only
  // `resume`: takes over what the files of every rank in the folder hold; a last line cut short is dropped. Otherwise
  // begins anew. Throws ConfigError when the settings of a file differ from `settings`, naming the keys; DataError for a
  // file that is something else; IoError.
  ExampleStore(const std::filesystem::path& folder, nlohmann::json settings, bool resume, int rank = 0, int world = 1);
  ~ExampleStore();
  ExampleStore& operator=(ExampleStore&&) noexcept;

  // Examples of a task by index.
  const std::map<std::int64_t, nlohmann::json>& of(const std::string& task) const;
  // `example` is an object with "correct"; "task" and "example" are added. Its "sample" goes to the file alone.
  void add(const std::string& task, std::int64_t index, nlohmann::json example);

 private:
  // Returns the file's whole lines.
  std::string read(const std::filesystem::path& file, const nlohmann::json& settings);
  std::map<std::string, std::map<std::int64_t, nlohmann::json>> examples_;
  std::unique_ptr<AppendFile> file_;
};

}  // namespace nanochat
