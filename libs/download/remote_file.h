#pragma once
// A file on a server, and functions for URLs. Thread-safe.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace nanochat {

struct RemoteFile {
  std::string url;                              // http or https
  std::filesystem::path path = {};              // its place in the output folder
  std::optional<std::uint64_t> bytes = {};      // size, if known
  std::string sha256 = {};                      // 64 digits in lower case; empty if not known
};

// The reason why `url` cannot be downloaded ("expected http://... or https://..."), or empty.
std::string url_problem(const std::string& url);

// Replaces each "{index}" or "{index:05d}" (padded with zeros) by `index`. Throws ConfigError with `where` for any other
// placeholder.
std::string with_index(const std::string& pattern, std::uint64_t index, const std::string& where);

// The last part of the URL's path, "shard_00001.parquet"; empty if the path ends with a slash.
std::string file_name_of(const std::string& url);

// The same file on a mirror: scheme and host of `url` replaced by `mirror`, which may include a path.
//   https://huggingface.co/datasets/a/b.parquet, http://mirror:8000/hf/ -> http://mirror:8000/hf/datasets/a/b.parquet
// An empty mirror changes nothing.
std::string with_mirror(const std::string& url, const std::string& mirror);

// `url` without user name, password and query, which may contain secrets. For messages and logs.
std::string shown_url(const std::string& url);

// True for a path that stays inside its folder: relative and without "..".
bool is_safe_path(const std::filesystem::path& path);

// `text` in lower case if it has 64 hexadecimal digits; otherwise empty.
std::string as_sha256(const std::string& text);

}  // namespace nanochat
