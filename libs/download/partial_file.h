#pragma once
// A file during its download: NAME.part, and NAME.part.info with the URL and version that the bytes belong to. With these, a
// later run or a new connection continues the transfer. commit() gives the file its final name after its bytes are on the disk.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "core/sha256.h"

namespace nanochat {

// The version of a file as a server describes it.
struct RemoteVersion {
  std::string url = {};
  std::string etag = {};  // as received, with W/ and quotes
  std::string last_modified = {};
  std::string sha256 = {};  // if the server sends it (X-Linked-Etag of Hugging Face)
  std::optional<std::uint64_t> bytes = {};

  // Value for the header If-Range: a strong ETag, otherwise the date; empty if there is neither.
  std::string if_range() const;
  // False if the two cannot be the same content. If both have a SHA-256, only that is compared, because caches may change
  // ETags.
  bool may_equal(const RemoteVersion& other) const;
};

// Not thread-safe. A second object for the same target, in this or another process, throws DataError. Throws IoError if the
// disk is full or read-only. Without commit(), the destructor keeps the bytes for the next run and removes empty files.
class PartialFile {
 public:
  // Continues the existing bytes if they came from `url`; otherwise starts again.
  PartialFile(std::filesystem::path target, const std::string& url);
  ~PartialFile();
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  std::uint64_t size() const { return size_; }
  const RemoteVersion& version() const { return version_; }

  void restart(const RemoteVersion& version);  // drops all bytes
  void append(const void* data, std::size_t bytes);
  std::string sha256() const;  // of all bytes so far
  std::int64_t modified_ns() const;  // time stamp of the final file
  void sync();  // fsync: the bytes survive a power failure
  void commit();  // sync(), then the final name

 private:
  void open_locked();
  void hash_existing();
  std::filesystem::path target_, part_, info_;
  RemoteVersion version_;
  Sha256 hash_;
  std::uint64_t size_ = 0;
  int fd_ = -1;
  bool committed_ = false;
};

}  // namespace nanochat
