// nanochat data download: from a server of the test's own that misbehaves, kill -9 included.
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/random.h"
#include "core/sha256.h"
#include "download/testing_server.h"
#include "program.h"

namespace nanochat::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

constexpr int kShards = 4;

std::string shard(int index) {
  Rng random(static_cast<std::uint64_t>(index));
  std::string bytes(200'000, '\0');
  for (char& c : bytes) c = static_cast<char>(random.next());
  return bytes;
}

class DownloadContract : public ::testing::Test {
 protected:
  // A table with one set, "small", of four shards whose checksums are known.
  void SetUp() override {
    json digests = json::array();
    for (int i = 0; i < kShards; ++i) {
      serve(i);
      digests.push_back(sha256_hex(shard(i)));
    }
    const json table = {
        {"small",
         {{"description", "four shards"},
          {"licence", "own"},
          {"files", {{{"url", server_.url() + "/shard_{index:05d}.bin"}, {"count", kShards}, {"sha256", digests}}}}}}};
    write_text(folder_ / "sets.json", table.dump());
  }

  void serve(int i, std::vector<Fault> faults = {}, double bytes_per_second = 0) {
    server_.serve("/" + name(i), {.contents = shard(i), .faults = std::move(faults), .bytes_per_second = bytes_per_second});
  }
  static std::string name(int i) { return "shard_0000" + std::to_string(i) + ".bin"; }
  fs::path output() const { return folder_ / "out"; }

  std::vector<std::string> arguments(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words = {
        "data",   "download",      "small", "--datasets",      folder_ / "sets.json", "--output-dir",
        output(), "--retry-delay", "0.01",  "--stall-timeout", stall_timeout_,        "--retries",
        "3"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  ProgramResult download(const std::vector<std::string>& more = {}) const {
    return run_program(arguments(more), "", {{"no_proxy", "127.0.0.1"}});
  }
  bool whole(int i) const { return fs::exists(output() / name(i)) && read_file(output() / name(i)) == shard(i); }
  bool all_whole() const { return whole(0) && whole(1) && whole(2) && whole(3); }

  std::string stall_timeout_ = "10";
  TemporaryDirectory folder_;
  TestingServer server_;
};

TEST_F(DownloadContract, FetchesTheSetAndSkipsWhatIsThere) {
  stall_timeout_ = "0.5";
  serve(1, {{.status = 503}, {.drop_after = 1000}});
  serve(2, {{.stall_after = 50'000}, {.status = 429}});
  const ProgramResult first = download();
  EXPECT_EQ(first.exit_code, 0) << first.err;
  EXPECT_TRUE(all_whole());
  EXPECT_THAT(first.out, HasSubstr(": 4 downloaded (781.2 KiB received), 0 there before, 0 missing; licence: own"));

  const ProgramResult again = download({"--json"});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  const json report = json::parse(again.out);
  EXPECT_EQ(report["present"], kShards);
  EXPECT_EQ(report["received_bytes"], 0);
  EXPECT_EQ(report["files"][0]["sha256"], sha256_hex(shard(0)));
}

TEST_F(DownloadContract, PartsOfASet) {
  EXPECT_EQ(download({"--first", "1"}).exit_code, 0);
  EXPECT_TRUE(whole(0) && !whole(1));
  EXPECT_EQ(download({"--shards", "2-3"}).exit_code, 0);
  EXPECT_TRUE(!whole(1) && whole(2) && whole(3));
  const ProgramResult wrong = download({"--shards", "2-4"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("small has 4 files"));
}

TEST_F(DownloadContract, DryRunFetchesNothing) {
  download({"--first", "1"});
  const ProgramResult plan = download({"--dry-run"});
  EXPECT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_THAT(plan.out, AllOf(HasSubstr(name(0) + ": 195.3 KiB, present, " + server_.url()),
                              HasSubstr(name(3) + ": 195.3 KiB, to fetch"), HasSubstr("3 of 4 files to fetch, 585.9 KiB")));
  EXPECT_FALSE(fs::exists(output() / name(1)));
  const json report = json::parse(download({"--dry-run", "--json"}).out);
  EXPECT_EQ(report["dry_run"], true);
  EXPECT_EQ(report["files"][1]["state"], "not_fetched");
  EXPECT_EQ(report["files"][1]["bytes"], 200'000);
}

TEST_F(DownloadContract, FailuresAreSaidInOneLineOrMadeAPart) {
  serve(2, {{.status = 404, .for_ever = true}});
  const ProgramResult part = download();
  EXPECT_EQ(part.exit_code, 5);
  EXPECT_THAT(part.err, AllOf(HasSubstr("nanochat: " + server_.url() + "/" + name(2) + ": the server answered 404"),
                              HasSubstr("3 of 4 files are whole")));
  EXPECT_TRUE(whole(0) && whole(1) && !whole(2) && whole(3));

  const ProgramResult none = download({"--shards", "2"});
  EXPECT_EQ(none.exit_code, 3);
  EXPECT_EQ(none.out, "");
  EXPECT_THAT(none.err, HasSubstr("nanochat data download: " + server_.url() + "/" + name(2) + ": the server answered 404"));

  serve(2, {{.body = shard(3), .for_ever = true}});
  const ProgramResult wrong = download({"--shards", "2"});
  EXPECT_EQ(wrong.exit_code, 3);
  EXPECT_THAT(wrong.err, HasSubstr("expected " + sha256_hex(shard(2))));
  EXPECT_FALSE(fs::exists(output() / name(2)));
}

TEST_F(DownloadContract, MirrorsAndProxies) {
  write_text(folder_ / "far.json", json{{"small", {{"files", {{{"url", "http://data.invalid/" + name(0)}}}}}}}.dump());
  const std::vector<std::string> far = {"--datasets", folder_ / "far.json"};
  const ProgramResult mirrored = download({far[0], far[1], "--mirror", server_.url()});
  EXPECT_EQ(mirrored.exit_code, 0) << mirrored.err;
  EXPECT_TRUE(whole(0));
  fs::remove_all(output());
  const ProgramResult proxied = run_program(arguments(far), "", {{"http_proxy", server_.url()}, {"no_proxy", ""}});
  EXPECT_EQ(proxied.exit_code, 0) << proxied.err;
  EXPECT_TRUE(whole(0));
  EXPECT_EQ(server_.requests().back().target, "http://data.invalid/" + name(0));
}

TEST_F(DownloadContract, ListAndUnknownSets) {
  const ProgramResult list = run_program({"data", "download", "--list", "--datasets", folder_ / "sets.json"});
  EXPECT_EQ(list.exit_code, 0) << list.err;
  EXPECT_THAT(list.out, AllOf(HasSubstr("fineweb-edu: "), HasSubstr("1823 files, licence: ODC-By 1.0"),
                              HasSubstr("small: four shards\n  4 files, licence: own")));
  const ProgramResult unknown = run_program({"data", "download", "gsm9k"});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_THAT(unknown.err, HasSubstr("unknown set \"gsm9k\", did you mean \"gsm8k\"?"));
  EXPECT_EQ(run_program({"data", "download"}).exit_code, 2);
}

TEST_F(DownloadContract, KilledAtRandomMomentsAndResumed) {
  constexpr int kKills = 8;
  for (int i = 0; i < kShards; ++i) serve(i, {}, 300'000);  // 0.7 s each
  Rng random(20251201);
  std::size_t killed = 0;
  for (int kill = 0; kill < kKills && !all_whole(); ++kill) {
    const std::size_t before = server_.requests().size();
    Program program(arguments({"--workers", "2"}), {.environment = {{"no_proxy", "127.0.0.1"}}});
    const auto limit = Clock::now() + std::chrono::seconds(10);
    while (server_.requests().size() == before && Clock::now() < limit) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    const auto end = Clock::now() + std::chrono::duration<double>(0.2 * random.uniform());
    while (Clock::now() < end && program.running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    program.send(SIGKILL);
    if (program.wait().exit_code == 128 + SIGKILL) ++killed;
    for (int i = 0; i < kShards; ++i) {
      EXPECT_TRUE(!fs::exists(output() / name(i)) || whole(i)) << "a file that is not whole has the final name";
    }
  }
  EXPECT_GE(killed, 4u);
  const ProgramResult last = download({"--json"});
  EXPECT_EQ(last.exit_code, 0) << last.err;
  EXPECT_TRUE(all_whole());
  const json report = json::parse(last.out);
  EXPECT_LT(report["received_bytes"], 800'000) << "the last run began from nothing";
  for (const auto& entry : fs::directory_iterator(output())) {
    EXPECT_FALSE(entry.path().filename().string().ends_with(".part")) << entry.path();
    EXPECT_FALSE(entry.path().filename().string().ends_with(".info")) << entry.path();
  }
  std::size_t continued = 0;
  for (const SeenRequest& request : server_.requests()) continued += request.range.empty() ? 0 : 1;
  EXPECT_GE(continued, 3u);
}

TEST_F(DownloadContract, InterruptedOnceItStopsAndContinuesLater) {
  for (int i = 0; i < kShards; ++i) serve(i, {}, 200'000);
  Program program(arguments(), {.environment = {{"no_proxy", "127.0.0.1"}}});
  const auto limit = Clock::now() + std::chrono::seconds(10);
  while (server_.requests().empty() && Clock::now() < limit) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const auto start = Clock::now();
  program.send(SIGINT);
  const ProgramResult result = program.wait();
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(2));
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_THAT(result.err, HasSubstr("interrupted with 0 of 4 files whole; the same command continues\n"));
  for (int i = 0; i < kShards; ++i) serve(i);
  EXPECT_EQ(download().exit_code, 0);
  EXPECT_TRUE(all_whole());
  EXPECT_NE(server_.requests().back().range, "");
}

}  // namespace
}  // namespace nanochat::testing
