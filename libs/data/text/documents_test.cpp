#include "data/text/documents.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <rapidcheck.h>

#include "core/errors.h"
#include "core/testing.h"
#include "data/rows/byte_source.h"
#include "data/rows/testing_gzip.h"
#include "data/text/testing_documents.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Documents = std::vector<std::string>;

class DocumentsTest : public ::testing::Test {
 protected:
  // The documents of a file with this name and contents.
  Documents read(const std::string& name, const std::string& contents, const ReaderOptions& options = {}) const {
    testing::write_text(folder_ / name, contents);
    return testing::read_documents({folder_ / name}, options);
  }

  auto error(const std::string& name, const std::string& contents, const std::string& message) const {
    EXPECT_THAT([&] { read(name, contents); }, ThrowsMessage<DataError>(HasSubstr(message))) << name;
  }

  testing::TemporaryDirectory folder_;
};

ReaderOptions at_least(std::int64_t bytes) {
  ReaderOptions options;
  options.min_document_bytes = bytes;
  return options;
}

TEST_F(DocumentsTest, TextIsCutAtBlankLinesOnceLongEnough) {
  EXPECT_THAT(read("a.txt", "one\n\ntwo\nthree\n\nfour\n\nfive\n", at_least(5)),
              ElementsAre("one\n\ntwo\nthree", "four\n\nfive"));
  EXPECT_THAT(read("a.txt", "one\n\ntwo\n\nthree\n", at_least(1)), ElementsAre("one", "two", "three"));
}

TEST_F(DocumentsTest, AShortRemainderJoinsTheLastDocument) {
  EXPECT_THAT(read("a.txt", "first one\n\nsecond one\n\nend", at_least(6)), ElementsAre("first one", "second one\n\nend"));
  EXPECT_THAT(read("a.txt", "short", at_least(100)), ElementsAre("short"));
}

TEST_F(DocumentsTest, BlankLinesOfEveryKindSeparateAndAreTrimmed) {
  EXPECT_THAT(read("a.txt", "\n \t\r\n  one\r\n\r\n\v\f\r\ntwo  \r\n\n\n", at_least(1)), ElementsAre("  one", "two  "));
  EXPECT_THAT(read("a.txt", "one\n\n\n\n\n\n\n\ntwo", at_least(10)), ElementsAre("one\n\n\n\ntwo"));
  EXPECT_THAT(read("a.txt", "\xef\xbb\xbfone\n", at_least(1)), ElementsAre("one"));
}

TEST_F(DocumentsTest, TextWithoutBlankLinesIsCutAtLinesAndCharacters) {
  ReaderOptions options = at_least(1);
  options.max_document_bytes = 10;
  EXPECT_THAT(read("a.txt", "abcd\nefgh\nijkl\n", options), ElementsAre("abcd\nefgh", "ijkl"));
  EXPECT_THAT(read("a.txt", "0123456789abcdefghi\xc3\xa9yz\n", options), ElementsAre("0123456789", "abcdefghi", "\xc3\xa9yz"));
}

TEST_F(DocumentsTest, MemoryIsBoundedWithoutBlankLines) {
  testing::write_text(folder_ / "a.txt", std::string(5 << 20, 'x') + "\n");
  const Documents documents = testing::read_documents({folder_ / "a.txt"}, ReaderOptions{});
  std::size_t total = 0;
  for (const std::string& document : documents) {
    EXPECT_LE(document.size(), std::size_t{1} << 20);
    total += document.size();
  }
  EXPECT_EQ(documents.size(), 5u);
  EXPECT_EQ(total, std::size_t{5} << 20);
}

// Every line with text is in exactly one document, in order, and no document but the only one is short.
TEST_F(DocumentsTest, NothingIsLostWhateverTheText) {
  EXPECT_TRUE(rc::check("documents of text", [&] {
    const auto text = *rc::gen::container<std::string>(rc::gen::element('a', 'b', ' ', '\n', '\n'));
    ReaderOptions options = at_least(*rc::gen::inRange(1, 9));
    options.max_document_bytes = *rc::gen::element(8, 64, 1000);
    RC_PRE(text.find_first_not_of(" \n") != std::string::npos);
    const Documents documents = read("p.txt", text, options);
    const auto letters = [](const std::string& from) {
      std::string kept;
      for (const char c : from) {
        if (c == 'a' || c == 'b') kept += c;
      }
      return kept;
    };
    std::string all;
    for (const std::string& document : documents) {
      RC_ASSERT(document.size() >= static_cast<std::size_t>(options.min_document_bytes) || documents.size() == 1);
      RC_ASSERT(!document.starts_with('\n') && !document.ends_with('\n'));
      all += letters(document);
    }
    RC_ASSERT(all == letters(text));
  }));
}

