#include "data/rows/rows.h"

#include <sys/stat.h>

#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/random.h"
#include "core/testing.h"
#include "data/rows/testing_gzip.h"
#ifdef NANOCHAT_HAS_PARQUET
#include "data/rows/testing_parquet.h"
#endif

namespace nanochat {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
namespace fs = std::filesystem;

class Rows : public ::testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& text) const {
    testing::write_text(folder_ / name, text);
    return folder_ / name;
  }
  static std::vector<Row> read(const fs::path& file, const std::vector<std::string>& columns = {}) {
    const auto reader = open_rows(file, columns);
    std::vector<Row> rows;
    std::uint64_t before = 0;
    for (Row row; reader->next(row);) {
      EXPECT_GE(reader->stored_bytes(), before);
      before = reader->stored_bytes();
      rows.push_back(row);
    }
    EXPECT_LE(reader->stored_bytes(), fs::file_size(file));
    return rows;
  }
  // "name:line value" of each row, or the fault in place of the value.
  std::vector<std::string> lines(const std::string& name, const std::string& text) const {
    std::vector<std::string> all;
    for (const Row& row : read(write(name, text))) {
      all.push_back(fs::path(row.where).filename().string() + " " + (row.fault.empty() ? row.value.dump() : row.fault));
    }
    return all;
  }
  testing::TemporaryDirectory folder_;
};

TEST_F(Rows, OfALineEachWithTheLinesNumber) {
  const std::string text = "\xef\xbb\xbf{\"a\": 1}\r\n\n  \n[2]\n{\"b\": \n\"x\xff\"\n3";
  EXPECT_THAT(lines("a.jsonl", text),
              ElementsAre("a.jsonl:1 {\"a\":1}", "a.jsonl:4 [2]", HasSubstr("a.jsonl:5 malformed JSON at byte"),
                          "a.jsonl:6 holds bytes that are not UTF-8", "a.jsonl:7 3"));
  EXPECT_THAT(lines("b.jsonl.gz", testing::gzip("1\n2\n")), ElementsAre("b.jsonl.gz:1 1", "b.jsonl.gz:2 2"));
  EXPECT_THAT(lines("c.jsonl", "\n1e999\n"), ElementsAre("c.jsonl:2 1.7976931348623157e+308"));
}

TEST_F(Rows, OfAJsonFileAreTheElementsOfItsArray) {
  EXPECT_THAT(lines("a.json", "[\n  {\"a\": \"]},{\\\"\"},\n\n  {\"b\": [1, {}]}, 7\n]\n"),
              ElementsAre("a.json:2 {\"a\":\"]},{\\\"\"}", "a.json:4 {\"b\":[1,{}]}", "a.json:4 7"));
  EXPECT_THAT(lines("b.json", "[]"), ElementsAre());
  EXPECT_THAT(lines("c.json", "[{\"a\": nonsense}, {\"b\": 2}]"),
              ElementsAre(HasSubstr("c.json:1 malformed JSON"), "c.json:1 {\"b\":2}"));
  EXPECT_THAT(lines("d.json.gz", testing::gzip("[1,2]")), ElementsAre("d.json.gz:1 1", "d.json.gz:1 2"));
}

TEST_F(Rows, OfAJsonFileMayStandOneAfterTheOther) {
  EXPECT_THAT(lines("a.json", "{\"a\": 1}\n{\"b\":\n 2} [3]\n"),
              ElementsAre("a.json:1 {\"a\":1}", "a.json:2 {\"b\":2}", "a.json:3 [3]"));
  EXPECT_THAT(lines("b.json", "\xef\xbb\xbf\n{\"a\": 1}"), ElementsAre("b.json:2 {\"a\":1}"));
  EXPECT_THAT(lines("c.json", "[{\"role\": \"user\", \"content\": \"x\"}]"),
              ElementsAre("c.json:1 [{\"content\":\"x\",\"role\":\"user\"}]"));
}

TEST_F(Rows, OfAJsonFileThatDoesNotCloseAreNone) {
  const auto fails = [&](const std::string& text, const std::string& what) {
    EXPECT_THAT([&] { read(write("x.json", text)); }, ThrowsMessage<DataError>(HasSubstr("x.json:" + what))) << text;
  };
  fails("\n[1, 2", "2: malformed JSON: the value that begins here does not end");
  fails("[1,\n \"abc]", "2: malformed JSON: a string that begins here does not end");
  fails("[1, 2]]", "1: malformed JSON: ']' closes nothing");
  fails("[1,, 2]", "1: malformed JSON: found ',', expected a value");
  fails("[1,\n2,\n]", "3: malformed JSON: nothing after a comma");
  fails("[{} {}]", "1: malformed JSON: found '{', expected a comma");
  fails("1, 2", "1: malformed JSON: found ',', expected a value");
}

