#pragma once
// What users name on the command line (files, folders, globs) as a list of files. Used for text and for token shards.

#include <filesystem>
#include <string>
#include <vector>

#include "data/rows/file_form.h"

namespace nanochat {

// Every path in the order given: a file as it is, a folder as all files below it (sorted, hidden ones left out), a
// glob (glob(7), with ~) as its matches in order. A file named twice is taken once, where it is named first. Folders
// and globs yield only files of `formats` (see file_form.h).
// Throws DataError naming the path that is missing, an empty file, holds or matches nothing, or is of another format
// and was named outright; `what` says what was looked for ("text"). With `streams`, standard input and pipes are taken as
// they are.
std::vector<std::filesystem::path> expand_paths(const std::vector<std::string>& paths, const std::vector<FileFormat>& formats,
                                                const std::string& what, bool streams = false);

struct FoundFile {
  std::filesystem::path path;
  bool in_folder = false;  // found below a folder that was named, so that nobody asked for this very file
};
// The same, saying which files were asked for.
std::vector<FoundFile> find_files(const std::vector<std::string>& paths, const std::vector<FileFormat>& formats,
                                  const std::string& what, bool streams = false);

// Whether a path means token shards: a .tok file, or a folder that holds one.
bool names_shards(const std::string& path);

}  // namespace nanochat