TEST_F(DocumentsTest, JsonlGivesTheTextOfEachRow) {
  EXPECT_THAT(read("a.jsonl", "{\"text\": \"one\\n\\ntwo\"}\r\n\n{\"id\":1,\"text\":\"\"}\n{\"text\":\"\\u00e9\"}"),
              ElementsAre("one\n\ntwo", "\xc3\xa9"));
  ReaderOptions options;
  options.text_column = "body";
  EXPECT_THAT(read("a.jsonl", "{\"body\":\"x\",\"text\":\"y\"}", options), ElementsAre("x"));
}

TEST_F(DocumentsTest, JsonlRoundTripsAnyText) {
  EXPECT_TRUE(rc::check("jsonl", [&] {
    const auto codes = *rc::gen::nonEmpty<std::vector<std::uint8_t>>();
    std::string text;
    for (const std::uint8_t code : codes) text += code < 128 ? std::string(1, static_cast<char>(code)) : "\xe2\x82\xac";
    RC_ASSERT(read("p.jsonl", nlohmann::json{{"text", text}}.dump() + "\n") == Documents{text});
  }));
}

TEST_F(DocumentsTest, GzippedFilesReadAlike) {
  EXPECT_THAT(read("a.txt.gz", testing::gzip("one\n\n") + testing::gzip("two"), at_least(1)), ElementsAre("one", "two"));
  EXPECT_THAT(read("a.jsonl.gz", testing::gzip("{\"text\":\"one\"}\n")), ElementsAre("one"));
}

// What `nanochat ... -` reads when these bytes are its standard input.
Documents from_standard_input(const std::filesystem::path& file) {
  const int saved = dup(STDIN_FILENO);
  const int opened = open(file.c_str(), O_RDONLY);
  dup2(opened, STDIN_FILENO);
  close(opened);
  const auto restore = [saved] {
    dup2(saved, STDIN_FILENO);
    close(saved);
  };
  Documents documents;
  try {
    const auto reader = open_documents(expand_paths({"-"}));
    for (std::string document; reader->next(document);) documents.push_back(document);
  } catch (...) {
    restore();
    throw;
  }
  restore();
  return documents;
}

TEST_F(DocumentsTest, StandardInputIsTakenForWhatItBeginsAs) {
  const auto input = [&](const std::string& bytes) {
    testing::write_text(folder_ / "input", bytes);
    return from_standard_input(folder_ / "input");
  };
  EXPECT_THAT(input("one\n\ntwo\n"), ElementsAre("one\n\ntwo"));
  EXPECT_THAT(input("\n {\"text\":\"one\"}\n{\"text\":\"two\"}\n"), ElementsAre("one", "two"));
  EXPECT_THAT(input(testing::gzip("{\"text\":\"one\"}\n")), ElementsAre("one"));
  EXPECT_THAT(input(testing::gzip(std::string(100000, 'x'))), ElementsAre(std::string(100000, 'x')));
  EXPECT_THAT([&] { input("{\"text\":\n"); }, ThrowsMessage<DataError>(HasSubstr("standard input:1: malformed JSON")));
  EXPECT_THAT([&] { input("PAR1...."); }, ThrowsMessage<DataError>(HasSubstr("parquet")));
  EXPECT_THAT([&] { input(""); }, ThrowsMessage<DataError>(HasSubstr("no text in standard input")));
}

// A pipe that a process writes into, as <(...) of a shell is.
class Pipe {
 public:
  Pipe(const std::filesystem::path& path, const std::string& bytes) {
    EXPECT_EQ(::mkfifo(path.c_str(), 0600), 0);
    writer_ = std::jthread([path, bytes] { std::ofstream(path, std::ios::binary) << bytes; });
  }

 private:
  std::jthread writer_;
};

TEST_F(DocumentsTest, PipesAreTakenForWhatTheyHold) {
  const auto piped = [&](const std::string& name, const std::string& bytes) {
    const Pipe pipe(folder_ / name, bytes);
    const auto reader = open_documents(expand_paths({(folder_ / name).string()}));
    Documents documents;
    for (std::string document; reader->next(document);) documents.push_back(document);
    return documents;
  };
  const std::string rows = "{\"text\":\"one\"}\n{\"text\":\"two\"}\n";
  EXPECT_THAT(piped("p1", rows), ElementsAre("one", "two"));
  EXPECT_THAT(piped("p2", testing::gzip(rows)), ElementsAre("one", "two"));
  EXPECT_THAT(piped("p3", "plain text"), ElementsAre("plain text"));
  EXPECT_THAT(piped("p4.txt", rows), ElementsAre("{\"text\":\"one\"}\n{\"text\":\"two\"}")) << "the name counts where it tells";
  EXPECT_THAT([&] { piped("p5", "{\"text\":1}"); }, ThrowsMessage<DataError>(HasSubstr("p5:1: \"text\" is a JSON number")));
}

