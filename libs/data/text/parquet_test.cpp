// Reading of .parquet and .zst: against files written here, and against real ones (the figures of those were computed
// with pyarrow; tests/parity/parquet_parity.py compares text by text).
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#ifdef NANOCHAT_HAS_PARQUET
#include <arrow/io/file.h>
#include <arrow/util/compression.h>
#include <parquet/api/writer.h>
#endif

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/sha256.h"
#include "core/testing.h"
#include "core/testing_corruption.h"
#include "data/rows/byte_source.h"
#include "data/text/documents.h"
#include "data/text/testing_documents.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
namespace fs = std::filesystem;
using Documents = std::vector<std::string>;

Documents read(const std::vector<fs::path>& files, const std::string& column = "") {
  ReaderOptions options;
  options.text_column = column;
  return testing::read_documents(files, options);
}

#ifndef NANOCHAT_HAS_PARQUET

TEST(Parquet, ABuildWithoutArrowSaysHowToGetIt) {
  const testing::TemporaryDirectory folder;
  for (const char* name : {"a.parquet", "a.txt.zst"}) {
    testing::write_text(folder / name, "PAR1");
    EXPECT_THAT([&] { read({folder / name}); }, ThrowsMessage<DataError>(HasSubstr("run scripts/setup.sh")));
  }
}

#else

constexpr std::uint64_t kMegabyte = 1 << 20;

struct WriteOptions {
  parquet::Compression::type codec = parquet::Compression::ZSTD;
  bool dictionary = false, checksums = false, binary_first = false;
  int rows_per_group = 100;
  std::int64_t page_bytes = kMegabyte;
};

// A file with the columns id (INT64), raw (binary, when binary_first) and body (string): `row(i)` is the i-th body,
// and an empty one is null.
template <typename Function>
void write_parquet(const fs::path& path, int rows, Function row, const WriteOptions& options = {}) {
  using parquet::schema::PrimitiveNode;
  parquet::schema::NodeVector fields = {PrimitiveNode::Make("id", parquet::Repetition::REQUIRED, parquet::Type::INT64)};
  if (options.binary_first) {
    fields.push_back(PrimitiveNode::Make("raw", parquet::Repetition::REQUIRED, parquet::Type::BYTE_ARRAY));
  }
  fields.push_back(PrimitiveNode::Make("body", parquet::Repetition::OPTIONAL, parquet::LogicalType::String(),
                                       parquet::Type::BYTE_ARRAY));
  const auto schema = std::static_pointer_cast<parquet::schema::GroupNode>(
      parquet::schema::GroupNode::Make("schema", parquet::Repetition::REQUIRED, fields));
  parquet::WriterProperties::Builder properties;
  properties.compression(options.codec)->data_pagesize(options.page_bytes);
  if (!options.dictionary) properties.disable_dictionary();
  if (options.checksums) properties.enable_page_checksum();
  auto file = parquet::ParquetFileWriter::Open(*arrow::io::FileOutputStream::Open(path.string()), schema, properties.build());
  for (int first = 0; first < rows; first += options.rows_per_group) {
    parquet::RowGroupWriter* group = file->AppendRowGroup();
    const int count = std::min(options.rows_per_group, rows - first);
    auto* ids = static_cast<parquet::Int64Writer*>(group->NextColumn());
    for (std::int64_t i = 0; i < count; ++i) ids->WriteBatch(1, nullptr, nullptr, &i);
    for (int column = options.binary_first ? 0 : 1; column < 2; ++column) {
      auto* writer = static_cast<parquet::ByteArrayWriter*>(group->NextColumn());
      for (int i = 0; i < count; ++i) {
        const std::string text = column == 0 ? "raw" : row(first + i);
        const parquet::ByteArray value(text);
        const std::int16_t level = text.empty() ? 0 : 1;
        writer->WriteBatch(1, &level, nullptr, &value);
      }
    }
  }
  file->Close();
}

std::string numbered(int i) { return i % 7 == 3 ? "" : "document number " + std::to_string(i) + " \xc3\xa9"; }

