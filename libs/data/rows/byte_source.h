#pragma once
// Streaming access to the bytes and lines of a file or standard input, decompressed (.gz, .zst). Not thread-safe.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "data/rows/file_form.h"

namespace nanochat {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Reads up to `capacity` bytes; 0 only at the end. Throws DataError with the file (unreadable; for
  // compressed files also: not gzip or zstd, corrupt, truncated, or bytes after the last member).
  virtual std::size_t read(char* buffer, std::size_t capacity) = 0;
  // Number of bytes of the stored file that have been consumed.
  virtual std::uint64_t stored_bytes() const = 0;
};

// Opens by name: .gz and .zst are decompressed (concatenated members are one stream), other files are read unchanged.
// Streams (file_form.h) are decompressed if they begin like gzip or zstd. A Git LFS pointer throws DataError.
std::unique_ptr<ByteSource> open_bytes(const std::filesystem::path& path);

// Name of a file in messages: "standard input", the name given to a spooled stream, or the path.
std::string name_of(const std::filesystem::path& path);

// Copies the rest of `source` to an unnamed temporary file (in TMPDIR, otherwise
// /tmp) that disappears when the process ends. Returns a path that can be opened
// repeatedly; messages call it `name`. Throws IoError (disk full). Thread-safe.
std::filesystem::path spool(ByteSource& source, const std::string& name);
// A path at which the same bytes can be read repeatedly: `path` itself, or a copy of a
// stream, made on first use. A stream must not be read in another way before. Thread-safe.
std::filesystem::path reopenable(const std::filesystem::path& path);

// A byte source with a look at the first bytes.
class PeekedSource : public ByteSource {
 public:
  explicit PeekedSource(std::unique_ptr<ByteSource> source) : source_(std::move(source)) {}
  // Up to `count` bytes from the beginning; call before the first read().
  std::string_view peek(std::size_t count);
  std::size_t read(char* buffer, std::size_t capacity) override;
  std::uint64_t stored_bytes() const override { return source_->stored_bytes(); }

 private:
  std::unique_ptr<ByteSource> source_;
  std::string seen_;
  std::size_t position_ = 0;
};

// A path of the stream at `path` for readers that start at its end, such as parquet; `opened` has read it up to now.
std::filesystem::path seekable(const std::filesystem::path& path, PeekedSource& opened);

// Lines without their line feed or CR LF. A byte order mark at the beginning of the file is dropped.
class LineReader {
 public:
  explicit LineReader(std::unique_ptr<ByteSource> source);

  // Replaces `line` by the next line, or by its next part if it is longer than `limit` bytes (then
  // ends_line() is false, and the part ends at a UTF-8 character). False at the end of the file.
  bool next(std::string& line, std::size_t limit);
  bool ends_line() const { return ends_line_; }
  std::uint64_t line_number() const { return line_number_; }  // of the line returned last, from 1
  std::uint64_t byte_offset() const { return byte_offset_; }  // its offset in the decompressed file
  std::uint64_t stored_bytes() const { return source_->stored_bytes(); }

 private:
  bool fill();

  std::unique_ptr<ByteSource> source_;
  std::string buffer_;
  std::size_t position_ = 0;        // in buffer_
  std::uint64_t consumed_ = 0;      // decompressed bytes handed out
  std::uint64_t line_number_ = 0, byte_offset_ = 0;
  bool ends_line_ = true, at_end_ = false;
};

}  // namespace nanochat
