#include "data/rows/byte_source.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <system_error>
#include <utility>

#include <spdlog/fmt/fmt.h>
#include <zlib.h>

#include "core/errors.h"
#include "core/git_lfs.h"
#include "data/rows/arrow_module.h"

namespace nanochat {
namespace {

constexpr std::size_t kBufferBytes = 1 << 16;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

class PlainSource : public ByteSource {
 public:
  explicit PlainSource(const std::filesystem::path& path)
      : path_(path), fd_(path == kStandardInput ? STDIN_FILENO : open_file(path)) {}
  ~PlainSource() override {
    if (fd_ != STDIN_FILENO) close(fd_);
  }
  PlainSource(const PlainSource&) = delete;
  PlainSource& operator=(const PlainSource&) = delete;

  std::size_t read(char* buffer, std::size_t capacity) override {
    for (;;) {
      const ssize_t got = ::read(fd_, buffer, capacity);
      if (got >= 0) {
        stored_ += static_cast<std::uint64_t>(got);
        return static_cast<std::size_t>(got);
      }
      if (errno != EINTR) throw DataError(fmt::format("cannot read {}: {}", name_of(path_), std::strerror(errno)));
    }
  }
  std::uint64_t stored_bytes() const override { return stored_; }

 private:
  static int open_file(const std::filesystem::path& path) {
    refuse_lfs_pointer(path);
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) throw DataError(fmt::format("cannot open {}: {}", path.string(), std::strerror(errno)));
    return fd;
  }

  std::filesystem::path path_;
  int fd_;
  std::uint64_t stored_ = 0;
};

class GzipSource : public ByteSource {
 public:
  GzipSource(std::unique_ptr<ByteSource> file, std::string name) : name_(std::move(name)), file_(std::move(file)) {
    constexpr int kGzipOnly = 15 + 16;  // the largest window; no zlib or raw streams
    if (inflateInit2(&stream_, kGzipOnly) != Z_OK) fail("cannot start to inflate");
  }
  ~GzipSource() override { inflateEnd(&stream_); }
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;

  // gzread() is not used: it passes over garbage behind a member and hands plain files through.
  std::size_t read(char* buffer, std::size_t capacity) override {
    stream_.next_out = reinterpret_cast<Bytef*>(buffer);
    stream_.avail_out = static_cast<uInt>(capacity);
    while (stream_.avail_out == capacity) {
      if (stream_.avail_in == 0 && !refill()) {
        if (inside_member_ || members_ == 0) fail("the gzip file is truncated");
        return 0;
      }
      if (!inside_member_ && members_ > 0 && !begin_next_member()) return 0;
      inside_member_ = true;
      const int code = inflate(&stream_, Z_NO_FLUSH);
      if (code == Z_STREAM_END) {
        inside_member_ = false;
        ++members_;
      } else if (code != Z_OK && code != Z_BUF_ERROR) {
        fail(members_ == 0 && stream_.total_out == 0 ? "not a gzip file, or its beginning is corrupt"
                                                     : "the gzip file is corrupt");
      }
    }
    return capacity - stream_.avail_out;
  }
  std::uint64_t stored_bytes() const override { return file_->stored_bytes() - stream_.avail_in; }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw DataError(fmt::format("{}: {}{}", name_, what, stream_.msg != nullptr ? fmt::format(" ({})", stream_.msg) : ""));
  }

  bool refill() {
    stream_.avail_in = static_cast<uInt>(file_->read(input_.data(), input_.size()));
    stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
    return stream_.avail_in > 0;
  }

  // Zero bytes may pad the end (tapes, block devices); anything else must be another member.
  bool begin_next_member() {
    while (stream_.avail_in > 0 && *stream_.next_in == 0) {
      ++stream_.next_in;
      --stream_.avail_in;
      if (stream_.avail_in == 0 && !refill()) return false;
    }
    if (inflateReset(&stream_) != Z_OK) fail("cannot start to inflate");
    return true;
  }

  std::string name_;
  std::unique_ptr<ByteSource> file_;
  z_stream stream_{};
  std::array<char, kBufferBytes> input_{};
  bool inside_member_ = false;
  std::uint64_t members_ = 0;
};

// The length of `bytes` without a UTF-8 character that is cut off at the end.
std::size_t whole_characters(std::string_view bytes) {
  for (std::size_t back = 1; back <= 4 && back <= bytes.size(); ++back) {
    const auto byte = static_cast<unsigned char>(bytes[bytes.size() - back]);
    if (byte < 0x80) break;
    if (byte >= 0xc0) {
      const std::size_t length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
      return length > back ? bytes.size() - back : bytes.size();
    }
  }
  return bytes.size();
}

// Copies of streams, by what was copied and by where they are. Their files stay open until the process ends.
struct Spools {
  std::mutex mutex;
  std::map<std::string, std::filesystem::path> copies;
  std::map<std::string, std::string> names;
};

Spools& spools() {
  static Spools instance;
  return instance;
}