Documents numbered_documents(int rows) {
  Documents documents;
  for (int i = 0; i < rows; ++i) {
    if (!numbered(i).empty()) documents.push_back(numbered(i));
  }
  return documents;
}

class ParquetCodecs : public ::testing::TestWithParam<parquet::Compression::type> {};

TEST_P(ParquetCodecs, RowGroupsAndPagesReadInOrderWithoutNulls) {
  const testing::TemporaryDirectory folder;
  for (const bool dictionary : {false, true}) {
    WriteOptions options;
    options.codec = GetParam();
    options.dictionary = dictionary;
    options.checksums = dictionary;
    options.page_bytes = 300;
    write_parquet(folder / "a.parquet", 1050, numbered, options);
    EXPECT_EQ(read({folder / "a.parquet"}), numbered_documents(1050));
  }
}

INSTANTIATE_TEST_SUITE_P(All, ParquetCodecs,
                         ::testing::Values(parquet::Compression::UNCOMPRESSED, parquet::Compression::SNAPPY,
                                           parquet::Compression::GZIP, parquet::Compression::BROTLI, parquet::Compression::ZSTD,
                                           parquet::Compression::LZ4));

TEST(Parquet, TheColumnIsChosenByNameOrType) {
  const testing::TemporaryDirectory folder;
  const auto word = [](int) { return std::string("word"); };
  write_parquet(folder / "a.parquet", 2, word, {.binary_first = true});
  EXPECT_THAT(read({folder / "a.parquet"}), ElementsAre("word", "word")) << "strings before binary values";
  EXPECT_THAT(read({folder / "a.parquet"}, "raw"), ElementsAre("raw", "raw"));
  EXPECT_THAT([&] { read({folder / "a.parquet"}, "txet"); },
              ThrowsMessage<DataError>(HasSubstr("a.parquet: no column \"txet\"; the columns are: id (INT64), raw "
                                                 "(BYTE_ARRAY), body (String)")));
  EXPECT_THAT([&] { read({folder / "a.parquet"}, "id"); },
              ThrowsMessage<DataError>(HasSubstr("column \"id\" is INT64, expected strings or binary values")));
}

// A file of strings alone, all of them "COLUMN ROW".
void write_columns(const fs::path& path, const std::vector<std::string>& names, int rows = 2) {
  using parquet::schema::PrimitiveNode;
  parquet::schema::NodeVector fields;
  for (const std::string& name : names) {
    fields.push_back(PrimitiveNode::Make(name, parquet::Repetition::REQUIRED, parquet::LogicalType::String(),
                                         parquet::Type::BYTE_ARRAY));
  }
  const auto schema = std::static_pointer_cast<parquet::schema::GroupNode>(
      parquet::schema::GroupNode::Make("schema", parquet::Repetition::REQUIRED, fields));
  auto file = parquet::ParquetFileWriter::Open(*arrow::io::FileOutputStream::Open(path.string()), schema);
  parquet::RowGroupWriter* group = file->AppendRowGroup();
  for (const std::string& name : names) {
    auto* writer = static_cast<parquet::ByteArrayWriter*>(group->NextColumn());
    for (int i = 0; i < rows; ++i) {
      const std::string text = name + " " + std::to_string(i);
      const parquet::ByteArray value(text);
      writer->WriteBatch(1, nullptr, nullptr, &value);
    }
  }
  file->Close();
}

TEST(Parquet, AsksForAColumnWhereSeveralCouldBeTheText) {
  const testing::TemporaryDirectory folder;
  write_columns(folder / "a.parquet", {"id", "url", "article"});
  EXPECT_THAT(
      [&] { read({folder / "a.parquet"}); },
      ThrowsMessage<DataError>(HasSubstr("a.parquet: no column \"text\", and several that could be meant: id (String), url "
                                         "(String), article (String); name one with --text-column")));
  EXPECT_THAT(read({folder / "a.parquet"}, "article"), ElementsAre("article 0", "article 1"));
  write_columns(folder / "b.parquet", {"id", "text", "url"});
  EXPECT_THAT(read({folder / "b.parquet"}), ElementsAre("text 0", "text 1"));
}

