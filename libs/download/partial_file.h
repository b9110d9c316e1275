#pragma once
// A file while it is downloaded: NAME.part, and beside it NAME.part.info, which says of which version of which URL the
// bytes are, so that a later run, or the same one after a dropped connection, goes on where this one stopped. The final
// name appears in commit() alone, after the bytes are on the disk.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "core/sha256.h"

namespace nanochat {

// What a server tells about the version of a file that it sends.
struct RemoteVersion {
  std::string url = {};
  std::string etag = {};           // as sent, W/ and quotes included
  std::string last_modified = {};
  std::string sha256 = {};         // where the server names the content by it (X-Linked-Etag of Hugging Face)
  std::optional<std::uint64_t> bytes = {};

  // For the header If-Range: a strong ETag, else the date; empty when there is neither.
  std::string if_range() const;
  // False when the two cannot be the same content. A SHA-256 in both decides alone: caches in front of one store may
  // each have an ETag of their own.
  bool may_equal(const RemoteVersion& other) const;
};

// Not thread-safe; a second one on the same target, in this process or another, throws DataError. Throws IoError when
// the disk refuses. Destroyed without commit(), it leaves the bytes for the next one, and no empty files.
class PartialFile {
 public:
  // Opens what is there, if it came from `url`, and otherwise begins anew.
  PartialFile(std::filesystem::path target, const std::string& url);
  ~PartialFile();
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  std::uint64_t size() const { return size_; }
  const RemoteVersion& version() const { return version_; }

  void restart(const RemoteVersion& version);          // drops all bytes
  void append(const void* data, std::size_t bytes);
  std::string sha256() const;                          // of all bytes so far
  std::int64_t modified_ns() const;                    // time stamp that the final file will have
  void sync();                                         // the bytes survive a power cut
  void commit();                                       // sync(), then the final name

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
