#include "checkpoint/zip_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using namespace std::string_literals;

std::string text_of(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

class ZipFileTest : public ::testing::Test {
 protected:
  std::string error_of(const std::string& bytes) {
    testing::write_text(path_, bytes);
    try {
      const ZipFile archive(path_);
      for (const auto& [name, entry] : archive.entries()) archive.read(name);
    } catch (const CheckpointError& error) {
      EXPECT_THAT(error.what(), HasSubstr(path_.string()));
      return error.what();
    }
    return "no error";
  }
  testing::TemporaryDirectory folder_;
  fs::path path_ = folder_ / "a.zip";
};

// What `zip -0` writes: one entry "a/b" that holds "hello", no zip64 anywhere. Its CRC-32 is 0x3610A686.
std::string plain_archive() {
  const std::string crc = "\x86\xa6\x10\x36"s, five = "\x05\0\0\0"s;
  const std::string rest = "\0\0\0\0\x21\0"s + crc + five + five;  // method, time, date, checksum, sizes
  const std::string local = "PK\x03\x04\x0a\0\0\0"s + rest + "\x03\0\0\0"s + "a/b" + "hello";
  const std::string central = "PK\x01\x02\x1e\x03\x0a\0\0\0"s + rest + "\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"s + "a/b";
  const std::string end = "PK\x05\x06\0\0\0\0\x01\0\x01\0"s + static_cast<char>(central.size()) + "\0\0\0"s +
                          static_cast<char>(local.size()) + "\0\0\0\0\0"s;
  return local + central + end;
}

TEST_F(ZipFileTest, ReadsWhatOthersWrite) {
  testing::write_text(path_, plain_archive());
  const ZipFile archive(path_);
  ASSERT_EQ(archive.entries().size(), 1U);
  EXPECT_EQ(text_of(archive.read("a/b")), "hello");
  EXPECT_EQ(archive.entries().at("a/b").begin, 33U);
  EXPECT_THROW(archive.read("a/c"), CheckpointError);
  // A comment behind the directory belongs to the format.
  std::string commented = plain_archive();
  commented[commented.size() - 2] = 4;
  EXPECT_EQ(error_of(commented + "note"), "no error");
}

TEST_F(ZipFileTest, ReadsWhatItWrites) {
  AtomicFile file(path_);
  ZipWriter writer(file);
  const std::string large(100'000, 'x');
  writer.add("f/data.pkl", "one");
  writer.add("f/empty", "");
  writer.add("f/large", large);
  writer.finish();
  file.commit();
  const ZipFile archive(path_);
  EXPECT_EQ(archive.entries().size(), 3U);
  EXPECT_EQ(text_of(archive.read("f/data.pkl")), "one");
  EXPECT_EQ(text_of(archive.read("f/empty")), "");
  EXPECT_EQ(text_of(archive.read("f/large")), large);
  for (const auto& [name, entry] : archive.entries()) EXPECT_EQ(entry.begin % 64, 0U) << name;
}

TEST_F(ZipFileTest, SaysWhatIsDamaged) {
  const std::string good = plain_archive();
  const std::size_t central = good.find("PK\x01\x02"), end = good.find("PK\x05\x06");
  EXPECT_EQ(error_of(good), "no error");
  const auto with = [&](std::size_t at, const std::string& bytes) {
    std::string changed = good;
    return error_of(changed.replace(at, bytes.size(), bytes));
  };
  EXPECT_THAT(error_of(""), HasSubstr("is no zip archive"));
  EXPECT_THAT(error_of("\x80\x02}." + std::string(100, ' ')), HasSubstr("is no zip archive"));
  EXPECT_THAT(error_of(good.substr(0, good.size() - 1)), HasSubstr("no directory at its end"));
  EXPECT_THAT(error_of(good + "x"), HasSubstr("no directory at its end"));
  EXPECT_THAT(with(33, "j"), HasSubstr("entry a/b: its CRC-32 differs"));
  EXPECT_THAT(with(30, "c"), HasSubstr("entry a/b has another name where it lies"));
  EXPECT_THAT(with(0, "PK\x07\x07"), HasSubstr("entry a/b does not lie where the directory says"));
  EXPECT_THAT(with(central, "PK\x07\x07"), HasSubstr("something else than an entry"));
  EXPECT_THAT(with(central + 10, "\x08"), HasSubstr("entry a/b is compressed or encrypted"));
  EXPECT_THAT(with(central + 8, "\x01"), HasSubstr("entry a/b is compressed or encrypted"));
  EXPECT_THAT(with(central + 20, "\x06"), HasSubstr("entry a/b is compressed or encrypted"));
  EXPECT_THAT(with(central + 20, "\xf0\xff\xff\x7f\xf0\xff\xff\x7f"), HasSubstr("claims 2147483632 bytes, more than"));
  EXPECT_THAT(with(central + 20, "\xff\xff\xff\xff\xff\xff\xff\xff"), HasSubstr("claims 4294967295 bytes, more than"));
  EXPECT_THAT(with(central + 28, "\xff\xff"), HasSubstr("is cut off"));
  EXPECT_THAT(with(central + 42, "\xff\xff\xff\x7f"), HasSubstr("does not lie where the directory says"));
  EXPECT_THAT(with(end + 10, "\x02"), HasSubstr("claims 2 entries, but has 1"));
  EXPECT_THAT(with(end + 12, "\xff\xff"), HasSubstr("does not end where the archive does"));
  EXPECT_THAT(with(end + 16, "\x07"), HasSubstr("does not end where the archive does"));
}

TEST_F(ZipFileTest, RefusesAnEntryThatIsThereTwice) {
  AtomicFile file(path_);
  ZipWriter writer(file);
  writer.add("f/a", "one");
  writer.add("f/a", "two");
  writer.finish();
  file.commit();
  EXPECT_THAT(error_of(read_file(path_)), HasSubstr("entry f/a is there twice"));
}

}  // namespace
}  // namespace nanochat
