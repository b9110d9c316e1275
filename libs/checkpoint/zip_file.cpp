#include "checkpoint/zip_file.h"

#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "checkpoint/checkpoint_files.h"
#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/format.h"

namespace nanochat {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are read and written as they lie in memory");

constexpr std::uint32_t kLocalSignature = 0x04034b50, kCentralSignature = 0x02014b50, kEndSignature = 0x06054b50,
                        kEnd64Signature = 0x06064b50, kLocator64Signature = 0x07064b50;
constexpr std::size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocator64Bytes = 20;
constexpr std::size_t kMaxComment = 0xFFFF;
constexpr std::uint64_t kIn64 = 0xFFFFFFFF;  // the value is in the zip64 field
constexpr std::uint16_t kField64 = 1;
constexpr std::size_t kAlignment = 64;

template <class Number>
void append(std::string& out, Number value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace

void ZipFile::fail(const std::string& what) const { throw CheckpointError(path_.string() + ": " + what); }

// The little-endian number at a place of the file.
std::uint64_t ZipFile::number(std::uint64_t at, std::size_t bytes) const {
  if (at > size() || bytes > size() - at) fail("ends within the directory of the archive; it is truncated or damaged");
  std::uint64_t value = 0;
  std::memcpy(&value, file_.bytes().data() + at, bytes);
  return value;
}

ZipFile::Directory ZipFile::find_directory() const {
  if (size() < kEndBytes || number(0, 2) != 0x4b50) {
    fail(
        "is no zip archive, which torch.save writes since PyTorch 1.6; it is of an older version, truncated or "
        "damaged");
  }
  const std::size_t last = size() - kEndBytes, first = last - std::min(last, kMaxComment);
  std::size_t end = last;
  while (number(end, 4) != kEndSignature || number(end + 20, 2) != last - end) {
    if (end == first) fail("has no directory at its end; it is truncated or damaged");
    --end;
  }
  Directory directory = {number(end + 10, 2), number(end + 12, 4), number(end + 16, 4)};
  std::size_t limit = end;
  if (end >= kLocator64Bytes && number(end - kLocator64Bytes, 4) == kLocator64Signature) {
    const std::uint64_t end64 = number(end - kLocator64Bytes + 8, 8);
    if (end64 > end - kLocator64Bytes || end - kLocator64Bytes - end64 < kEnd64Bytes || number(end64, 4) != kEnd64Signature) {
      fail("its zip64 directory is not where it says; it is damaged");
    }
    limit = static_cast<std::size_t>(end64);
    directory = {number(end64 + 32, 8), number(end64 + 40, 8), number(end64 + 48, 8)};
  }
  if (directory.offset > limit || directory.size != limit - directory.offset) {
    fail("its directory of " + std::to_string(directory.size) + " bytes at " + std::to_string(directory.offset) +
         " does not end where the archive does; it is truncated or damaged");
  }
  return directory;
}

ZipFile::ZipFile(const std::filesystem::path& path) : ZipFile(map_checkpoint_file(path), path) {}

ZipFile::ZipFile(MappedFile file, std::filesystem::path name) : path_(std::move(name)), file_(std::move(file)) {
  const Directory directory = find_directory();
  std::size_t at = static_cast<std::size_t>(directory.offset);
  const std::size_t end = at + static_cast<std::size_t>(directory.size);
  while (at < end) at = read_entry(at, directory);
  if (at != end || entries_.size() != directory.entries) {
    fail("its directory claims " + std::to_string(directory.entries) + " entries, but has " + std::to_string(entries_.size()) +
         "; it is damaged");
  }
}

// The entry described at `at`; returns the place of the next.
std::size_t ZipFile::read_entry(std::size_t at, const Directory& directory) {
  if (number(at, 4) != kCentralSignature) fail("its directory has something else than an entry; it is damaged");
  const std::uint64_t flags = number(at + 8, 2), method = number(at + 10, 2), name_bytes = number(at + 28, 2);
  const std::size_t extra = at + kCentralBytes + name_bytes, extra_end = extra + number(at + 30, 2);
  const std::size_t next = extra_end + number(at + 32, 2);
  if (next > directory.offset + directory.size) fail("an entry of its directory is cut off; it is damaged");
  const auto* name_begin = reinterpret_cast<const char*>(file_.bytes().data()) + at + kCentralBytes;
  const std::string name(name_begin, name_begin + name_bytes);
  const auto fail_entry = [&](const std::string& what) {
    fail("entry " + replace_invalid_utf8(std::string_view(name).substr(0, 100)) + " " + what);
  };
  if (!is_valid_utf8(name) || std::any_of(name.begin(), name.end(), [](char c) { return c >= 0 && c < 0x20; })) {
    fail("an entry of its directory has an unprintable name; it is damaged");
  }

  std::uint64_t stored = number(at + 20, 4), plain = number(at + 24, 4), local = number(at + 42, 4);
  for (std::size_t field = extra; field + 4 <= extra_end;) {
    const std::uint64_t id = number(field, 2);
    std::size_t value = field + 4;
    const std::size_t field_end = value + number(field + 2, 2);
    if (field_end > extra_end) fail_entry("has a field that is cut off");
    if (id == kField64) {  // only the values that did not fit, in this order
      for (std::uint64_t* target : {&plain, &stored, &local}) {
        if (*target != kIn64) continue;
        if (value + 8 > field_end) fail_entry("lacks a size");
        *target = number(value, 8);
        value += 8;
      }
    }
    field = field_end;
  }
  if (method != 0 || (flags & 1) != 0 || stored != plain) fail_entry("is compressed or encrypted, which torch.save never does");
  if (local > directory.offset || directory.offset - local < kLocalBytes || number(local, 4) != kLocalSignature) {
    fail_entry("does not lie where the directory says; the archive is damaged");
  }
  const std::uint64_t local_name = number(local + 26, 2), begin = local + kLocalBytes + local_name + number(local + 28, 2);
  if (begin > directory.offset || plain > directory.offset - begin) {
    fail_entry("claims " + std::to_string(plain) + " bytes, more than the archive has there; it is truncated or damaged");
  }
  if (local_name != name_bytes || std::memcmp(file_.bytes().data() + local + kLocalBytes, name_begin, name_bytes) != 0) {
    fail_entry("has another name where it lies; the archive is damaged");
  }
  const Entry entry = {static_cast<std::size_t>(begin), static_cast<std::size_t>(begin + plain),
                       static_cast<std::uint32_t>(number(at + 16, 4))};
  if (!entries_.emplace(name, entry).second) fail_entry("is there twice; the archive is damaged");
  return next;
}

std::span<const std::byte> ZipFile::read(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) fail("entry " + name + " is missing");
  const auto bytes = file_.bytes().subspan(found->second.begin, found->second.end - found->second.begin);
  if (crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()) != found->second.crc32) {
    fail("entry " + name + ": its CRC-32 differs from the one in the directory; it is damaged");
  }
  return bytes;
}