TEST_F(DocumentsTest, AReopenablePipeIsReadAgainAndAgain) {
  const Pipe pipe(folder_ / "p", "{\"text\":\"one\"}\nbroken\n");
  const std::filesystem::path copy = reopenable(folder_ / "p");
  EXPECT_EQ(reopenable(folder_ / "p"), copy) << "copied once";
  EXPECT_EQ(reopenable(copy), copy);
  for (int round = 0; round < 2; ++round) {
    const auto reader = open_documents({copy});
    std::string document;
    EXPECT_TRUE(reader->next(document));
    EXPECT_EQ(document, "one");
    EXPECT_THAT([&] { reader->next(document); },
                ThrowsMessage<DataError>(HasSubstr((folder_ / "p").string() + ":2: malformed")))
        << "called by the name of the pipe";
  }
  testing::write_text(folder_ / "file.txt", "text");
  EXPECT_EQ(reopenable(folder_ / "file.txt"), folder_ / "file.txt");
}

TEST_F(DocumentsTest, JsonLinesHaveManyNames) {
  for (const char* name : {"a.ndjson", "a.jsonlines", "A.JSONL", "a.NDJSON"}) {
    EXPECT_THAT(read(name, "{\"text\":\"one\"}\n{\"text\":\"two\"}\n"), ElementsAre("one", "two")) << name;
  }
  EXPECT_THAT(read("A.NdJson.Gz", testing::gzip("{\"text\":\"one\"}\n")), ElementsAre("one"));
  EXPECT_EQ(expand_paths({folder_.path().string()}).size(), 5U) << "of a folder too";
}

TEST_F(DocumentsTest, HalfASurrogatePairBecomesTheReplacementCharacter) {
  EXPECT_THAT(read("a.jsonl", "{\"text\":\"\\ud800 a\"}\n{\"text\":\"b\\udc00\"}\n{\"text\":\"\\ud83d\\ude00\"}\n"),
              ElementsAre("\xef\xbf\xbd a", "b\xef\xbf\xbd", "\xf0\x9f\x98\x80"));
}

TEST_F(DocumentsTest, OtherColumnsMayHoldAnyNumber) {
  EXPECT_THAT(read("a.jsonl", "{\"text\":\"a\",\"x\":1e999}\n{\"x\":[-1e999],\"text\":\"b\"}\n"), ElementsAre("a", "b"));
}

TEST_F(DocumentsTest, OfAFolderFilesWithoutTextArePassedOver) {
  testing::write_text(folder_ / "corpus.jsonl", "{\"text\":\"row\"}\n");
  testing::write_text(folder_ / "prompts.jsonl", "\n{\"prompt\":\"The moon is\"}\n");
  testing::write_text(folder_ / "chat.ndjson", "{\"messages\":[]}\n");
  testing::write_text(folder_ / "typo.jsonl", "{\"txet\n");
  EXPECT_THAT(expand_paths({folder_.path().string()}), ElementsAre(folder_ / "corpus.jsonl", folder_ / "typo.jsonl"))
      << "what cannot be read is for the reader to report";
  EXPECT_THAT(expand_paths({(folder_ / "prompts.jsonl").string()}), ElementsAre(folder_ / "prompts.jsonl")) << "it was named";
  ReaderOptions options;
  options.text_column = "prompt";
  EXPECT_THAT(expand_paths({folder_.path().string()}, options), ElementsAre(folder_ / "prompts.jsonl", folder_ / "typo.jsonl"));
}

TEST_F(DocumentsTest, AFolderWithoutAnyTextSaysWhichKeysThereAre) {
  testing::write_text(folder_ / "a.jsonl", "{\"body\":\"row\"}\n");
  EXPECT_THAT([&] { testing::read_documents(expand_paths({folder_.path().string()})); },
              ThrowsMessage<DataError>(HasSubstr("a.jsonl:1: no key \"text\"; the keys are: body; name the one that holds the "
                                                 "text with --text-column")));
}

