#include "data/rows/file_form.h"

#include <sys/stat.h>

#include <string>

#include <gtest/gtest.h>

#include "core/testing.h"

namespace nanochat {
namespace {

FileFormat format(const std::string& name) { return form_of(name).format; }

TEST(FileForm, IsKnownByTheEndingInAnyCase) {
  for (const char* name :
       {"a.jsonl", "a.ndjson", "a.jsonlines", "A.JSONL", "a.NdJson", "a.jsonl.gz", "a.NDJSON.GZ", "b/a.jsonl.zst"}) {
    EXPECT_EQ(format(name), FileFormat::kJsonLines) << name;
  }
  EXPECT_EQ(format("a.TXT"), FileFormat::kText);
  EXPECT_EQ(format("a.Json.Gz"), FileFormat::kJson);
  EXPECT_EQ(format("a.PARQUET"), FileFormat::kParquet);
  EXPECT_EQ(format("train-00000.tok"), FileFormat::kShard);
  for (const char* name : {"a", "a.md", "a.parquet.gz", "a.tok.gz", ".jsonl", "a.gz", "jsonl", "a.jsonl.bz2"}) {
    EXPECT_EQ(format(name), FileFormat::kUnknown) << name;
  }
}

TEST(FileForm, CompressionIsTheLastEnding) {
  EXPECT_EQ(form_of("a.txt.GZ").compression, Compression::kGzip);
  EXPECT_EQ(form_of("a.md.gz").compression, Compression::kGzip);
  EXPECT_EQ(form_of("a.txt.zst").compression, Compression::kZstd);
  EXPECT_EQ(form_of("a.txt").compression, Compression::kNone);
}

TEST(FileForm, MessagesNameTheEndings) {
  EXPECT_EQ(endings_of({FileFormat::kJsonLines, FileFormat::kParquet}),
            ".jsonl (.ndjson, .jsonlines), .parquet; also .gz and .zst");
  EXPECT_EQ(endings_of({FileFormat::kShard}), ".tok");
}

TEST(FileForm, OfStreamsIsTheirBeginning) {
  EXPECT_EQ(format_of("\xef\xbb\xbf \n{\"text\""), FileFormat::kJsonLines);
  EXPECT_EQ(format_of("  [{\"role\""), FileFormat::kJson);
  EXPECT_EQ(format_of("PAR1\x15"), FileFormat::kParquet);
  EXPECT_EQ(format_of("once upon"), FileFormat::kText);
  EXPECT_EQ(format_of(""), FileFormat::kText);
  EXPECT_EQ(compression_of("\x1f\x8b\x08"), Compression::kGzip);
  EXPECT_EQ(compression_of("\x28\xb5\x2f\xfd"), Compression::kZstd);
  EXPECT_EQ(compression_of("text"), Compression::kNone);
}

TEST(FileForm, PipesAreStreamsAndFilesAreNot) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "file", "text");
  ASSERT_EQ(::mkfifo((folder / "pipe.jsonl").c_str(), 0600), 0);
  for (const std::string path : {"-", "/dev/stdin", "/dev/fd/63", "/proc/self/fd/0"}) EXPECT_TRUE(is_stream(path)) << path;
  EXPECT_TRUE(is_stream(folder / "pipe.jsonl"));
  EXPECT_FALSE(is_stream(folder / "file"));
  EXPECT_FALSE(is_stream(folder / "absent"));
  EXPECT_FALSE(is_stream(folder.path()));
}

}  // namespace
}  // namespace nanochat
