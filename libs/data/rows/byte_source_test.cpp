#include "data/rows/byte_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "core/errors.h"
#include "core/testing.h"
#include "data/rows/testing_gzip.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::string read_all(const std::filesystem::path& path, std::size_t step = 1000) {
  const auto source = open_bytes(path);
  std::string all;
  std::string buffer(step, '\0');
  while (const std::size_t got = source->read(buffer.data(), buffer.size())) all.append(buffer, 0, got);
  EXPECT_EQ(source->stored_bytes(), std::filesystem::file_size(path));
  return all;
}

std::vector<std::string> read_lines(const std::filesystem::path& path, std::size_t limit = 1 << 20) {
  LineReader reader(open_bytes(path));
  std::vector<std::string> lines;
  for (std::string line; reader.next(line, limit);) lines.push_back(line + (reader.ends_line() ? "" : "+"));
  return lines;
}

TEST(ByteSource, InflatesConcatenatedMembers) {
  const testing::TemporaryDirectory folder;
  EXPECT_TRUE(rc::check("any members, any chunk size", [&] {
    const auto parts = *rc::gen::nonEmpty<std::vector<std::string>>();
    std::string plain, zipped;
    for (const std::string& part : parts) {
      plain += part;
      zipped += testing::gzip(part);
    }
    testing::write_text(folder / "a.txt.gz", zipped);
    testing::write_text(folder / "a.txt", plain);
    const auto step = *rc::gen::inRange<std::size_t>(1, 50);
    RC_ASSERT(read_all(folder / "a.txt.gz", step) == plain);
    RC_ASSERT(read_all(folder / "a.txt", step) == plain);
  }));
}

TEST(ByteSource, ReadsLongMembersAndZeroPadding) {
  const testing::TemporaryDirectory folder;
  std::string plain;
  for (int i = 0; i < 100000; ++i) plain += std::to_string(i * 7919);
  testing::write_text(folder / "a.gz", testing::gzip(plain) + testing::gzip("end") + std::string(70000, '\0'));
  EXPECT_EQ(read_all(folder / "a.gz", 100000), plain + "end");
}

TEST(ByteSource, PeekingLosesNothing) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "a.txt", "beginning and end");
  PeekedSource source(open_bytes(folder / "a.txt"));
  EXPECT_EQ(source.peek(4), "begi");
  EXPECT_EQ(source.peek(2), "be");
  std::string all(40, '\0');
  std::size_t count = source.read(all.data(), 3);
  EXPECT_EQ(count, 3U);
  while (const std::size_t got = source.read(all.data() + count, all.size() - count)) count += got;
  EXPECT_EQ(all.substr(0, count), "beginning and end");
  EXPECT_EQ(source.stored_bytes(), 17U);
  PeekedSource shorter(open_bytes(folder / "a.txt"));
  EXPECT_EQ(shorter.peek(100), "beginning and end");
}

TEST(ByteSource, RefusesEveryTruncationAndOtherBytes) {
  const testing::TemporaryDirectory folder;
  const std::string zipped = testing::gzip("some text that is long enough to be cut anywhere");
  for (std::size_t length = 0; length < zipped.size(); ++length) {
    testing::write_text(folder / "cut.gz", zipped.substr(0, length));
    EXPECT_THAT([&] { read_all(folder / "cut.gz"); }, ThrowsMessage<DataError>(HasSubstr("cut.gz: the gzip file is truncated")))
        << length;
  }
  const auto error = [&](const std::string& bytes, const std::string& message) {
    testing::write_text(folder / "bad.gz", bytes);
    EXPECT_THAT([&] { read_all(folder / "bad.gz"); }, ThrowsMessage<DataError>(HasSubstr("bad.gz: " + message)));
  };
  error("plain text", "not a gzip file");
  error(zipped + "garbage", "the gzip file is corrupt");
  std::string flipped = zipped;
  flipped[zipped.size() - 6] = static_cast<char>(flipped[zipped.size() - 6] ^ 1);  // in the CRC-32
  error(flipped, "the gzip file is corrupt");
  EXPECT_THAT([&] { open_bytes(folder / "missing.txt"); }, ThrowsMessage<DataError>(HasSubstr("cannot open")));
  EXPECT_THAT([&] { read_all(folder.path()); }, ThrowsMessage<DataError>(HasSubstr("cannot read")));
}

TEST(LineReader, SplitsLinesOfEveryEnding) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "a.txt", "\xef\xbb\xbfone\r\ntwo\n\n three \r\nlast");
  EXPECT_THAT(read_lines(folder / "a.txt"), ElementsAre("one", "two", "", " three ", "last"));
  testing::write_text(folder / "a.txt", "one\n");
  EXPECT_THAT(read_lines(folder / "a.txt"), ElementsAre("one"));
  testing::write_text(folder / "a.txt", "");
  EXPECT_THAT(read_lines(folder / "a.txt"), ElementsAre());
}

TEST(LineReader, TellsLineNumbersAndOffsets) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "a.txt",
                      "\xef\xbb\xbf"
                      "ab\r\n\nxyz");
  LineReader reader(open_bytes(folder / "a.txt"));
  std::string line;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> places;
  while (reader.next(line, 100)) places.emplace_back(reader.line_number(), reader.byte_offset());
  EXPECT_THAT(places, ElementsAre(std::pair(1u, 3u), std::pair(2u, 7u), std::pair(3u, 8u)));
}

TEST(LineReader, CutsLongLinesAtCharacters) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "a.txt",
                      "abc\xc3\xa9"
                      "de\n\xf0\x9f\x98\x80\xf0\x9f\x98\x80\n");
  EXPECT_THAT(read_lines(folder / "a.txt", 4), ElementsAre("abc+",
                                                           "\xc3\xa9"
                                                           "de",
                                                           "\xf0\x9f\x98\x80+", "\xf0\x9f\x98\x80"));
}

TEST(LineReader, LosesNothingWhateverTheLimit) {
  const testing::TemporaryDirectory folder;
  EXPECT_TRUE(rc::check("parts of lines add up", [&] {
    const auto text = *rc::gen::container<std::string>(rc::gen::element('a', '\n', 'b'));
    const auto limit = *rc::gen::inRange<std::size_t>(4, 12);
    testing::write_text(folder / "a.txt", text);
    LineReader reader(open_bytes(folder / "a.txt"));
    std::string all, line;
    while (reader.next(line, limit)) {
      RC_ASSERT(line.size() <= limit);
      all += line + (reader.ends_line() ? "\n" : "");
    }
    if (!text.empty() && !text.ends_with('\n') && !all.empty() && all.ends_with('\n')) all.pop_back();
    RC_ASSERT(all == text);
  }));
}

}  // namespace
}  // namespace nanochat
