#include "data/shards/shard.h"

#include <cstring>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <zlib.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/sha256.h"
#include "core/testing.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Documents = std::vector<std::vector<std::int32_t>>;

const std::string kFingerprint = sha256_hex("a tokenizer");

ShardInfo write_shard(const std::filesystem::path& path, std::int64_t vocab_size, const Documents& documents) {
  ShardWriter writer(path, vocab_size, kFingerprint);
  for (const auto& document : documents) writer.add(document, 3 * document.size());
  return writer.finish();
}

Documents read_shard(const ShardReader& reader) {
  Documents documents;
  for (std::uint64_t i = 0; i < reader.info().documents; ++i) {
    documents.emplace_back();
    reader.document(i, documents.back());
    EXPECT_EQ(static_cast<std::int64_t>(documents.back().size()), reader.document_length(i));
  }
  return documents;
}

TEST(Shard, RoundTripsAnyDocuments) {
  const testing::TemporaryDirectory folder;
  EXPECT_TRUE(rc::check("shard round trip", [&] {
    const auto vocab_size = *rc::gen::element<std::int64_t>(1, 300, 65536, 65537, 200000);
    const auto documents = *rc::gen::container<Documents>(rc::gen::container<std::vector<std::int32_t>>(
        rc::gen::inRange<std::int32_t>(0, static_cast<std::int32_t>(vocab_size))));
    std::uint64_t tokens = 0;
    for (const auto& document : documents) tokens += document.size();
    const ShardInfo written = write_shard(folder / "a.tok", vocab_size, documents);
    const ShardReader reader(folder / "a.tok");
    RC_ASSERT(read_shard(reader) == documents);
    RC_ASSERT(reader.info().tokens == tokens);
    RC_ASSERT(reader.info().text_bytes == 3 * tokens);
    RC_ASSERT(reader.info().vocab_size == static_cast<std::uint64_t>(vocab_size));
    RC_ASSERT(reader.info().bytes_per_token == (vocab_size <= 65536 ? 2 : 4));
    RC_ASSERT(reader.info().tokenizer_fingerprint == kFingerprint);
    RC_ASSERT(reader.info().checksum == written.checksum);
    reader.verify();
  }));
}

// The bytes that docs/formats/token-shards.md tells.
TEST(Shard, HasTheDocumentedBytes) {
  const testing::TemporaryDirectory folder;
  write_shard(folder / "a.tok", 1000, {{1, 2}, {}, {999}});
  const std::string bytes = read_file(folder / "a.tok");
  ASSERT_EQ(bytes.size(), 128u + 8u + 4u * 8u + 3u * 4u);
  const auto u64 = [&](std::size_t at) {
    std::uint64_t value = 0;
    std::memcpy(&value, bytes.data() + at, 8);
    return value;
  };
  const auto u32 = [&](std::size_t at) {
    std::uint32_t value = 0;
    std::memcpy(&value, bytes.data() + at, 4);
    return value;
  };
  EXPECT_EQ(bytes.substr(0, 8), "NCTOK\r\n\x1a");
  EXPECT_EQ(u32(8), 2u);
  EXPECT_EQ(u32(12), 2u);
  EXPECT_EQ(u64(16), 3u);
  EXPECT_EQ(u64(24), 3u);
  EXPECT_EQ(u64(32), 9u);
  EXPECT_EQ(u64(40), 1000u);
  EXPECT_EQ(static_cast<unsigned char>(bytes[48]), std::stoul(kFingerprint.substr(0, 2), nullptr, 16));
  EXPECT_EQ(static_cast<unsigned char>(bytes[79]), std::stoul(kFingerprint.substr(62, 2), nullptr, 16));
  EXPECT_EQ(u64(80), 136u);
  const auto* data = reinterpret_cast<const Bytef*>(bytes.data());
  EXPECT_EQ(u32(88), crc32(0, data + 128, static_cast<uInt>(bytes.size() - 128)));
  EXPECT_EQ(u32(92), crc32(0, data, 92));
  EXPECT_EQ(bytes.substr(96, 32), std::string(32, '\0'));
  EXPECT_EQ(bytes.substr(128, 8), std::string("\x01\x00\x02\x00\xe7\x03\x00\x00", 8));
  EXPECT_EQ(u64(136), 0u);
  EXPECT_EQ(u64(144), 2u);
  EXPECT_EQ(u64(152), 2u);
  EXPECT_EQ(u64(160), 3u);
  EXPECT_EQ(u32(168), crc32(0, data + 128, 4));
  EXPECT_EQ(u32(172), 0u);
  EXPECT_EQ(u32(176), crc32(0, data + 132, 2));
}

