#pragma once
// A repository that was cloned without Git LFS has small text files (pointers) instead of the real ones. Every
// reader of files calls this function, so that a pointer is reported as a pointer and not as a damaged file.

#include <filesystem>
#include <string_view>

namespace nanochat {

// A pointer is shorter than this (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md).
inline constexpr std::size_t kMaxLfsPointerBytes = 1024;

// Throws DataError with `path` if `contents`, a whole file or more than kMaxLfsPointerBytes of it, is a pointer.
void refuse_lfs_pointer(std::string_view contents, const std::filesystem::path& path);
// The same for the regular file at `path`. A file that cannot be read is not reported here.
void refuse_lfs_pointer(const std::filesystem::path& path);

}  // namespace nanochat