TEST(Parquet, NamesTheColumnThatItChose) {
  const testing::TemporaryDirectory folder;
  write_columns(folder / "a.parquet", {"article"});
  write_columns(folder / "b.parquet", {"article"});
  write_columns(folder / "c.parquet", {"text", "id"});
  const auto log_of = [](const std::vector<fs::path>& files, const std::string& column = "") {
    ::testing::internal::CaptureStderr();
    read(files, column);
    return ::testing::internal::GetCapturedStderr();
  };
  const std::string log = log_of({folder / "a.parquet", folder / "b.parquet"});
  EXPECT_THAT(log, HasSubstr("a.parquet: reads the text from the column \"article\""));
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 1) << "once, not for each file";
  EXPECT_EQ(log_of({folder / "c.parquet"}), "");
  EXPECT_EQ(log_of({folder / "a.parquet"}, "article"), "") << "it was named";
}

TEST(Parquet, IsReadFromAPipeThroughACopy) {
  const testing::TemporaryDirectory folder;
  write_columns(folder / "a.parquet", {"text"});
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  const std::string bytes = read_file(folder / "a.parquet");
  const std::jthread writer([path = folder / "pipe", bytes] { std::ofstream(path, std::ios::binary) << bytes; });
  const auto reader = open_documents({folder / "pipe"});
  Documents documents;
  for (std::string document; reader->next(document);) documents.push_back(document);
  EXPECT_THAT(documents, ElementsAre("text 0", "text 1"));
}

TEST(Parquet, BadRowsArePassedOverWhenAllowed) {
  const testing::TemporaryDirectory folder;
  write_parquet(folder / "a.parquet", 5, [](int i) { return i == 3 ? std::string("ab\xff") : "fine " + std::to_string(i); });
  ReaderOptions options;
  options.bad_rows = std::make_shared<BadRows>(1);
  EXPECT_THAT(testing::read_documents({folder / "a.parquet"}, options), ElementsAre("fine 0", "fine 1", "fine 2", "fine 4"));
  EXPECT_THAT(options.bad_rows->examples(), ElementsAre(HasSubstr("invalid UTF-8 at byte 2 (0xff) of row 4")));
}

TEST(Parquet, AGitLfsPointerIsNamedAsOne) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "a.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n");
  EXPECT_THAT([&] { read({folder / "a.parquet"}); }, ThrowsMessage<DataError>(HasSubstr("a.parquet: is a Git LFS pointer")));
}

TEST(Parquet, TheCaseOfASharedFile) {
  NANOCHAT_SHARED_OR_SKIP(file, "cases/id_first.parquet");
  EXPECT_THAT([&] { read({file}); }, ThrowsMessage<DataError>(HasSubstr("several that could be meant: id")));
  EXPECT_FALSE(read({file}, "article").empty());
}

TEST(Parquet, JoinsOtherFilesAndFolders) {
  const testing::TemporaryDirectory folder;
  write_parquet(folder / "b.parquet", 1, [](int) { return std::string("from parquet"); });
  testing::write_text(folder / "a.txt", "from text");
  testing::write_text(folder / "c.jsonl", "{\"text\":\"from jsonl\"}");
  EXPECT_THAT(read(expand_paths({folder.path().string()})), ElementsAre("from text", "from parquet", "from jsonl"));
}

TEST(Parquet, SaysWhatIsWrong) {
  const testing::TemporaryDirectory folder;
  const auto error = [&](const std::string& message) {
    EXPECT_THAT([&] { read({folder / "a.parquet"}); }, ThrowsMessage<DataError>(HasSubstr("a.parquet: " + message)));
  };
  write_parquet(folder / "a.parquet", 5, [](int i) { return i == 3 ? std::string("ab\xff") : "fine"; });
  error("invalid UTF-8 at byte 2 (0xff) of row 4");
  testing::write_text(folder / "a.parquet", "this is text");
  error("cannot be read as parquet: ");
  write_parquet(folder / "a.parquet", 5, [](int) { return std::string(); });
  EXPECT_THAT([&] { read({folder / "a.parquet"}); }, ThrowsMessage<DataError>(HasSubstr("no text in")));
  EXPECT_THAT([&] { read({folder / "b.parquet"}); }, ThrowsMessage<DataError>(HasSubstr("cannot open")));
}

