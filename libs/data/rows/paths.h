#pragma once
// Expands files, folders and globs from the command line to a list of files. Used for text and for token shards.

#include <filesystem>
#include <string>
#include <vector>

#include "data/rows/file_form.h"

namespace nanochat {

// All paths in the given order: a file itself, a folder as all files below it (sorted, without
// hidden ones), a glob (glob(7), with ~) as its matches in order. A file named twice is used
// once, at its first place. Folders and globs give only files of `formats` (see file_form.h).
// Throws DataError with a path that is missing, an empty file, without
// content or match, or a named file of another format; `what` names what is
// needed ("text"). With `streams`, standard input and pipes are accepted.
std::vector<std::filesystem::path> expand_paths(const std::vector<std::string>& paths, const std::vector<FileFormat>& formats,
                                                const std::string& what, bool streams = false);

struct FoundFile {
  std::filesystem::path path;
  bool in_folder = false;  // found below a named folder, so the user did not name this file itself
};
// The same, with the information which files were named.
std::vector<FoundFile> find_files(const std::vector<std::string>& paths, const std::vector<FileFormat>& formats,
                                  const std::string& what, bool streams = false);

// True if a path means token shards: a .tok file, or a folder that holds one.
bool names_shards(const std::string& path);

}  // namespace nanochat