// Has no name, so that nothing is left behind, and is never closed.
class TemporaryFile {
 public:
  TemporaryFile() {
    const char* folder = std::getenv("TMPDIR");
    pattern_ = std::string(folder == nullptr || *folder == '\0' ? "/tmp" : folder) + "/nanochat-XXXXXX";
    fd_ = ::mkostemp(pattern_.data(), O_CLOEXEC);
    if (fd_ < 0) fail("create");
    ::unlink(pattern_.c_str());
  }
  int fd() const { return fd_; }
  void write(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) {
        const int error = errno;
        ::close(fd_);
        errno = error;
        fail("write");
      }
      bytes.remove_prefix(static_cast<std::size_t>(written));
    }
  }

 private:
  [[noreturn]] void fail(const char* action) const {
    throw IoError(fmt::format("{}: cannot {} a copy of the input: {}; set TMPDIR to a folder with room", pattern_, action,
                              std::strerror(errno)));
  }
  std::string pattern_;
  int fd_ = -1;
};

}  // namespace

std::unique_ptr<ByteSource> open_bytes(const std::filesystem::path& path) {
  std::unique_ptr<ByteSource> source = std::make_unique<PlainSource>(path);
  Compression compression = form_of(path).compression;
  if (compression == Compression::kNone && is_stream(path)) {
    auto peeked = std::make_unique<PeekedSource>(std::move(source));
    compression = compression_of(peeked->peek(4));
    source = std::move(peeked);
  }
  if (compression == Compression::kGzip) return std::make_unique<GzipSource>(std::move(source), name_of(path));
  if (compression == Compression::kZstd) return arrow_module(path).open_zstd(std::move(source), name_of(path));
  return source;
}

std::string name_of(const std::filesystem::path& path) {
  if (path == kStandardInput) return "standard input";
  const std::lock_guard lock(spools().mutex);
  const auto found = spools().names.find(path.string());
  return found == spools().names.end() ? path.string() : found->second;
}

std::filesystem::path spool(ByteSource& source, const std::string& name) {
  const TemporaryFile file;
  std::string buffer(kBufferBytes, '\0');
  for (std::size_t got = 0; (got = source.read(buffer.data(), buffer.size())) > 0;) {
    file.write(std::string_view(buffer).substr(0, got));
  }
  const std::string path = fmt::format("/proc/self/fd/{}", file.fd());
  const std::lock_guard lock(spools().mutex);
  spools().names[path] = name;
  return path;
}

std::filesystem::path reopenable(const std::filesystem::path& path) {
  if (!is_stream(path)) return path;
  {
    const std::lock_guard lock(spools().mutex);
    if (spools().names.contains(path.string())) return path;
    const auto copy = spools().copies.find(path.string());
    if (copy != spools().copies.end()) return copy->second;
  }
  PlainSource source(path);
  std::filesystem::path copy = spool(source, name_of(path));
  const std::lock_guard lock(spools().mutex);
  return spools().copies.emplace(path.string(), std::move(copy)).first->second;
}

std::filesystem::path seekable(const std::filesystem::path& path, PeekedSource& opened) {
  std::error_code ignored;
  if (path != kStandardInput && std::filesystem::is_regular_file(path, ignored)) return path;
  return spool(opened, name_of(path));
}

std::string_view PeekedSource::peek(std::size_t count) {
  while (seen_.size() < count) {
    const std::size_t before = seen_.size();
    seen_.resize(count);
    const std::size_t got = source_->read(seen_.data() + before, count - before);
    seen_.resize(before + got);
    if (got == 0) break;
  }
  return std::string_view(seen_).substr(0, count);
}

std::size_t PeekedSource::read(char* buffer, std::size_t capacity) {
  if (position_ == seen_.size()) return source_->read(buffer, capacity);
  const std::size_t count = std::min(capacity, seen_.size() - position_);
  std::copy_n(seen_.data() + position_, count, buffer);
  position_ += count;
  return count;
}

LineReader::LineReader(std::unique_ptr<ByteSource> source) : source_(std::move(source)) {
  while (buffer_.size() < kByteOrderMark.size() && fill()) {
  }
  if (buffer_.starts_with(kByteOrderMark)) {
    position_ = kByteOrderMark.size();
    consumed_ = position_;
  }
}

bool LineReader::fill() {
  if (at_end_) return false;
  buffer_.erase(0, position_);
  position_ = 0;
  const std::size_t before = buffer_.size();
  buffer_.resize(before + kBufferBytes);
  const std::size_t got = source_->read(buffer_.data() + before, kBufferBytes);
  buffer_.resize(before + got);
  at_end_ = got == 0;
  return got > 0;
}

bool LineReader::next(std::string& line, std::size_t limit) {
  std::size_t searched = 0;
  std::size_t end = std::string::npos;
  for (;;) {
    end = buffer_.find('\n', position_ + searched);
    searched = buffer_.size() - position_;
    if (end != std::string::npos || searched >= limit || !fill()) break;
  }
  if (searched == 0) return false;
  if (ends_line_) ++line_number_;
  byte_offset_ = consumed_;
  const std::size_t length = end == std::string::npos ? searched : end - position_;
  std::size_t taken = length;
  if (length > limit || (end == std::string::npos && !at_end_)) {
    const std::string_view part = std::string_view(buffer_).substr(position_, std::min(length, limit));
    taken = std::max<std::size_t>(whole_characters(part), 1);
    ends_line_ = false;
    line.assign(buffer_, position_, taken);
  } else {
    line.assign(buffer_, position_, length);
    if (line.ends_with('\r')) line.pop_back();
    ends_line_ = true;
    taken = end == std::string::npos ? length : length + 1;
  }
  position_ += taken;
  consumed_ += taken;
  return true;
}

}  // namespace nanochat