// With the checksums that a writer may add, every damage to a page is found.
TEST(Parquet, DamageIsAnErrorOrTheSameText) {
  const testing::TemporaryDirectory folder;
  WriteOptions options;
  options.checksums = true;
  options.page_bytes = 1000;
  write_parquet(folder / "a.parquet", 300, numbered, options);
  testing::CorruptionSubject subject;
  subject.name = "parquet";
  subject.original = read_file(folder / "a.parquet");
  subject.read = [&](const std::string& bytes) {
    testing::write_text(folder / "damaged.parquet", bytes);
    std::string all;
    for (const std::string& document : read({folder / "damaged.parquet"}, "body")) all += document + "\n";
    return sha256_hex(all);
  };
  read({folder / "a.parquet"});  // loads Arrow here, and not within the limits of a round
  const testing::CorruptionReport report = check_corruptions(subject, 300, 17,
                                                             {.seconds = 20, .extra_bytes = std::size_t{5} << 30});
  EXPECT_EQ(report.failures, "");
  EXPECT_GT(report.refused, 100);
}

// Megabytes of resident memory at most of a process that reads the file.
std::uint64_t peak_megabytes(const fs::path& file, const std::string& column, std::size_t documents) {
  const pid_t child = fork();
  if (child == 0) {
    std::size_t found = 0;
    try {
      ReaderOptions options;
      options.text_column = column;
      const auto reader = open_documents({file}, options);
      for (std::string document; reader->next(document);) ++found;
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
    _exit(found == documents ? 0 : 1);
  }
  int status = 0;
  rusage usage{};
  wait4(child, &status, 0, &usage);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  return static_cast<std::uint64_t>(usage.ru_maxrss) / 1024;
}

#if defined(__SANITIZE_ADDRESS__)
constexpr std::uint64_t kKeptMegabytes = 256;  // freed memory that AddressSanitizer keeps by default
#else
constexpr std::uint64_t kKeptMegabytes = 0;
#endif

TEST(Parquet, OneLargeRowGroupIsReadInAFewMegabytes) {
  const testing::TemporaryDirectory folder;
  WriteOptions options;
  options.rows_per_group = 100'000;
  write_parquet(
      folder / "a.parquet", 8000, [](int i) { return std::string(64 << 10, static_cast<char>('a' + i % 26)); }, options);
  EXPECT_LT(peak_megabytes(folder / "a.parquet", "", 8000), 150 + kKeptMegabytes) << "of 500 MB of text";
}

TEST(Parquet, TextThatInflatesToTwoGigabytesIsReadPageByPage) {
  NANOCHAT_SHARED_OR_SKIP(file, "data/parquet/apache_large_string_map.brotli.parquet");
  EXPECT_THAT([&] { read({file}); }, ThrowsMessage<DataError>(HasSubstr("arr.key_value.key (String)")));
  // A value is a gigabyte: one as a page, one in the dictionary, one handed out.
  EXPECT_LT(peak_megabytes(file, "arr.key_value.key", 2), 3300 + kKeptMegabytes);
}

TEST(Parquet, TheShardsOfTheReferenceGiveTheirTextInOrder) {
  NANOCHAT_SHARED_OR_SKIP(first, "data/parquet/shard_00000.parquet");
  NANOCHAT_SHARED_OR_SKIP(second, "data/parquet/shard_00001.parquet");
  const Documents documents = read({first, second});
  EXPECT_EQ(documents.size(), 1280u);
  std::string all;
  for (const std::string& document : documents) all += document + '\0';
  EXPECT_EQ(sha256_hex(all), "7d033389ca52363a59f0b6bb2683003e01d4314851a9bf49a31a8caa3116b6f6");
}

TEST(Parquet, EncodingsOfOtherWritersGiveTheirText) {
  struct Column {
    const char* file;
    const char* column;
    std::size_t documents;
    const char* sha256;  // of the values, each behind it a zero byte
  };
  const std::vector<Column> columns = {
      {"alltypes_plain", "date_string_col", 8, "a251a30efcec5132a07c731cadc73bbbdeab8e8b34b52c17575a8dcbe66c4154"},
      {"alltypes_plain", "string_col", 8, "9b011ec1a26e16e6ca99e144751c2eb716496b60a81a7f70d984621c91d79e80"},
      {"alltypes_plain.snappy", "date_string_col", 2, "47411745a7971b99e8677b442df5aa23b6db4c9b68e86211da5bd6cfe9d0704f"},
      {"alltypes_plain.snappy", "string_col", 2, "7c636d9a1379ca10b7d14790cac85ef382ace3efa2252e22126cbe126a5dd73a"},
      {"alltypes_tiny_pages_plain", "date_string_col", 7300,
       "107a2e4f4d5c162fdf8a88375ef81fe802a2e3019d83c3041859e1a4af851018"},
      {"alltypes_tiny_pages_plain", "string_col", 7300, "cfc3e34376bf8b45e6c9b5a6846f7f9f7ed303f557a6c043b40a7e72537286ab"},
      {"datapage_v2.snappy", "a", 4, "1dc1f1b3f67ab2c941b95d92866ff8a925bb8bdea913de316d138d9c7d4b9ff2"},
      {"delta_byte_array", "c_customer_id", 1000, "cbaeec337de30dc91274c42f719abd40532198e7f6a344de780aa681baf8d83a"},
      {"delta_byte_array", "c_salutation", 970, "9c36cffe8b9c4423326ebd2da5c74a8cd8d396cea93d9fb72ae5c28387f5fc83"},
      {"delta_byte_array", "c_first_name", 968, "3bb38905bc527197fd63b0d719790349b599acef1e819d5f616a43443ec4188c"},
      {"delta_byte_array", "c_last_name", 976, "b7353ac07343c659344dd108258b4c3e0ccc7aafbc797a531cefb56100a171fe"},
      {"delta_byte_array", "c_preferred_cust_flag", 971, "734a26e23bc44f8ad76fc7dd7c792d75bedaf3491869c9f7ea8791c3c026d560"},
      {"delta_byte_array", "c_birth_country", 969, "2cce37b8a08415f03532704d58871cdc55143ed78282fb26dda194d142cd5eaa"},
      {"delta_byte_array", "c_email_address", 969, "0a30bd4aa4e157ad168ef006c259412fc7e3d16494bd100b2ddd5f1fea076b15"},
      {"delta_byte_array", "c_last_review_date", 975, "f93fed521065aa2c03454a8dad7c22c392f7496e0a073f0eade68ac4adc399cf"},
      {"delta_length_byte_array", "FRUIT", 1000, "cff00678ca362b70218292b13440f6ae99a5c59a5551120b1ade41cc78f77ec7"},
      {"lz4_raw_compressed_larger", "a", 10000, "71ec44ff7fdb7b0825c918af5073e49839bc78e48e9da024085887318b09944e"},
      {"rle-dict-snappy-checksum", "binary_field", 1000, "7df38357cfdbbe16ee775127d81b500a0e424ac7737d26733de06144c6d67936"},
  };
  for (const Column& column : columns) {
    NANOCHAT_SHARED_OR_SKIP(file, std::string("data/parquet/apache_") + column.file + ".parquet");
    const Documents documents = read({file}, column.column);
    std::string all;
    for (const std::string& document : documents) all += document + '\0';
    EXPECT_EQ(documents.size(), column.documents) << column.file << " " << column.column;
    EXPECT_EQ(sha256_hex(all), column.sha256) << column.file << " " << column.column;
  }
  for (const char* name : {"byte_stream_split.zstd", "concatenated_gzip_members", "datapage_v1-uncompressed-checksum"}) {
    NANOCHAT_SHARED_OR_SKIP(file, std::string("data/parquet/apache_") + name + ".parquet");
    EXPECT_THAT([&] { read({file}); },
                ThrowsMessage<DataError>(HasSubstr("no column of strings or binary values; the columns are: ")));
  }
}

TEST(Parquet, RealFilesCutOrWithAFlippedByteNeverCrash) {
  NANOCHAT_SHARED_OR_SKIP(folder, "data/parquet");
  const testing::TemporaryDirectory here;
  std::uint64_t random = 88172645463325252u;  // xorshift64
  const auto below = [&random](std::size_t limit) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    return static_cast<std::size_t>(random % limit);
  };
  int errors = 0, files = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.file_size() > 100'000 || entry.path().filename().string().find("large_string_map") != std::string::npos) continue;
    const std::string original = read_file(entry.path());
    ++files;
    for (int round = 0; round < 100; ++round) {
      std::string bytes = original;
      const std::size_t at = below(bytes.size());
      if (round < 50) {
        bytes.resize(at);
      } else {
        bytes[at] = static_cast<char>(bytes[at] ^ static_cast<char>(1 + below(255)));
      }
      testing::write_text(here / "damaged.parquet", bytes);
      try {
        read({here / "damaged.parquet"});
      } catch (const DataError& error) {
        EXPECT_THAT(error.what(), HasSubstr("damaged.parquet"));
        ++errors;
      }
    }
  }
  EXPECT_GE(errors, files * 50) << "a cut file is never whole";
}