TEST_F(Rows, ReplaceLoneSurrogatesAndKeepNuls) {
  Row row;
  const auto value = [&row](std::string_view text) {
    parse_row(text, row);
    return row.value;
  };
  EXPECT_EQ(value(R"("a\ud83db")"), json("a\xef\xbf\xbd"
                                         "b"));
  EXPECT_EQ(value(R"("\ud83d\ud83d\ude00\ude00")"), json("\xef\xbf\xbd\xf0\x9f\x98\x80\xef\xbf\xbd"));
  EXPECT_EQ(value(R"("\\ud83d\u00e9\udc00")"), json("\\ud83d\xc3\xa9\xef\xbf\xbd"));
  EXPECT_EQ(value(R"({"\uDBFF":1})"), json({{"\xef\xbf\xbd", 1}}));
  EXPECT_EQ(value(R"("x\u0000y")").get<std::string>(), std::string("x\0y", 3));
  EXPECT_EQ(row.fault, "");
  EXPECT_EQ(value(R"("\ud83d)"), json());
  EXPECT_THAT(row.fault, HasSubstr("malformed JSON"));
  EXPECT_EQ(value(R"("\ud8)"), json());
  EXPECT_EQ(value("\"raw \xed\xa0\x80\""), json()) << "a surrogate in UTF-8 is no UTF-8";
  EXPECT_THAT(row.fault, HasSubstr("not UTF-8"));
  EXPECT_EQ(row.fault_kind, "invalid-utf8");
}

TEST_F(Rows, PathsAreThoseOfRows) {
  write("a.jsonl", "1");
  write("b.json", "1");
  write("c.txt", "1");
  EXPECT_EQ(expand_row_paths({folder_.path().string()}).size(), 2U);
  EXPECT_THAT([&] { expand_row_paths({(folder_ / "c.txt").string()}); },
              ThrowsMessage<DataError>(HasSubstr("unknown extension")));
  EXPECT_EQ(expand_row_paths({"-"}).size(), 1U);
  EXPECT_EQ(expand_row_paths({write("d.NDJSON", "1").string(), write("e.JSON", "1").string()}).size(), 2U);
}

TEST_F(Rows, OfFilesWithOtherNames) {
  EXPECT_THAT(lines("a.ndjson", "1\n2\n"), ElementsAre("a.ndjson:1 1", "a.ndjson:2 2"));
  EXPECT_THAT(lines("A.JSONL", "1\n2\n"), ElementsAre("A.JSONL:1 1", "A.JSONL:2 2"));
  EXPECT_THAT(lines("A.JSON", "[1,2]"), ElementsAre("A.JSON:1 1", "A.JSON:1 2"));
}

TEST_F(Rows, OfPipesAreTakenForWhatTheyHold) {
  const auto piped = [&](const std::string& name, const std::string& bytes) {
    EXPECT_EQ(::mkfifo((folder_ / name).c_str(), 0600), 0);
    const std::jthread writer([path = folder_ / name, bytes] { std::ofstream(path, std::ios::binary) << bytes; });
    const auto reader = open_rows(folder_ / name);
    std::vector<std::string> all;
    for (Row row; reader->next(row);) all.push_back(fs::path(row.where).filename().string() + " " + row.value.dump());
    return all;
  };
  EXPECT_THAT(piped("p1", "{\"a\":1}\n{\"a\":2}\n"), ElementsAre("p1:1 {\"a\":1}", "p1:2 {\"a\":2}"));
  EXPECT_THAT(piped("p2", "[{\"a\":1},\n{\"a\":2}]\n"), ElementsAre("p2:1 {\"a\":1}", "p2:2 {\"a\":2}"));
  EXPECT_THAT(piped("p3", "[{\"role\":\"user\"}]\n[{\"role\":\"user\"}]\n"),
              ElementsAre("p3:1 [{\"role\":\"user\"}]", "p3:2 [{\"role\":\"user\"}]"));
  EXPECT_THAT(piped("p4", testing::gzip("{\"a\":1}\n")), ElementsAre("p4:1 {\"a\":1}"));
}

TEST_F(Rows, TheFirstIsNullWhereThereIsNone) {
  EXPECT_EQ(first_row(write("a.jsonl", "\n{\"a\":1}\n2\n")), json({{"a", 1}}));
  EXPECT_EQ(first_row(write("b.jsonl", "broken\n")), json());
  EXPECT_EQ(first_row(write("c.jsonl", "\n")), json());
  EXPECT_EQ(first_row(write("d.jsonl.gz", "no gzip")), json());
}

#ifdef NANOCHAT_HAS_PARQUET

// Types are inferred from the JSON rows.
using testing::write_json_as_parquet;

TEST_F(Rows, OfParquetAreObjects) {
  const std::vector<json> rows = {
      {{"messages",
        {{{"role", "user"}, {"content", "a \"quoted\" \\ \n\x01 line"}}, {{"role", "assistant"}, {"content", nullptr}}}},
       {"id", 7},
       {"score", 1.5},
       {"good", true},
       {"choices", {{"text", {"one", "two"}}, {"label", {"A", "B"}}}}},
      {{"messages", json::array()}, {"id", nullptr}, {"score", -3e300}, {"good", false}, {"choices", nullptr}}};
  std::string text;
  for (int i = 0; i < 300; ++i) text += rows[0].dump() + "\n" + rows[1].dump() + "\n";
  const fs::path path = folder_ / "a.parquet";
  write_json_as_parquet(path, text, 70);
  const std::vector<Row> read_rows = read(path);
  ASSERT_EQ(read_rows.size(), 600U);
  for (std::size_t i = 0; i < read_rows.size(); ++i) {
    ASSERT_EQ(read_rows[i].fault, "");
    ASSERT_EQ(read_rows[i].value, rows[i % 2]) << i;
  }
  EXPECT_THAT(read_rows[511].where, EndsWith("a.parquet: row 512"));
  EXPECT_EQ(read(path, {"good", "absent"})[1].value, json({{"good", false}}));
  EXPECT_EQ(read(path, {"choices"})[0].value, json({{"choices", rows[0]["choices"]}}));
  EXPECT_THAT(
      [&] {
        read(path, {"a", "b"});
      },
      ThrowsMessage<DataError>(HasSubstr("none of the columns a, b; the columns are: choices, good, id, messages, score")));
}

TEST_F(Rows, OfDamagedParquetAreAnErrorOrMakeNoDifference) {
  const fs::path path = folder_ / "a.parquet";
  std::string text;
  for (int i = 0; i < 50; ++i) {
    text += json({{"messages", {{{"role", "user"}, {"content", "question " + std::to_string(i)}}}}, {"n", i}}).dump() + "\n";
  }
  write_json_as_parquet(path, text, 20);
  const std::string good = read_file(path);
  Rng rng(5);
  std::size_t errors = 0;
  for (int i = 0; i < 400; ++i) {
    std::string damaged = good;
    for (int k = 0; k < 3; ++k) damaged[rng.below(damaged.size())] = static_cast<char>(rng.below(256));
    if (i % 4 == 0) damaged.resize(rng.below(damaged.size()));
    try {
      for (const Row& row : read(write("b.parquet", damaged)))
        static_cast<void>(row.value.dump(-1, ' ', false, json::error_handler_t::replace));
    } catch (const DataError&) {
      ++errors;
    }
  }
  EXPECT_GT(errors, 100U);
}

TEST_F(Rows, OfRealParquetFiles) {
  NANOCHAT_SHARED_OR_SKIP(parquet, "data/parquet");
  const auto rows = read(parquet / "shard_00001.parquet");
  EXPECT_EQ(rows.size(), 256U);
  EXPECT_TRUE(rows[255].value.at("text").is_string());
  for (const fs::directory_entry& entry : fs::directory_iterator(parquet)) {
    // Strings of 2 GiB inside a map, which Arrow does not build.
    if (entry.path().extension() != ".parquet" ||
        entry.path().filename().string().find("large_string_map") != std::string::npos)
      continue;
    try {
      EXPECT_FALSE(read(entry.path()).empty()) << entry.path();
    } catch (const DataError& error) {
      ADD_FAILURE() << error.what();
    }
  }
}

#endif

}  // namespace
}  // namespace nanochat