void ZipWriter::add(std::string_view name, const void* data, std::size_t bytes) {
  constexpr std::uint16_t kVersion = 45, kPaddingField = 0x4246, kFirstOfJanuary1980 = 0x21;
  constexpr std::size_t kLocal64Bytes = 20;
  const std::uint64_t local = file_.size();
  const auto crc = static_cast<std::uint32_t>(crc32_z(0, static_cast<const Bytef*>(data), bytes));
  const std::size_t before = static_cast<std::size_t>(local) + kLocalBytes + name.size() + kLocal64Bytes + 4;
  const auto padding = static_cast<std::uint16_t>((before + kAlignment - 1) / kAlignment * kAlignment - before);

  std::string header;
  append(header, kLocalSignature);
  append(header, kVersion);
  append(header, std::uint16_t{0});  // flags
  append(header, std::uint16_t{0});  // stored
  append(header, std::uint16_t{0});  // time
  append(header, kFirstOfJanuary1980);
  append(header, crc);
  append(header, static_cast<std::uint32_t>(kIn64));
  append(header, static_cast<std::uint32_t>(kIn64));
  append(header, static_cast<std::uint16_t>(name.size()));
  append(header, static_cast<std::uint16_t>(kLocal64Bytes + 4 + padding));
  header += name;
  append(header, kField64);
  append(header, std::uint16_t{16});
  append(header, std::uint64_t{bytes});
  append(header, std::uint64_t{bytes});
  append(header, kPaddingField);
  append(header, padding);
  header.append(padding, 'Z');
  file_.write(header);
  file_.write(data, bytes);

  append(directory_, kCentralSignature);
  append(directory_, kVersion);
  append(directory_, kVersion);
  append(directory_, std::uint16_t{0});
  append(directory_, std::uint16_t{0});
  append(directory_, std::uint16_t{0});
  append(directory_, kFirstOfJanuary1980);
  append(directory_, crc);
  append(directory_, static_cast<std::uint32_t>(kIn64));
  append(directory_, static_cast<std::uint32_t>(kIn64));
  append(directory_, static_cast<std::uint16_t>(name.size()));
  append(directory_, std::uint16_t{28});
  append(directory_, std::uint16_t{0});  // comment
  append(directory_, std::uint16_t{0});  // disk
  append(directory_, std::uint16_t{0});  // attributes
  append(directory_, std::uint32_t{0});
  append(directory_, static_cast<std::uint32_t>(kIn64));
  directory_ += name;
  append(directory_, kField64);
  append(directory_, std::uint16_t{24});
  append(directory_, std::uint64_t{bytes});
  append(directory_, std::uint64_t{bytes});
  append(directory_, local);
  ++entries_;
}

void ZipWriter::finish() {
  const std::uint64_t offset = file_.size(), end64 = offset + directory_.size();
  std::string end = directory_;
  append(end, kEnd64Signature);
  append(end, std::uint64_t{kEnd64Bytes - 12});
  append(end, std::uint16_t{45});
  append(end, std::uint16_t{45});
  append(end, std::uint32_t{0});
  append(end, std::uint32_t{0});
  append(end, entries_);
  append(end, entries_);
  append(end, std::uint64_t{directory_.size()});
  append(end, offset);
  append(end, kLocator64Signature);
  append(end, std::uint32_t{0});
  append(end, end64);
  append(end, std::uint32_t{1});
  const auto entries = static_cast<std::uint16_t>(std::min<std::uint64_t>(entries_, 0xFFFF));
  append(end, kEndSignature);
  append(end, std::uint16_t{0});
  append(end, std::uint16_t{0});
  append(end, entries);
  append(end, entries);
  append(end, static_cast<std::uint32_t>(std::min<std::uint64_t>(directory_.size(), kIn64)));
  append(end, static_cast<std::uint32_t>(std::min<std::uint64_t>(offset, kIn64)));
  append(end, std::uint16_t{0});
  file_.write(end);
}

}  // namespace nanochat
