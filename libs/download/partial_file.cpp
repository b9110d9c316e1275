#include "download/partial_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/errors.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& path, const char* action) {
  throw IoError(path.string() + ": cannot " + action + ": " + std::strerror(errno));
}

bool differ(const std::string& a, const std::string& b) { return !a.empty() && !b.empty() && a != b; }

nlohmann::json to_json(const RemoteVersion& version) {
  nlohmann::json object = {
      {"url", version.url}, {"etag", version.etag}, {"last_modified", version.last_modified}, {"sha256", version.sha256}};
  if (version.bytes) object["bytes"] = *version.bytes;
  return object;
}

// What is damaged or of another time counts as nothing known; the file is then fetched from its beginning.
RemoteVersion read_info(const fs::path& path) {
  RemoteVersion version;
  try {
    const nlohmann::json object = nlohmann::json::parse(read_file(path, std::size_t{1} << 20));
    version.url = object.at("url").get<std::string>();
    version.etag = object.at("etag").get<std::string>();
    version.last_modified = object.at("last_modified").get<std::string>();
    version.sha256 = object.at("sha256").get<std::string>();
    if (object.contains("bytes")) version.bytes = object["bytes"].get<std::uint64_t>();
  } catch (const DataError&) {
    return {};
  } catch (const nlohmann::json::exception&) {
    return {};
  }
  return version;
}

}  // namespace

std::string RemoteVersion::if_range() const { return !etag.empty() && !etag.starts_with("W/") ? etag : last_modified; }

bool RemoteVersion::may_equal(const RemoteVersion& other) const {
  if (bytes && other.bytes && *bytes != *other.bytes) return false;
  if (!sha256.empty() && !other.sha256.empty()) return sha256 == other.sha256;
  return !differ(etag, other.etag) && !differ(last_modified, other.last_modified);
}

PartialFile::PartialFile(fs::path target, const std::string& url)
    : target_(std::move(target)), part_(target_.string() + ".part"), info_(part_.string() + ".info") {
  open_locked();
  version_ = read_info(info_);
  struct stat status {};
  if (::fstat(fd_, &status) != 0) fail(part_, "read");
  if (version_.url == url && status.st_size > 0) {
    hash_existing();
  } else {
    if (::ftruncate(fd_, 0) != 0) fail(part_, "empty");
    version_ = {};
  }
}

PartialFile::~PartialFile() {
  if (fd_ >= 0 && !committed_ && size_ == 0) {
    ::unlink(part_.c_str());
    ::unlink(info_.c_str());
  }
  if (fd_ >= 0) ::close(fd_);  // and with it the lock
}

void PartialFile::open_locked() {
  while (true) {
    fd_ = ::open(part_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd_ < 0) fail(part_, "create");
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      const int error = errno;
      ::close(std::exchange(fd_, -1));
      errno = error;
      if (error != EWOULDBLOCK) fail(part_, "lock");
      throw DataError(target_.string() + ": another process is downloading this file; wait for it or end it");
    }
    // Between open and lock its owner may have given the file its final name: then this is not ours to write to.
    struct stat opened {
    }, named{};
    if (::fstat(fd_, &opened) == 0 && ::stat(part_.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
        opened.st_dev == named.st_dev) {
      return;
    }
    ::close(std::exchange(fd_, -1));
  }
}

void PartialFile::hash_existing() {
  std::vector<char> buffer(std::size_t{1} << 20);
  while (true) {
    const ssize_t got = ::pread(fd_, buffer.data(), buffer.size(), static_cast<off_t>(size_));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(part_, "read");
    if (got == 0) return;
    hash_.update(buffer.data(), static_cast<std::size_t>(got));
    size_ += static_cast<std::uint64_t>(got);
  }
}

void PartialFile::restart(const RemoteVersion& version) {
  // In this order: whenever the process ends, what is in .info holds for every byte of .part.
  if (::ftruncate(fd_, 0) != 0) fail(part_, "empty");
  size_ = 0;
  hash_ = Sha256();
  version_ = version;
  write_file_atomically(info_, to_json(version_).dump());
}

void PartialFile::append(const void* data, std::size_t bytes) {
  const char* next = static_cast<const char*>(data);
  hash_.update(next, bytes);
  while (bytes > 0) {
    const ssize_t written = ::pwrite(fd_, next, bytes, static_cast<off_t>(size_));
    if (written < 0) {
      if (errno == EINTR) continue;
      fail(part_, "write");
    }
    next += written;
    size_ += static_cast<std::uint64_t>(written);
    bytes -= static_cast<std::size_t>(written);
  }
}

std::string PartialFile::sha256() const {
  Sha256 copy = hash_;  // more may follow
  return to_hex(copy.digest());
}

std::int64_t PartialFile::modified_ns() const {
  struct stat status {};
  if (::fstat(fd_, &status) != 0) fail(part_, "read");
  return std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
}

void PartialFile::sync() {
  if (::fsync(fd_) != 0) fail(part_, "flush");
}

void PartialFile::commit() {
  sync();
  if (::rename(part_.c_str(), target_.c_str()) != 0) fail(target_, "replace");
  committed_ = true;
  ::unlink(info_.c_str());
  const fs::path folder = target_.has_parent_path() ? target_.parent_path() : fs::path(".");
  const int fd = ::open(folder.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(folder, "open to flush");
  const bool synced = ::fsync(fd) == 0 || errno == EINVAL;  // some file systems refuse to flush a folder
  const int error = errno;
  ::close(fd);
  errno = error;
  if (!synced) fail(folder, "flush");
}

}  // namespace nanochat