TEST_F(DocumentsTest, BadRowsArePassedOverWhenAllowed) {
  const std::string rows =
      "{\"text\":\"one\"}\n{\"text\":\n{\"body\":\"x\"}\n{\"text\":7}\n{\"text\":\"\xff\"}\n[]\n{\"text\":\"two\"}\nnull\n";
  ReaderOptions options;
  options.bad_rows = std::make_shared<BadRows>(BadRows::kAll);
  EXPECT_THAT(read("a.jsonl", rows, options), ElementsAre("one", "two"));
  EXPECT_EQ(options.bad_rows->count(), 6U);
  EXPECT_THAT(options.bad_rows->examples(),
              ElementsAre(HasSubstr("a.jsonl:2: malformed JSON"), HasSubstr("a.jsonl:3: no key \"text\""),
                          HasSubstr("a.jsonl:4: \"text\" is a JSON number"), HasSubstr("a.jsonl:5: invalid UTF-8"),
                          HasSubstr("a.jsonl:6: found JSON array")));
  options.bad_rows = std::make_shared<BadRows>(6);
  EXPECT_THAT(read("a.jsonl", rows, options), ElementsAre("one", "two"));
  options.bad_rows = std::make_shared<BadRows>(5);
  EXPECT_THAT([&] { read("a.jsonl", rows, options); },
              ThrowsMessage<DataError>(HasSubstr("a.jsonl:8: found JSON null, expected an object with the key \"text\"; "
                                                 "--skip-bad allows 5 bad rows")));
}

TEST_F(DocumentsTest, BadLinesOfTextArePassedOverWhenAllowed) {
  ReaderOptions options = at_least(1);
  options.bad_rows = std::make_shared<BadRows>(1);
  EXPECT_THAT(read("a.txt", "one\nbad \xff\ntwo\n", options), ElementsAre("one\ntwo"));
  EXPECT_THAT(options.bad_rows->examples(), ElementsAre(HasSubstr("a.txt:2: invalid UTF-8 at byte 8")));
}

TEST_F(DocumentsTest, AGitLfsPointerIsNamedAsOne) {
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
  for (const char* name : {"a.txt", "a.jsonl", "a.jsonl.gz", "a.txt.zst"})
    error(name, pointer, std::string(name) + ": is a Git LFS pointer");
}

TEST_F(DocumentsTest, FilesFollowOneAnother) {
  testing::write_text(folder_ / "a.txt", "short");
  testing::write_text(folder_ / "b.jsonl", "{\"text\":\"row\"}\n");
  testing::write_text(folder_ / "c.txt", "\n\n");
  const auto files = expand_paths({folder_.path().string()});
  EXPECT_EQ(files.size(), 3u);
  EXPECT_THAT(testing::read_documents(files), ElementsAre("short", "row"));
}

TEST_F(DocumentsTest, SaysWhereBadInputIs) {
  error("a.jsonl", "{\"text\":\"a\"}\n{\"text\":\n", "a.jsonl:2: malformed JSON at byte");
  error("a.jsonl", "\n[1]\n", "a.jsonl:2: found JSON array, expected an object with the key \"text\"");
  error("a.jsonl", "{\"body\":\"a\",\"id\":1}", "a.jsonl:1: no key \"text\"; the keys are: body, id");
  error("a.jsonl", "{\"text\":5}", "a.jsonl:1: \"text\" is a JSON number, expected a string");
  error("a.jsonl", "{\"text\":\"a\"}\n{\"text\":\"\xff\"}", "a.jsonl:2: invalid UTF-8 at byte 22 (0xff)");
  error("a.jsonl", "{\"text\":\"\\ud8\"}", "a.jsonl:1: malformed JSON");
  error("a.jsonl", "{\"x\":" + std::string(1000, '[') + "}", "a.jsonl:1: arrays and objects are nested more than");
  error("a.txt", "fine\nbad \xc3\xa9 \xe2\x82\n", "a.txt:2: invalid UTF-8 at byte 12 (0xe2)");
  error("a.txt",
        "\xff\xfe"
        "a\0",
        "it looks like UTF-16");
  error("a.txt.gz", testing::gzip("text").substr(0, 15), "a.txt.gz: the gzip file is truncated");
}

TEST_F(DocumentsTest, RefusesACorpusWithoutText) {
  error("a.txt", "\n \n\n", "no text in ");
  error("a.jsonl", "\n", "no text in ");
  EXPECT_THAT([&] { testing::read_documents({}); }, ThrowsMessage<DataError>(HasSubstr("no text in an empty list")));
  EXPECT_THAT([&] { testing::read_documents({folder_ / "missing.txt"}); }, ThrowsMessage<DataError>(HasSubstr("cannot open")));
}

TEST(ValidationDocuments, AreEveryNth) {
  EXPECT_FALSE(is_validation_document(0, 20));
  EXPECT_FALSE(is_validation_document(18, 20));
  EXPECT_TRUE(is_validation_document(19, 20));
  EXPECT_TRUE(is_validation_document(39, 20));
  EXPECT_TRUE(is_validation_document(5, 1));
  EXPECT_FALSE(is_validation_document(19, 0));
  EXPECT_FALSE(is_validation_document(19, -1));
}

}  // namespace
}  // namespace nanochat
