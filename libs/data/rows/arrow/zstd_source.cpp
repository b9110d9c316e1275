#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <arrow/util/compression.h>

#include "core/errors.h"
#include "data/rows/arrow/parquet_column.h"

namespace nanochat {
namespace {

constexpr std::size_t kInputBytes = 1 << 17;

// Concatenated frames are one stream, as `zstd -d` reads them.
class ZstdSource final : public ByteSource {
 public:
  ZstdSource(std::unique_ptr<ByteSource> source, std::string name)
      : source_(std::move(source)), name_(std::move(name)), input_(kInputBytes) {
    auto codec = arrow::util::Codec::Create(arrow::Compression::ZSTD);
    if (!codec.ok()) fail("cannot start to decompress zstd: " + codec.status().message());
    auto made = (*codec)->MakeDecompressor();
    if (!made.ok()) fail("cannot start to decompress zstd: " + made.status().message());
    decompressor_ = std::move(*made);
  }

  std::size_t read(char* buffer, std::size_t capacity) override {
    std::size_t written = 0;
    while (written == 0) {
      if (position_ == filled_ && !exhausted_) {
        position_ = 0;
        filled_ = source_->read(input_.data(), input_.size());
        exhausted_ = filled_ == 0;
      }
      if (exhausted_ && frames_ + (inside_frame_ ? 1 : 0) == 0) fail("the zstd file is truncated");
      if (exhausted_ && !inside_frame_) return 0;
      if (!inside_frame_ && frames_ > 0 && !decompressor_->Reset().ok()) fail("cannot start to decompress zstd");
      inside_frame_ = true;
      // After the last byte of the file there may still be text inside the decompressor.
      const auto result = decompressor_->Decompress(static_cast<std::int64_t>(filled_ - position_),
                                                    reinterpret_cast<const std::uint8_t*>(input_.data()) + position_,
                                                    static_cast<std::int64_t>(capacity),
                                                    reinterpret_cast<std::uint8_t*>(buffer));
      if (!result.ok()) {
        fail(any_ ? "the zstd file is corrupt (" + result.status().message() + ")"
                  : "not a zstd file, or its beginning is corrupt");
      }
      position_ += static_cast<std::size_t>(result->bytes_read);
      written = static_cast<std::size_t>(result->bytes_written);
      any_ = any_ || written > 0;
      if (decompressor_->IsFinished()) {
        inside_frame_ = false;
        ++frames_;
      } else if (exhausted_ && written == 0) {
        fail("the zstd file is truncated");
      }
    }
    return written;
  }

  std::uint64_t stored_bytes() const override { return source_->stored_bytes() - (filled_ - position_); }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw DataError(name_ + ": " + what); }

  std::unique_ptr<ByteSource> source_;
  std::string name_;
  std::vector<char> input_;
  std::size_t position_ = 0, filled_ = 0;
  std::shared_ptr<arrow::util::Decompressor> decompressor_;
  std::uint64_t frames_ = 0;
  bool inside_frame_ = false, exhausted_ = false, any_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> open_zstd_source(std::unique_ptr<ByteSource> source, const std::string& name) {
  return std::make_unique<ZstdSource>(std::move(source), name);
}

}  // namespace nanochat
