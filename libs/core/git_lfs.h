#pragma once
// Files of a repository that was cloned without Git LFS are small texts that stand for the real ones. Every reader of
// files calls this, so that such a pointer is named as what it is instead of as a damaged file.

#include <filesystem>
#include <string_view>

namespace nanochat {

// A pointer is shorter than this (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md).
inline constexpr std::size_t kMaxLfsPointerBytes = 1024;

// Throws DataError naming `path` when `contents`, the whole file or more than kMaxLfsPointerBytes of it, is a pointer.
void refuse_lfs_pointer(std::string_view contents, const std::filesystem::path& path);
// The same for the regular file at `path`; what cannot be read is left to the reader to report.
void refuse_lfs_pointer(const std::filesystem::path& path);

}  // namespace nanochat
