#pragma once
// A file on a server, and the URLs by which it is named. Stateless; any thread may call these.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace nanochat {

struct RemoteFile {
  std::string url;                              // http or https
  std::filesystem::path path = {};              // where it goes, below the output folder
  std::optional<std::uint64_t> bytes = {};      // its size where that is known beforehand
  std::string sha256 = {};                      // 64 digits in lower case; empty: not known beforehand
};

// What is wrong with `url` as something to download ("expected http://... or https://..."); empty: nothing.
std::string url_problem(const std::string& url);

// Replaces each "{index}" or "{index:05d}" (zeros up to that width) by `index`. Throws ConfigError for a placeholder of
// another form, naming `where`.
std::string with_index(const std::string& pattern, std::uint64_t index, const std::string& where);

// The last part of the URL's path, "shard_00001.parquet"; empty when the path ends in a slash.
std::string file_name_of(const std::string& url);

// The same file on a mirror: scheme and host of `url` replaced by `mirror`, which may carry a path of its own.
//   https://huggingface.co/datasets/a/b.parquet, http://mirror:8000/hf/ -> http://mirror:8000/hf/datasets/a/b.parquet
// An empty mirror changes nothing.
std::string with_mirror(const std::string& url, const std::string& mirror);

// Without the user name, the password and the query, any of which may hold a secret: for messages and logs.
std::string shown_url(const std::string& url);

// A path that stays below the folder it is put in: relative, without "..".
bool is_safe_path(const std::filesystem::path& path);

// 64 hexadecimal digits in lower case, or empty when `text` is not that many hexadecimal digits.
std::string as_sha256(const std::string& text);

}  // namespace nanochat