std::string zstd(const std::string& text) {
  const auto codec = *arrow::util::Codec::Create(arrow::Compression::ZSTD);
  std::string packed(static_cast<std::size_t>(codec->MaxCompressedLen(static_cast<std::int64_t>(text.size()), nullptr)), '\0');
  const auto length = codec->Compress(static_cast<std::int64_t>(text.size()),
                                      reinterpret_cast<const std::uint8_t*>(text.data()),
                                      static_cast<std::int64_t>(packed.size()), reinterpret_cast<std::uint8_t*>(packed.data()));
  packed.resize(static_cast<std::size_t>(length.ValueOrDie()));
  return packed;
}

std::string read_bytes(const fs::path& path, std::size_t step) {
  const auto source = open_bytes(path);
  std::string all, buffer(step, '\0');
  while (const std::size_t got = source->read(buffer.data(), buffer.size())) all.append(buffer, 0, got);
  EXPECT_EQ(source->stored_bytes(), fs::file_size(path));
  return all;
}

TEST(Zstd, ConcatenatedFramesAreOneStream) {
  const testing::TemporaryDirectory folder;
  std::string plain;
  for (int i = 0; i < 100000; ++i) plain += std::to_string(i * 7919);
  testing::write_text(folder / "a.zst", zstd(plain) + zstd("") + zstd("end"));
  for (const std::size_t step : {7, 1000, 1 << 20}) EXPECT_EQ(read_bytes(folder / "a.zst", step), plain + "end");
}

