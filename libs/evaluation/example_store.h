#pragma once
// The verdict on every example, written to disk at once, so that a killed evaluation can resume
// and ranks can be merged: examples.jsonl, or examples.rank-R-of-W.jsonl. The first line is
// {"format_version", "settings"}, every other {"task", "example", "correct", …}. Not thread-safe.

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
  // `resume`: reads the files of every rank in the folder; an incomplete last line is
  // dropped. Otherwise starts new files. Throws ConfigError with the keys if the settings
  // of a file differ from `settings`, DataError for another kind of file, and IoError.
  ExampleStore(const std::filesystem::path& folder, nlohmann::json settings, bool resume, int rank = 0, int world = 1);
  ~ExampleStore();
  ExampleStore& operator=(ExampleStore&&) noexcept;

  // Examples of a task by index.
  const std::map<std::int64_t, nlohmann::json>& of(const std::string& task) const;
  // `example` is an object with "correct"; "task" and "example" are added. Its "sample" is only written to the file.
  void add(const std::string& task, std::int64_t index, nlohmann::json example);

 private:
  // Returns the file's complete lines.
  std::string read(const std::filesystem::path& file, const nlohmann::json& settings);
  std::map<std::string, std::map<std::int64_t, nlohmann::json>> examples_;
  std::unique_ptr<AppendFile> file_;
};

}  // namespace nanochat
