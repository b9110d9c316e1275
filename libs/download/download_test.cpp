// Downloads from a server that misbehaves: correct files or a clear error, in bounded time.
#include "download/download.h"

#include <signal.h>

#include <chrono>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/elapsed.h"
#include "core/errors.h"
#include "core/folder_lock.h"
#include "core/interrupt.h"
#include "core/progress.h"
#include "core/random.h"
#include "core/sha256.h"
#include "core/testing.h"
#include "download/testing_server.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using State = FileReport::State;
using ::testing::AllOf;
using testing::Fault;
using ::testing::HasSubstr;
using testing::SeenRequest;
using testing::ServedFile;
using ::testing::StartsWith;
using testing::TestingServer;
using Clock = std::chrono::steady_clock;

std::string random_bytes(std::size_t size, std::uint64_t seed = 1) {
  Rng random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random.next());
  return bytes;
}

class DownloadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ::setenv("no_proxy", "127.0.0.1", 1);
    options_.retry = {.retries = 4, .first_delay_seconds = 0.002, .max_delay_seconds = 0.01};
    options_.limits.stall_seconds = 10;  // tests of stalls lower it; a loaded machine must not look stalled
    options_.limits.connect_timeout_seconds = 2;
  }
  void TearDown() override { reset_interrupt_for_testing(); }

  fs::path output() const { return folder_ / "out"; }
  RemoteFile remote(const std::string& path) const { return {.url = server_.url() + path, .path = path.substr(1)}; }

  DownloadReport download_all(const std::vector<RemoteFile>& files) {
    SilentProgress progress;
    return download_files(files, output(), options_, progress);
  }
  FileReport download(const RemoteFile& file) { return download_all({file}).files.at(0); }

  // Serves `file` at /x, fetches it, and expects it whole.
  FileReport expect_whole(ServedFile file, RemoteFile asked = {}) {
    const std::string contents = file.contents;
    server_.serve("/x", std::move(file));
    if (asked.url.empty()) asked = remote("/x");
    const FileReport report = download(asked);
    EXPECT_EQ(report.state, State::kDownloaded) << report.error;
    expect_on_disk(contents);
    EXPECT_EQ(report.sha256, sha256_hex(contents));
    return report;
  }

  void expect_on_disk(const std::string& contents) const {
    ASSERT_TRUE(fs::exists(output() / "x"));
    EXPECT_TRUE(read_file(output() / "x") == contents);
    EXPECT_FALSE(fs::exists(output() / "x.part"));
    EXPECT_FALSE(fs::exists(output() / "x.part.info"));
  }

  // The other outcome: an error that names the URL, and no file of that name.
  std::string expect_failure(ServedFile file, RemoteFile asked = {}) {
    server_.serve("/x", std::move(file));
    if (asked.url.empty()) asked = remote("/x");
    const auto start = Clock::now();
    const FileReport report = download(asked);
    EXPECT_LT(seconds_since(start), 10);
    EXPECT_EQ(report.state, State::kFailed);
    EXPECT_THAT(report.error, StartsWith(server_.url() + "/x: "));
    EXPECT_FALSE(fs::exists(output() / "x"));
    return report.error;
  }

  testing::TemporaryDirectory folder_;
  TestingServer server_;
  DownloadOptions options_;
};

TEST_F(DownloadTest, WholeFile) {
  const std::string contents = random_bytes(3'000'000);
  const FileReport report = expect_whole({.contents = contents});
  EXPECT_EQ(report.bytes, contents.size());
  EXPECT_EQ(report.received_bytes, contents.size());
  EXPECT_EQ(report.tries, 1);
}

TEST_F(DownloadTest, ASecondDownloadIntoTheFolderIsRefused) {
  server_.serve("/x", {.contents = "text"});
  {
    const FolderLock lock(output(), "data download");
    EXPECT_THAT([&] { download(remote("/x")); },
                ::testing::ThrowsMessage<ConfigError>(HasSubstr("another process is writing to this folder")));
    EXPECT_TRUE(server_.requests("/x").empty());
  }
  EXPECT_EQ(download(remote("/x")).state, State::kDownloaded);
  EXPECT_FALSE(fs::exists(output() / FolderLock::kFileName));
}