TEST(Zstd, RefusesEveryTruncationAndOtherBytes) {
  const testing::TemporaryDirectory folder;
  const std::string packed = zstd("some text that is long enough to be cut anywhere");
  for (std::size_t length = 0; length < packed.size(); ++length) {
    testing::write_text(folder / "cut.zst", packed.substr(0, length));
    EXPECT_THAT([&] { read_bytes(folder / "cut.zst", 100); },
                ThrowsMessage<DataError>(HasSubstr("cut.zst: the zstd file is trunc")))
        << length;
  }
  testing::write_text(folder / "bad.zst", "plain text");
  EXPECT_THAT([&] { read_bytes(folder / "bad.zst", 100); }, ThrowsMessage<DataError>(HasSubstr("bad.zst: not a zstd file")));
  testing::write_text(folder / "bad.zst", packed + "garbage");
  EXPECT_THAT([&] { read_bytes(folder / "bad.zst", 100); }, ThrowsMessage<DataError>(HasSubstr("the zstd file is corrupt")));
}

TEST(Zstd, DocumentsReadAlike) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "a.txt.zst", zstd("one\n\n") + zstd("two"));
  testing::write_text(folder / "b.jsonl.zst", zstd("{\"text\":\"three\"}\n"));
  EXPECT_THAT(read(expand_paths({folder.path().string()})), ElementsAre("one\n\ntwo", "three"));
}

#endif

}  // namespace
}  // namespace nanochat
