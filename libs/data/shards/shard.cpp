#include "data/shards/shard.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include <spdlog/fmt/fmt.h>
#include <zlib.h>

#include "core/atomic_file.h"
#include "core/errors.h"

namespace nanochat {
namespace {

static_assert(std::endian::native == std::endian::little, "token shards are mapped as they are: little-endian");

// The carriage return, line feed and control-Z catch a transfer in text mode, as in PNG.
constexpr std::array<char, 8> kMagic = {'N', 'C', 'T', 'O', 'K', '\r', '\n', '\x1a'};
constexpr std::size_t kHeaderBytes = 128;
constexpr std::size_t kCheckedHeaderBytes = 92;  // what header_checksum covers

struct Header {
  std::array<char, 8> magic = kMagic;
  std::uint32_t version = kShardVersion;
  std::uint32_t bytes_per_token = 2;
  std::uint64_t documents = 0;
  std::uint64_t tokens = 0;
  std::uint64_t text_bytes = 0;
  std::uint64_t vocab_size = 0;
  std::array<std::uint8_t, 32> fingerprint{};
  std::uint64_t offsets_position = 0;
  std::uint32_t checksum = 0;
  std::uint32_t header_checksum = 0;
  std::array<std::uint8_t, 32> reserved{};
};
static_assert(sizeof(Header) == kHeaderBytes && offsetof(Header, header_checksum) == kCheckedHeaderBytes);

std::uint32_t crc(std::uint32_t value, const void* data, std::size_t bytes) {
  if (bytes == 0) return value;  // zlib begins anew when it is given a null pointer
  return static_cast<std::uint32_t>(crc32_z(value, static_cast<const Bytef*>(data), bytes));
}

std::uint64_t align8(std::uint64_t bytes) { return (bytes + 7) / 8 * 8; }

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

std::array<std::uint8_t, 32> parse_fingerprint(const std::string& hex) {
  std::array<std::uint8_t, 32> bytes{};
  const bool right = hex.size() == 64 && std::all_of(hex.begin(), hex.end(), [](char c) { return hex_digit(c) >= 0; });
  if (!right) {
    throw DataError(fmt::format("tokenizer fingerprint \"{}\" is not 64 lower-case hexadecimal digits", hex));
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::uint8_t>(hex_digit(hex[2 * i]) * 16 + hex_digit(hex[2 * i + 1]));
  }
  return bytes;
}

std::string format_fingerprint(const std::array<std::uint8_t, 32>& bytes) {
  std::string hex;
  for (const std::uint8_t byte : bytes) hex += fmt::format("{:02x}", byte);
  return hex;
}

}  // namespace

struct ShardWriter::Impl {
  Impl(std::filesystem::path target, std::int64_t vocab, std::string fingerprint_hex)
      : path(std::move(target)), fingerprint(std::move(fingerprint_hex)), file(path) {
    header.vocab_size = static_cast<std::uint64_t>(vocab);
    header.bytes_per_token = vocab <= 65536 ? 2 : 4;
    header.fingerprint = parse_fingerprint(fingerprint);
    file.write(&header, sizeof(header));
  }

  void append_document(const void* data, std::size_t bytes) {
    checksums.push_back(crc(0, data, bytes));
    append(data, bytes);
  }

  void append(const void* data, std::size_t bytes) {
    file.write(data, bytes);
    header.checksum = crc(header.checksum, data, bytes);
  }