TEST_F(DownloadTest, EmptyFile) { expect_whole({.contents = ""}); }

TEST_F(DownloadTest, WithoutLengthButWithAnEnd) {
  expect_whole({.contents = random_bytes(100'000), .faults = {{.chunked = true}}});
}

TEST_F(DownloadTest, DroppedConnectionsGoOnWhereTheyBroke) {
  const std::string contents = random_bytes(1'000'000);
  const FileReport report = expect_whole(
      {.contents = contents,
       .faults = {{.drop_after = 300'000}, {.drop_after = 0}, {.drop_after = 200'000}, {.raw = "HTTP/1.1 200 OK\r\nCon"}}});
  EXPECT_EQ(report.received_bytes, contents.size());  // nothing twice
  const auto requests = server_.requests("/x");
  ASSERT_EQ(requests.size(), 5u);
  EXPECT_EQ(requests[0].range, "");
  EXPECT_EQ(requests[1].range, "bytes=300000-");
  EXPECT_EQ(requests[1].if_range, "\"one\"");
  EXPECT_EQ(requests[3].range, "bytes=500000-");
}

TEST_F(DownloadTest, DropsDoNotCountWhileTheFileGrows) {
  options_.retry.reset_after_bytes = 10'000;
  std::vector<Fault> faults(20, Fault{.drop_after = 10'000});
  EXPECT_EQ(expect_whole({.contents = random_bytes(300'000), .faults = faults}).tries, 21);
}

TEST_F(DownloadTest, DropsAreGivenUpWhenNothingIsGained) {
  const std::string error = expect_failure({.contents = random_bytes(1'000'000),
                                            .faults = {{.drop_after = 100, .for_ever = true}}});
  EXPECT_THAT(error, HasSubstr("; tried 5 times"));
  EXPECT_EQ(fs::file_size(output() / "x.part"), 500u);  // the next run has these
  expect_whole({.contents = random_bytes(1'000'000)});
  EXPECT_EQ(server_.requests("/x").back().range, "bytes=500-");
}

TEST_F(DownloadTest, ChunkedAnswerThatBreaksIsNotTakenForWhole) {
  const FileReport report = expect_whole(
      {.contents = random_bytes(100'000), .etag = "", .faults = {{.drop_after = 60'000, .chunked = true}}});
  EXPECT_EQ(report.tries, 2);
}

TEST_F(DownloadTest, AnswerWithoutAnyEndIsRefused) {
  EXPECT_THAT(expect_failure({.contents = "abc", .faults = {{.claim_length = "none", .for_ever = true}}}),
              HasSubstr("does not say how long the file is"));
  // Where the size is known from elsewhere it will do.
  RemoteFile asked = remote("/x");
  asked.bytes = 3;
  expect_whole({.contents = "abc", .faults = {{.claim_length = "none", .for_ever = true}}}, asked);
}

TEST_F(DownloadTest, BusyServersAreAskedAgain) {
  const FileReport report = expect_whole({.contents = random_bytes(1000),
                                          .faults = {{.status = 500}, {.status = 503}, {.status = 429}, {.status = 408}}});
  EXPECT_EQ(report.tries, 5);
}

TEST_F(DownloadTest, RetryAfterIsWaitedFor) {
  auto start = Clock::now();
  expect_whole({.contents = "abc", .faults = {{.status = 429, .headers = "Retry-After: 1\r\n"}}});
  EXPECT_GE(seconds_since(start), 0.95);
  // A day is more than we are ready to wait.
  options_.retry.max_retry_after_seconds = 0.05;
  fs::remove_all(output());
  start = Clock::now();
  expect_whole({.contents = "abc", .faults = {{.status = 503, .headers = "Retry-After: 86400\r\n"}}});
  EXPECT_LT(seconds_since(start), 5);
}

TEST_F(DownloadTest, ServersThatStayBrokenAreGivenUp) {
  EXPECT_THAT(expect_failure({.contents = "abc", .faults = {{.status = 500, .for_ever = true}}}),
              HasSubstr("the server answered 500, expected the file (200); tried 5 times"));
  EXPECT_EQ(server_.requests("/x").size(), 5u);
}

TEST_F(DownloadTest, NoIsTakenForAnAnswer) {
  for (const int status : {400, 401, 403, 404, 410, 416, 501}) {
    const std::size_t before = server_.requests("/x").size();
    EXPECT_THAT(expect_failure({.contents = "abc", .faults = {{.status = status, .for_ever = true}}}),
                HasSubstr("the server answered " + std::to_string(status)));
    EXPECT_EQ(server_.requests("/x").size(), before + 1) << status;
  }
}

TEST_F(DownloadTest, RangeThatIsRefusedBeginsAnew) {
  expect_whole({.contents = random_bytes(500'000), .faults = {{.drop_after = 100'000}, {.status = 416}}});
  EXPECT_EQ(server_.requests("/x").back().range, "");
}

TEST_F(DownloadTest, RangeThatIsIgnoredBeginsAnew) {
  expect_whole({.contents = random_bytes(500'000), .faults = {{.drop_after = 100'000}, {.ignore_range = true}}});
}

TEST_F(DownloadTest, RangeFromAnotherPlaceBeginsAnew) {
  const std::string contents = random_bytes(500'000);
  const std::string other =
      "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-499999/500000\r\nETag: \"one\"\r\n"
      "Content-Length: 499995\r\nConnection: close\r\n\r\n" +
      contents.substr(5);
  expect_whole({.contents = contents, .faults = {{.drop_after = 100'000}, {.raw = other}}});
}

TEST_F(DownloadTest, FileThatChangedOnTheServerBeginsAnew) {
  server_.serve(
      "/x", {.contents = random_bytes(500'000, 1), .etag = "\"old\"", .faults = {{.drop_after = 100'000}, {.status = 404}}});
  EXPECT_EQ(download(remote("/x")).state, State::kFailed);
  EXPECT_EQ(fs::file_size(output() / "x.part"), 100'000u);
  expect_whole({.contents = random_bytes(500'000, 2), .etag = "\"new\""});
  EXPECT_EQ(server_.requests("/x").back().if_range, "\"old\"");
}

TEST_F(DownloadTest, ChangedFileIsSeenAlsoWhereIfRangeIsNotKnown) {
  const std::string changed = random_bytes(500'000, 2);
  const std::string ignoring =
      "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 100000-499999/500000\r\n"
      "ETag: \"new\"\r\nContent-Length: 400000\r\nConnection: close\r\n\r\n" +
      changed.substr(100'000);
  server_.serve(
      "/x", {.contents = random_bytes(500'000, 1), .etag = "\"old\"", .faults = {{.drop_after = 100'000}, {.status = 404}}});
  download(remote("/x"));
  expect_whole({.contents = changed, .etag = "\"new\"", .faults = {{.raw = ignoring}}});
}

TEST_F(DownloadTest, WithoutAVersionNothingIsContinued) {
  expect_whole({.contents = random_bytes(500'000), .etag = "W/\"weak\"", .faults = {{.drop_after = 100'000}}});
  EXPECT_EQ(server_.requests("/x").back().range, "");
}

TEST_F(DownloadTest, DateOfTheFileServesWhereThereIsNoTag) {
  expect_whole({.contents = random_bytes(500'000),
                .etag = "",
                .last_modified = "Mon, 01 Dec 2025 10:00:00 GMT",
                .faults = {{.drop_after = 100'000}}});
  EXPECT_EQ(server_.requests("/x").back().range, "bytes=100000-");
  EXPECT_EQ(server_.requests("/x").back().if_range, "Mon, 01 Dec 2025 10:00:00 GMT");
}

TEST_F(DownloadTest, WrongBytesAreFetchedAnewAndThenRefused) {
  const std::string contents = random_bytes(100'000);
  RemoteFile asked = remote("/x");
  asked.sha256 = sha256_hex(contents);
  const std::string wrong = random_bytes(100'000, 7);
  EXPECT_EQ(expect_whole({.contents = contents, .faults = {{.body = wrong}}}, asked).tries, 2);
  fs::remove_all(output());
  EXPECT_THAT(expect_failure({.contents = wrong}, asked),
              AllOf(HasSubstr("SHA-256 of the file is " + sha256_hex(wrong)), HasSubstr("expected " + asked.sha256)));
  EXPECT_FALSE(fs::exists(output() / "x.part"));  // nothing to go on from
}

TEST_F(DownloadTest, WrongBeginningIsFoundWhenTheRestArrives) {
  const std::string contents = random_bytes(100'000);
  RemoteFile asked = remote("/x");
  asked.sha256 = sha256_hex(contents);
  EXPECT_EQ(
      expect_whole({.contents = contents, .faults = {{.drop_after = 50'000, .body = random_bytes(100'000, 7)}}}, asked).tries,
      3);
}

TEST_F(DownloadTest, WrongSizes) {
  const std::string contents = random_bytes(100'000);
  RemoteFile asked = remote("/x");
  asked.bytes = contents.size();
  // Says another size, then the right one.
  expect_whole({.contents = contents, .faults = {{.body = contents + "more"}}}, asked);
  fs::remove_all(output());
  EXPECT_THAT(expect_failure({.contents = contents + "more"}, asked),
              HasSubstr("the server offers 100,004 bytes, expected 100,000 bytes"));
  // Sends more than there should be, without saying so.
  EXPECT_THAT(expect_failure({.contents = contents + "more", .faults = {{.chunked = true, .for_ever = true}}}, asked),
              HasSubstr("the server sends more than 100,000 bytes"));
  // Promises more than it sends: looks like a dropped connection, for ever.
  EXPECT_THAT(expect_failure({.contents = contents, .etag = "", .faults = {{.claim_length = "100001", .for_ever = true}}}),
              HasSubstr("tried 5 times"));
  // Cuts it short, and says so.
  EXPECT_THAT(expect_failure({.contents = contents, .faults = {{.body = "short", .for_ever = true}}}, asked),
              HasSubstr("the server offers 5 bytes"));
}

TEST_F(DownloadTest, RedirectsAreFollowedButNotInACircle) {
  server_.serve("/a", {.contents = "", .faults = {{.status = 302, .headers = "Location: /x\r\n", .for_ever = true}}});
  RemoteFile asked = {.url = server_.url() + "/a", .path = "x"};
  expect_whole({.contents = random_bytes(1000)}, asked);
  fs::remove_all(output());
  const std::size_t before = server_.requests().size();
  EXPECT_THAT(expect_failure({.contents = "", .faults = {{.status = 302, .headers = "Location: /x\r\n", .for_ever = true}}}),
              HasSubstr("redirects"));
  EXPECT_LE(server_.requests().size() - before, 11u);
}

TEST_F(DownloadTest, RedirectsOutOfHttpAreNotFollowed) {
  testing::write_text(folder_ / "secret", "secret");
  EXPECT_THAT(expect_failure({.contents = "",
                              .faults = {{.status = 302,
                                          .headers = "Location: file://" + (folder_ / "secret").string() + "\r\n",
                                          .for_ever = true}}}),
              HasSubstr("rotocol"));
}

TEST_F(DownloadTest, StallsAreEndedAndContinued) {
  const std::string contents = random_bytes(400'000);
  options_.limits.stall_seconds = 0.3;
  const auto start = Clock::now();
  const FileReport report = expect_whole({.contents = contents, .faults = {{.stall_after = 100'000}, {.stall_after = 0}}});
  EXPECT_EQ(report.received_bytes, contents.size());
  EXPECT_LT(seconds_since(start), 8);
  options_.retry.retries = 1;
  fs::remove_all(output());
  EXPECT_THAT(expect_failure({.contents = contents, .faults = {{.stall_after = 0, .for_ever = true}}}),
              HasSubstr("bytes came in"));
}

TEST_F(DownloadTest, WebPagesAndCompressedAnswersAreNotTheFile) {
  EXPECT_THAT(expect_failure({.contents = "<html>log in</html>",
                              .faults = {{.headers = "Content-Type: text/html; charset=utf-8\r\n", .for_ever = true}}}),
              HasSubstr("sends a web page"));
  EXPECT_THAT(expect_failure({.contents = "abc", .faults = {{.headers = "Content-Encoding: gzip\r\n", .for_ever = true}}}),
              HasSubstr("sends it as gzip, expected the plain file"));
}

TEST_F(DownloadTest, ContentsNamedByTheServerMustHold) {
  const std::string contents = random_bytes(200'000);
  const auto linked = [&](const std::string& digest) {
    return Fault{.status = 302,
                 .headers = "Location: /x\r\nX-Linked-Size: 200000\r\nX-Linked-Etag: \"" + digest + "\"\r\n",
                 .for_ever = true};
  };
  RemoteFile asked = {.url = server_.url() + "/hub", .path = "x"};
  server_.serve("/hub", {.contents = "", .faults = {linked(sha256_hex(contents))}});
  // Each cache behind the redirect has a tag of its own; the content decides.
  server_.serve("/x", {.contents = contents, .etag = "\"cache 1\"", .faults = {{.drop_after = 90'000}, {.status = 404}}});
  EXPECT_EQ(download(asked).state, State::kFailed);
  EXPECT_EQ(expect_whole({.contents = contents, .etag = "\"cache 2\""}, asked).received_bytes, 110'000u);

  fs::remove_all(output());
  server_.serve("/hub", {.contents = "", .faults = {linked(sha256_hex("another"))}});
  server_.serve("/x", {.contents = contents});
  const FileReport wrong = download(asked);
  EXPECT_EQ(wrong.state, State::kFailed);
  EXPECT_THAT(wrong.error, HasSubstr("expected " + sha256_hex("another")));
  EXPECT_FALSE(fs::exists(output() / "x"));
}

TEST_F(DownloadTest, FilesThatAreThereAreNotFetchedAgain) {
  const std::string contents = random_bytes(1000);
  expect_whole({.contents = contents});
  const std::size_t before = server_.requests().size();
  EXPECT_EQ(download(remote("/x")).state, State::kPresent);
  EXPECT_EQ(server_.requests().size(), before);  // not even asked about

  // Changed since: of the same size, so that only its contents tell.
  testing::write_text(output() / "x", random_bytes(1000, 9));
  EXPECT_EQ(download(remote("/x")).state, State::kDownloaded);
  expect_on_disk(contents);

  // Damaged so that size and time stamp stay: found by --verify.
  const auto stamp = fs::last_write_time(output() / "x");
  testing::write_text(output() / "x", random_bytes(1000, 9));
  fs::last_write_time(output() / "x", stamp);
  EXPECT_EQ(download(remote("/x")).state, State::kPresent);
  options_.verify = true;
  EXPECT_EQ(download(remote("/x")).state, State::kDownloaded);
  expect_on_disk(contents);
  EXPECT_EQ(download(remote("/x")).state, State::kPresent);
}

TEST_F(DownloadTest, FilesOfOtherOriginAreKeptWhereTheyAreTheSame) {
  const std::string contents = random_bytes(1000);
  fs::create_directories(output());
  testing::write_text(output() / "x", contents);
  RemoteFile asked = remote("/x");
  asked.sha256 = sha256_hex(contents);
  server_.serve("/x", {.contents = contents});
  EXPECT_EQ(download(asked).state, State::kPresent);
  EXPECT_TRUE(server_.requests().empty());
  asked.sha256.clear();
  EXPECT_EQ(download(asked).state, State::kPresent);
  ASSERT_EQ(server_.requests().size(), 1u);
  EXPECT_EQ(server_.requests()[0].method, "HEAD");
  testing::write_text(output() / "x", "shorter");
  EXPECT_EQ(download(asked).state, State::kDownloaded);
  expect_on_disk(contents);
}

TEST_F(DownloadTest, ManyFilesInFoldersAndAMirror) {
  std::vector<RemoteFile> files;
  for (int i = 0; i < 20; ++i) {
    const std::string path = "/set/" + std::to_string(i % 3) + "/" + std::to_string(i);
    server_.serve("/mirror" + path, {.contents = random_bytes(10'000, static_cast<std::uint64_t>(i)),
                                     .faults = {{.drop_after = 5000}, {.status = 503}}});
    files.push_back({.url = "https://data.invalid" + path, .path = path.substr(1)});
  }
  options_.mirror = server_.url() + "/mirror/";
  const DownloadReport report = download_all(files);
  EXPECT_EQ(report.count(State::kDownloaded), 20u);
  EXPECT_EQ(report.received_bytes(), 200'000u);
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(read_file(report.files[static_cast<std::size_t>(i)].path) ==
                random_bytes(10'000, static_cast<std::uint64_t>(i)));
  }
}

TEST_F(DownloadTest, OneBadFileDoesNotEndTheOthersButThreeInARowDo) {
  options_.workers = 1;
  std::vector<RemoteFile> files;
  for (int i = 0; i < 10; ++i) {
    const std::string path = "/" + std::to_string(i);
    if (i != 2 && i < 4) server_.serve(path, {.contents = "abc"});
    files.push_back(remote(path));
  }
  const DownloadReport report = download_all(files);
  EXPECT_EQ(report.count(State::kDownloaded), 3u);
  EXPECT_EQ(report.count(State::kFailed), 4u);
  EXPECT_EQ(report.count(State::kNotFetched), 3u);
  EXPECT_FALSE(report.interrupted);
}

TEST_F(DownloadTest, NobodyListens) {
  std::string url;
  {
    const TestingServer gone;
    url = gone.url();
  }
  const FileReport report = download({.url = url + "/x", .path = "x"});
  EXPECT_EQ(report.state, State::kFailed);
  EXPECT_THAT(report.error, AllOf(StartsWith(url + "/x: "), HasSubstr("onnect"), HasSubstr("tried 5 times")));
}

TEST_F(DownloadTest, NobodyOfThatName) {
  options_.limits.connect_timeout_seconds = 0.5;
  options_.retry.retries = 2;
  const FileReport report = download({.url = "http://data.invalid/x", .path = "x"});  // RFC 2606: never a host
  EXPECT_EQ(report.state, State::kFailed);
  EXPECT_THAT(report.error, AllOf(StartsWith("http://data.invalid/x: "), HasSubstr("esolv"), HasSubstr("tried 3 times")));
}

TEST_F(DownloadTest, MistakesOfTheCaller) {
  EXPECT_THROW(download({.url = "ftp://host/x", .path = "x"}), ConfigError);
  EXPECT_THROW(download({.url = "http://host/x", .path = "../x"}), ConfigError);
  EXPECT_THROW(download_all({remote("/x"), remote("/x")}), ConfigError);
  options_.mirror = "mirror.example";
  EXPECT_THROW(download(remote("/x")), ConfigError);
}

TEST_F(DownloadTest, DiskThatRefusesEndsAll) {
  testing::write_text(folder_ / "out", "a file where the folder should be");
  EXPECT_THROW(download(remote("/x")), IoError);
  fs::remove(folder_ / "out");
  fs::create_directories(output());
  testing::write_text(output() / "sub", "and one level below");
  server_.serve("/sub/x", {.contents = "abc"});
  EXPECT_THROW(download(remote("/sub/x")), IoError);
}

TEST_F(DownloadTest, InterruptKeepsWhatCame) {
  install_interrupt_handlers();
  const std::string contents = random_bytes(4'000'000);
  server_.serve("/x", {.contents = contents, .bytes_per_second = 1'000'000});
  const auto start = Clock::now();
  const std::jthread interrupter([&] {
    std::error_code none;
    const auto arrived = [&] { return fs::file_size(output() / "x.part", none) > 50'000 && !none; };
    while (!arrived() && seconds_since(start) < 3) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ::raise(SIGINT);
  });
  const DownloadReport report = download_all({remote("/x"), remote("/y")});
  EXPECT_LT(seconds_since(start), 3.5);  // four, were it not interrupted
  EXPECT_TRUE(report.interrupted);
  EXPECT_EQ(report.files[0].state, State::kNotFetched);
  EXPECT_FALSE(fs::exists(output() / "x"));
  const auto kept = fs::file_size(output() / "x.part");
  EXPECT_GT(kept, 50'000u);
  EXPECT_EQ(report.files[0].partial_bytes, kept);
  reset_interrupt_for_testing();
  EXPECT_EQ(expect_whole({.contents = contents}).received_bytes, contents.size() - kept);
}

TEST_F(DownloadTest, PlanSaysWhatIsThereAndWritesNothing) {
  server_.serve("/x", {.contents = random_bytes(5000), .faults = {{.drop_after = 2000}, {.status = 404}}});
  server_.serve("/y", {.contents = random_bytes(300)});
  server_.serve("/z", {.contents = random_bytes(70)});
  download(remote("/x"));
  download(remote("/z"));
  const auto listing = [&] {
    std::string text;
    for (const auto& entry : fs::directory_iterator(output())) text += entry.path().filename().string() + " ";
    return text;
  };
  const std::string before = listing();
  SilentProgress progress;
  const DownloadReport plan = plan_download({remote("/x"), remote("/y"), remote("/z"), remote("/none")}, output(), options_,
                                            progress);
  EXPECT_EQ(plan.files[0].state, State::kNotFetched);
  EXPECT_EQ(plan.files[0].bytes, 5000u);
  EXPECT_EQ(plan.files[0].partial_bytes, 2000u);
  EXPECT_EQ(plan.files[1].bytes, 300u);
  EXPECT_EQ(plan.files[2].state, State::kPresent);
  EXPECT_EQ(plan.files[3].bytes, std::nullopt);
  EXPECT_THAT(plan.files[3].error, HasSubstr("answered 404"));
  EXPECT_EQ(listing(), before);
  SilentProgress quiet;
  plan_download({remote("/y")}, folder_ / "absent", options_, quiet);
  EXPECT_FALSE(fs::exists(folder_ / "absent"));
}

// Remembers the last bars that it was shown.
class Recorder : public SilentProgress {
 public:
  void set_total(std::int64_t total) override { total_ = total; }
  void advance(std::int64_t amount) override { done_ += amount; }
  void set_parts(const std::vector<ProgressPart>& parts) override { most_ = std::max(most_, parts.size()); }
  std::int64_t total_ = 0, done_ = 0;
  std::size_t most_ = 0;
};

TEST_F(DownloadTest, ProgressCountsBytesAndFiles) {
  std::vector<RemoteFile> files;
  for (const char* path : {"/a", "/b", "/c"}) {
    server_.serve(path, {.contents = random_bytes(200'000), .bytes_per_second = 500'000});
    files.push_back(remote(path));
  }
  Recorder recorder;
  download_files(files, output(), options_, recorder);
  EXPECT_EQ(recorder.done_, 600'000);
  EXPECT_EQ(recorder.total_, 600'000);
  EXPECT_EQ(recorder.most_, 3u);
}

}  // namespace
}  // namespace nanochat