TEST(ShardWriter, ShowsNothingUntilFinished) {
  const testing::TemporaryDirectory folder;
  {
    ShardWriter writer(folder / "a.tok", 10, kFingerprint);
    writer.add(std::vector<std::int32_t>{1, 2, 3}, 3);
    EXPECT_EQ(writer.tokens(), 3u);
    EXPECT_EQ(writer.documents(), 1u);
    EXPECT_FALSE(std::filesystem::exists(folder / "a.tok"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(ShardWriter, RefusesWhatCannotBeStored) {
  const testing::TemporaryDirectory folder;
  ShardWriter writer(folder / "a.tok", 10, kFingerprint);
  EXPECT_THAT(
      [&] {
        writer.add(std::vector<std::int32_t>{3, 10}, 1);
      },
      ThrowsMessage<DataError>(HasSubstr("token id 10 of document 0 is outside the vocabulary of 10")));
  EXPECT_THROW(writer.add(std::vector<std::int32_t>{-1}, 1), DataError);
  EXPECT_THROW(ShardWriter(folder / "b.tok", 0, kFingerprint), DataError);
  EXPECT_THAT([&] { ShardWriter(folder / "b.tok", 10, "abc"); }, ThrowsMessage<DataError>(HasSubstr("\"abc\" is not 64")));
  EXPECT_THROW(ShardWriter(folder / "missing" / "b.tok", 10, kFingerprint), IoError);
}

// Whatever single byte is changed or wherever the file ends, it is refused, by the constructor or by verify().
TEST(ShardReader, NoticesEveryChangedByteAndEveryTruncation) {
  const testing::TemporaryDirectory folder;
  write_shard(folder / "good.tok", 300, {{1, 2, 3}, {4}, {}, {299, 5}});
  const std::string good = read_file(folder / "good.tok");
  const std::filesystem::path path = folder / "bad.tok";
  const auto refused = [&](const std::string& bytes) {
    testing::write_text(path, bytes);
    try {
      const ShardReader reader(path);
      reader.verify();
    } catch (const DataError& error) {
      return std::string(error.what()).find("bad.tok") != std::string::npos;
    }
    return false;
  };
  for (std::size_t i = 0; i < good.size(); ++i) {
    if (i >= 96 && i < 128) continue;  // reserved
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x41);
    EXPECT_TRUE(refused(bad)) << "byte " << i;
  }
  for (std::size_t length = 0; length < good.size(); ++length) EXPECT_TRUE(refused(good.substr(0, length))) << length;
  EXPECT_TRUE(refused(good + "x"));
}

// A header whose own checksum is right and whose numbers would overflow or reach outside.
TEST(ShardReader, RefusesLyingHeaders) {
  const testing::TemporaryDirectory folder;
  write_shard(folder / "good.tok", 300, {{1, 2, 3}, {4}});
  const std::string good = read_file(folder / "good.tok");
  const auto with = [&](std::size_t at, std::uint64_t value, std::size_t bytes) {
    std::string bad = good;
    std::memcpy(bad.data() + at, &value, bytes);
    const auto sum = static_cast<std::uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(bad.data()), 92));
    std::memcpy(bad.data() + 92, &sum, 4);
    testing::write_text(folder / "bad.tok", bad);
    return [path = folder / "bad.tok"] { ShardReader reader(path); };
  };
  EXPECT_THAT(with(8, 1, 4), ThrowsMessage<DataError>(HasSubstr("version 1 is unknown")));
  EXPECT_THAT(with(12, 3, 4), ThrowsMessage<DataError>(HasSubstr("3 bytes per token")));
  EXPECT_THAT(with(12, 4, 4), ThrowsMessage<DataError>(HasSubstr("do not fit its header")));
  for (const std::uint64_t lie : {std::uint64_t{1} << 63, ~std::uint64_t{0}, std::uint64_t{1} << 61, std::uint64_t{3}}) {
    EXPECT_THAT(with(16, lie, 8), ThrowsMessage<DataError>(HasSubstr("do not fit its header"))) << lie;
    // Three tokens take as many bytes as the true number, padded.
    const char* what = lie == 3 ? "the document offsets are corrupt" : "do not fit its header";
    EXPECT_THAT(with(24, lie, 8), ThrowsMessage<DataError>(HasSubstr(what))) << lie;
  }
  EXPECT_THAT(with(40, 0, 8), ThrowsMessage<DataError>(HasSubstr("a vocabulary of 0")));
  EXPECT_THAT(with(40, 70000, 8), ThrowsMessage<DataError>(HasSubstr("does not fit 2 bytes per token")));
  EXPECT_THAT(with(152, 3, 8), ThrowsMessage<DataError>(HasSubstr("offsets are corrupt")));
  // Offsets in the middle are looked at when their documents are read.
  EXPECT_NO_THROW(with(144, 9, 8)());
  const ShardReader reader(folder / "bad.tok");
  std::vector<std::int32_t> tokens;
  for (const std::uint64_t document : {0, 1}) {
    EXPECT_THAT([&] { reader.document(document, tokens); }, ThrowsMessage<DataError>(HasSubstr("offsets are corrupt")));
  }
}

TEST(ShardReader, RefusesIdsOutsideTheVocabularyAsItReads) {
  const testing::TemporaryDirectory folder;
  write_shard(folder / "a.tok", 300, {{1, 2, 3}, {4}});
  std::string bytes = read_file(folder / "a.tok");
  bytes[128 + 3] = '\x7f';
  testing::write_text(folder / "a.tok", bytes);
  const ShardReader reader(folder / "a.tok");
  std::vector<std::int32_t> tokens = {7};
  EXPECT_THAT([&] { reader.document(0, tokens); }, ThrowsMessage<DataError>(HasSubstr("in document 0 is outside")));
  EXPECT_EQ(tokens, std::vector<std::int32_t>{7});
  reader.document(1, tokens);
  EXPECT_EQ(tokens, (std::vector<std::int32_t>{7, 4}));
  EXPECT_THAT([&] { reader.document(2, tokens); }, ThrowsMessage<DataError>(HasSubstr("document 2 of 2")));
  EXPECT_THROW(reader.document_length(2), DataError);
}

// Ids that could be: only the checksum tells, for this document alone.
TEST(ShardReader, RefusesDamagedDocumentsAsItReads) {
  const testing::TemporaryDirectory folder;
  for (const std::int64_t vocab_size : {300, 70000}) {
    write_shard(folder / "a.tok", vocab_size, {{1, 2, 3}, {4}, {}});
    std::string bytes = read_file(folder / "a.tok");
    bytes[128] = '\x09';
    testing::write_text(folder / "a.tok", bytes);
    const ShardReader reader(folder / "a.tok");
    std::vector<std::int32_t> tokens = {7};
    EXPECT_THAT([&] { reader.document(0, tokens); },
                ThrowsMessage<DataError>(HasSubstr("document 0 is corrupt (wrong CRC-32)")));
    reader.document(1, tokens);
    reader.document(2, tokens);
    EXPECT_EQ(tokens, (std::vector<std::int32_t>{7, 4}));
  }
}

TEST(ShardReader, RefusesOtherFiles) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "text.tok", std::string(1000, 'x'));
  EXPECT_THAT([&] { ShardReader reader(folder / "text.tok"); }, ThrowsMessage<DataError>(HasSubstr("NCTOK")));
  testing::write_text(folder / "empty.tok", "");
  EXPECT_THAT([&] { ShardReader reader(folder / "empty.tok"); }, ThrowsMessage<DataError>(HasSubstr("too few")));
  EXPECT_THROW(ShardReader(folder / "missing.tok"), DataError);
}

}  // namespace
}  // namespace nanochat