  std::filesystem::path path;
  std::string fingerprint;
  AtomicFile file;
  Header header;
  std::vector<std::uint64_t> offsets = {0};
  std::vector<std::uint32_t> checksums;
  std::vector<std::uint16_t> narrow;
};

ShardWriter::ShardWriter(std::filesystem::path path, std::int64_t vocab_size, std::string tokenizer_fingerprint) {
  if (vocab_size < 1 || vocab_size > std::numeric_limits<std::int32_t>::max()) {
    throw DataError(fmt::format("{}: a vocabulary of {} tokens cannot be stored", path.string(), vocab_size));
  }
  impl_ = std::make_unique<Impl>(std::move(path), vocab_size, std::move(tokenizer_fingerprint));
}

ShardWriter::~ShardWriter() = default;

void ShardWriter::add(std::span<const std::int32_t> document_tokens, std::uint64_t text_bytes) {
  Header& header = impl_->header;
  for (const std::int32_t id : document_tokens) {
    if (id < 0 || static_cast<std::uint64_t>(id) >= header.vocab_size) {
      throw DataError(fmt::format("{}: token id {} of document {} is outside the vocabulary of {}", impl_->path.string(), id,
                                  header.documents, header.vocab_size));
    }
  }
  if (header.bytes_per_token == 2) {
    impl_->narrow.assign(document_tokens.begin(), document_tokens.end());
    impl_->append_document(impl_->narrow.data(), impl_->narrow.size() * sizeof(std::uint16_t));
  } else {
    impl_->append_document(document_tokens.data(), document_tokens.size() * sizeof(std::uint32_t));
  }
  header.documents += 1;
  header.tokens += document_tokens.size();
  header.text_bytes += text_bytes;
  impl_->offsets.push_back(header.tokens);
}

std::uint64_t ShardWriter::documents() const { return impl_->header.documents; }

std::uint64_t ShardWriter::tokens() const { return impl_->header.tokens; }

ShardInfo ShardWriter::finish() {
  Header& header = impl_->header;
  const std::uint64_t token_bytes = header.tokens * header.bytes_per_token;
  const std::array<char, 8> zeros{};
  impl_->append(zeros.data(), align8(token_bytes) - token_bytes);
  header.offsets_position = kHeaderBytes + align8(token_bytes);
  impl_->append(impl_->offsets.data(), impl_->offsets.size() * sizeof(std::uint64_t));
  impl_->append(impl_->checksums.data(), impl_->checksums.size() * sizeof(std::uint32_t));
  header.header_checksum = crc(0, &header, kCheckedHeaderBytes);
  impl_->file.write_at(0, &header, sizeof(header));
  impl_->file.commit();
  ShardInfo info;
  info.bytes_per_token = static_cast<int>(header.bytes_per_token);
  info.documents = header.documents;
  info.tokens = header.tokens;
  info.text_bytes = header.text_bytes;
  info.vocab_size = header.vocab_size;
  info.tokenizer_fingerprint = impl_->fingerprint;
  info.checksum = header.checksum;
  return info;
}

void ShardReader::fail(const std::string& what) const { throw DataError(fmt::format("{}: {}", path_.string(), what)); }

namespace {

constexpr const char* kCorruptOffsets = "the document offsets are corrupt: they must rise from 0 to the number of tokens";

}  // namespace

ShardReader::ShardReader(const std::filesystem::path& path) : ShardReader(MappedFile(path), path) {}

ShardReader::ShardReader(MappedFile file, std::filesystem::path name) : path_(std::move(name)), file_(std::move(file)) {
  const std::span<const std::byte> bytes = file_.bytes();
  Header header;
  if (bytes.size() < sizeof(header)) {
    fail(fmt::format("{} bytes are too few for the header of {}; the file is truncated or no token shard", bytes.size(),
                     sizeof(header)));
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.magic != kMagic) fail("does not begin as a token shard does (NCTOK); write one with `nanochat data prepare`");
  if (header.version != kShardVersion) {
    fail(fmt::format("version {} is unknown; this program reads version {}", header.version, kShardVersion));
  }
  if (crc(0, &header, kCheckedHeaderBytes) != header.header_checksum) fail("the header is corrupt (wrong CRC-32)");
  if (header.bytes_per_token != 2 && header.bytes_per_token != 4) {
    fail(fmt::format("{} bytes per token, expected 2 or 4", header.bytes_per_token));
  }
  const std::uint64_t vocab_limit = header.bytes_per_token == 2 ? 65536 : std::numeric_limits<std::int32_t>::max();
  if (header.vocab_size < 1 || header.vocab_size > vocab_limit) {
    fail(fmt::format("a vocabulary of {} does not fit {} bytes per token", header.vocab_size, header.bytes_per_token));
  }
  // Bounds by division first, so that no sum below can overflow.
  const std::uint64_t payload = bytes.size() - kHeaderBytes;
  const bool plausible = header.tokens <= payload / header.bytes_per_token &&
                         header.documents < payload / sizeof(std::uint64_t);
  const std::uint64_t offsets_position = plausible ? kHeaderBytes + align8(header.tokens * header.bytes_per_token) : 0;
  const std::uint64_t checksums_position = offsets_position + (header.documents + 1) * sizeof(std::uint64_t);
  const std::uint64_t expected = checksums_position + header.documents * sizeof(std::uint32_t);
  if (!plausible || header.offsets_position != offsets_position || expected != bytes.size()) {
    fail(fmt::format("{} bytes do not fit its header ({} documents, {} tokens); the file is truncated or corrupt", bytes.size(),
                     header.documents, header.tokens));
  }
  tokens_ = bytes.data() + kHeaderBytes;
  offsets_ = static_cast<const std::uint64_t*>(static_cast<const void*>(bytes.data() + offsets_position));
  checksums_ = static_cast<const std::uint32_t*>(static_cast<const void*>(bytes.data() + checksums_position));
  if (offsets_[0] != 0 || offsets_[header.documents] != header.tokens) fail(kCorruptOffsets);
  info_.bytes_per_token = static_cast<int>(header.bytes_per_token);
  info_.documents = header.documents;
  info_.tokens = header.tokens;
  info_.text_bytes = header.text_bytes;
  info_.vocab_size = header.vocab_size;
  info_.tokenizer_fingerprint = format_fingerprint(header.fingerprint);
  info_.checksum = header.checksum;
  drop_resident();  // with the two pages looked at come many around them, of a thousand shards a gigabyte
}

void ShardReader::check_index(std::uint64_t index) const {
  if (index >= info_.documents) fail(fmt::format("document {} of {}", index, info_.documents));
}

std::int64_t ShardReader::document_length(std::uint64_t index) const {
  check_index(index);
  if (offsets_[index] > offsets_[index + 1] || offsets_[index + 1] > info_.tokens) fail(kCorruptOffsets);
  return static_cast<std::int64_t>(offsets_[index + 1] - offsets_[index]);
}

void ShardReader::document(std::uint64_t index, std::vector<std::int32_t>& tokens) const {
  const auto length = static_cast<std::size_t>(document_length(index));
  const std::size_t before = tokens.size();
  tokens.resize(before + length);
  const std::byte* source = tokens_ + offsets_[index] * static_cast<std::uint64_t>(info_.bytes_per_token);
  std::uint32_t largest = 0;
  for (std::size_t i = 0; i < length; ++i) {
    std::uint32_t id = 0;
    if (info_.bytes_per_token == 2) {
      std::uint16_t narrow = 0;
      std::memcpy(&narrow, source + 2 * i, 2);
      id = narrow;
    } else {
      std::memcpy(&id, source + 4 * i, 4);
    }
    largest = std::max(largest, id);
    tokens[before + i] = static_cast<std::int32_t>(id);
  }
  const bool intact = crc(0, source, length * static_cast<std::size_t>(info_.bytes_per_token)) == checksums_[index];
  if (largest >= info_.vocab_size || !intact) tokens.resize(before);
  if (largest >= info_.vocab_size) {
    fail(fmt::format("token id {} in document {} is outside the vocabulary of {}; the file is corrupt", largest, index,
                     info_.vocab_size));
  }
  if (!intact) fail(fmt::format("document {} is corrupt (wrong CRC-32)", index));
}

void ShardReader::verify() const {
  const std::span<const std::byte> payload = file_.bytes().subspan(kHeaderBytes);
  if (crc(0, payload.data(), payload.size()) != info_.checksum) fail("the contents are corrupt (wrong CRC-32)");
}

}  // namespace nanochat
