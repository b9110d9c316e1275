#pragma once
// What users name on the command line (files, folders, globs) as a list of files. Used for text and for token shards.

#include <filesystem>
#include <string>
#include <vector>

namespace nanochat {

// Every path in the order given: a file as it is, a folder as all files below it (sorted, hidden ones left out), a
// glob (glob(7), with ~) as its matches in order. A file named twice is taken once, where it is named first. Folders
// and globs yield only names that end in one of `extensions` (".txt", ".txt.gz", ...).
// Throws DataError naming the path that is missing, an empty file, holds or matches nothing, or has another extension
// and was named outright; `what` says what was looked for ("text"). With
// `standard_input`, "-" is taken as it is.
std::vector<std::filesystem::path> expand_paths(const std::vector<std::string>& paths,
                                                const std::vector<std::string>& extensions, const std::string& what,
                                                bool standard_input = false);

// Whether a path means token shards: a .tok file, or a folder that holds one.
bool names_shards(const std::string& path);

}  // namespace nanochat
