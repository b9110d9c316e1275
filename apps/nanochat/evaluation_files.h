#pragma once
// Where the files of evaluation tasks lie: --task-file NAME=PATH, or else the place of the data set below a folder, as
// `data download` leaves it.

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace nanochat::cli {

class EvaluationFiles {
 public:
  // `root`: the folder; empty where none is given, `flag` is then asked for. Throws ConfigError for an item of another form.
  EvaluationFiles(std::filesystem::path root, const std::vector<std::string>& task_files, std::string flag);

  const std::filesystem::path* named(const std::string& task) const;  // by --task-file; null when it is not
  std::filesystem::path root() const;  // throws ConfigError naming the flag
  std::filesystem::path of(const std::string& chat_task) const;  // empty for the toy world's
  std::filesystem::path core_bundle() const;
  std::map<std::string, std::filesystem::path> core_tasks() const;  // what --task-file says of tasks of CORE

 private:
  std::filesystem::path root_;
  std::map<std::string, std::filesystem::path> named_;
  std::string flag_;
};

// "chat" becomes the six of ChatCORE.
std::vector<std::string> expand_task_names(const std::vector<std::string>& names);

}  // namespace nanochat::cli
