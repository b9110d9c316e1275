#include "download/partial_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/sha256.h"
#include "core/testing.h"
#include "download/download_record.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const RemoteVersion kVersion = {.url = "http://h/x", .etag = "\"e\"", .last_modified = "Monday", .bytes = 10};

TEST(PartialFileTest, GoesOnWhereAnotherStoppedAndIsNamedAtTheEnd) {
  const testing::TemporaryDirectory folder;
  {
    PartialFile part(folder / "x", "http://h/x");
    EXPECT_EQ(part.size(), 0u);
    part.restart(kVersion);
    part.append("01234", 5);
  }
  EXPECT_FALSE(fs::exists(folder / "x"));
  {
    PartialFile part(folder / "x", "http://h/x");
    EXPECT_EQ(part.size(), 5u);
    EXPECT_EQ(part.version().etag, "\"e\"");
    EXPECT_EQ(part.version().last_modified, "Monday");
    EXPECT_EQ(part.version().bytes, 10u);
    part.append("56789", 5);
    EXPECT_EQ(part.sha256(), sha256_hex("0123456789"));
    part.commit();
  }
  EXPECT_EQ(read_file(folder / "x"), "0123456789");
  EXPECT_FALSE(fs::exists(folder / "x.part"));
  EXPECT_FALSE(fs::exists(folder / "x.part.info"));
}

TEST(PartialFileTest, BytesOfUnknownOriginAreNotUsed) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "a.part", "abc");  // no .info
  EXPECT_EQ(PartialFile(folder / "a", "http://h/a").size(), 0u);
  testing::write_text(folder / "b.part", "abc");
  testing::write_text(folder / "b.part.info", "{\"url\": \"http://h/b\", \"etag\": 3}");
  EXPECT_EQ(PartialFile(folder / "b", "http://h/b").size(), 0u);
  {
    PartialFile part(folder / "x", "http://h/x");
    part.restart(kVersion);
    part.append("abc", 3);
  }
  EXPECT_EQ(PartialFile(folder / "x", "http://h/other").size(), 0u);
  EXPECT_TRUE(fs::is_empty(folder.path())) << "empty parts are left behind";
}

TEST(PartialFileTest, OneAtATime) {
  const testing::TemporaryDirectory folder;
  const PartialFile part(folder / "x", "http://h/x");
  try {
    const PartialFile second(folder / "x", "http://h/x");
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("another process is downloading this file"));
  }
}

TEST(PartialFileTest, VersionsOfAFile) {
  RemoteVersion a = kVersion;
  EXPECT_EQ(a.if_range(), "\"e\"");
  a.etag = "W/\"e\"";
  EXPECT_EQ(a.if_range(), "Monday");
  EXPECT_FALSE(a.may_equal(kVersion));
  a = kVersion;
  a.last_modified = "";
  EXPECT_TRUE(a.may_equal(kVersion));
  a.bytes = 11;
  EXPECT_FALSE(a.may_equal(kVersion));
  RemoteVersion b = kVersion;
  a = kVersion;
  a.sha256 = b.sha256 = std::string(64, '0');
  a.etag = "\"another cache\"";
  EXPECT_TRUE(a.may_equal(b));
  b.sha256 = std::string(64, '1');
  EXPECT_FALSE(a.may_equal(b));
}

TEST(DownloadRecordTest, KeepsTheLastLineOfEachAndPassesOverTornOnes) {
  const testing::TemporaryDirectory folder;
  {
    DownloadRecord record(folder.path());
    EXPECT_FALSE(record.find("x"));
    record.add({"x", "http://h/x", 1, 2, "aa"});
    record.add({"x", "http://h/x", 3, 4, "bb"});
    record.add({"sub/y", "http://h/y", 5, 6, "cc"});
  }
  const std::string text = read_file(folder / ".downloads.jsonl");
  testing::write_text(folder / ".downloads.jsonl", text.substr(0, text.size() - 4));
  {
    DownloadRecord record(folder.path());
    ASSERT_TRUE(record.find("x"));
    EXPECT_EQ(record.find("x")->bytes, 3u);
    EXPECT_EQ(record.find("x")->sha256, "bb");
    EXPECT_FALSE(record.find("sub/y"));
    record.add({"z", "http://h/z", 7, 8, "dd"});
  }
  const DownloadRecord record(folder.path());
  ASSERT_TRUE(record.find("z"));
  EXPECT_EQ(record.find("z")->modified_ns, 8);
}

}  // namespace
}  // namespace nanochat
