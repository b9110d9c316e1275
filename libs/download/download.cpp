#include "download/download.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include <spdlog/fmt/fmt.h>

#include "core/elapsed.h"
#include "core/errors.h"
#include "core/folder_lock.h"
#include "core/interrupt.h"
#include "core/progress.h"
#include "core/thread_pool.h"
#include "download/download_record.h"
#include "download/file_download.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using State = FileReport::State;

constexpr double kRedrawSeconds = 0.1;

DownloadReport empty_report(const std::vector<RemoteFile>& files, const fs::path& output_dir, const DownloadOptions& options) {
  if (!options.mirror.empty()) {
    if (const std::string problem = url_problem(options.mirror); !problem.empty()) {
      throw ConfigError(fmt::format("mirror: found \"{}\", {}", shown_url(options.mirror), problem));
    }
  }
  DownloadReport report;
  std::set<fs::path> paths;
  for (const RemoteFile& file : files) {
    if (const std::string problem = url_problem(file.url); !problem.empty()) {
      throw ConfigError(fmt::format("found the URL \"{}\", {}", shown_url(file.url), problem));
    }
    if (!is_safe_path(file.path) || !paths.insert(file.path).second) {
      throw ConfigError(fmt::format("{}: found the path \"{}\", expected a relative one that no other file has",
                                    shown_url(file.url), file.path.string()));
    }
    FileReport& entry = report.files.emplace_back();
    entry.file = file;
    entry.path = output_dir / file.path;
    entry.bytes = file.bytes;
  }
  return report;
}

// The bars: one of the whole in bytes, and one of each file under way. The size of files not yet asked for is taken to
// be the mean of those known. Thread-safe.
class Bars {
 public:
  Bars(ProgressReporter& progress, const std::vector<FileReport>& files) : progress_(progress), files_(files.size()) {
    for (std::size_t i = 0; i < files.size(); ++i) {
      files_[i].name = files[i].file.path.generic_string();
      files_[i].total = files[i].file.bytes;
    }
    progress_.start("downloading", 0, "B");
  }
  ~Bars() { progress_.finish(); }
  Bars(const Bars&) = delete;
  Bars& operator=(const Bars&) = delete;

  void size(std::size_t i, std::uint64_t done, std::optional<std::uint64_t> total) {
    const std::lock_guard lock(mutex_);
    files_[i].active = true;
    files_[i].done = done;
    files_[i].total = total;
    show(false);
  }
  void received(std::uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    received_ += bytes;
    progress_.advance(static_cast<std::int64_t>(bytes));
  }
  void ended(std::size_t i) {
    const std::lock_guard lock(mutex_);
    files_[i].active = false;
    files_[i].ended = true;
    ++ended_;
    show(true);
  }

 private:
  struct File {
    std::string name;
    std::uint64_t done = 0;
    std::optional<std::uint64_t> total;
    bool active = false;
    bool ended = false;
  };

  void show(bool now) {
    if (!now && seconds_since(shown_) < kRedrawSeconds) return;
    shown_ = Clock::now();
    double known_bytes = 0, known = 0, unknown = 0, left = 0;
    std::vector<ProgressPart> parts;
    for (const File& file : files_) {
      if (file.total) {
        known_bytes += static_cast<double>(*file.total);
        ++known;
      }
      if (file.active) {
        parts.push_back({file.name, static_cast<std::int64_t>(file.done), static_cast<std::int64_t>(file.total.value_or(0))});
      }
      if (file.ended) continue;
      if (!file.total) {
        ++unknown;
      } else if (*file.total > file.done) {
        left += static_cast<double>(*file.total - file.done);
      }
    }
    if (known > 0) left += unknown * known_bytes / known;
    progress_.set_total(static_cast<std::int64_t>(received_) + static_cast<std::int64_t>(left));
    progress_.note(fmt::format("{}/{} files", ended_, files_.size()));
    progress_.set_parts(parts);
  }

  ProgressReporter& progress_;
  std::mutex mutex_;
  std::vector<File> files_;
  std::uint64_t received_ = 0;
  std::size_t ended_ = 0;
  Clock::time_point shown_;
};

// Each keeps its connections; as many as there are threads.
class TransferPool {
 public:
  explicit TransferPool(const TransferLimits& limits) : limits_(limits) {}
  std::unique_ptr<Transfer> take() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) return std::make_unique<Transfer>(limits_);
    std::unique_ptr<Transfer> transfer = std::move(idle_.back());
    idle_.pop_back();
    return transfer;
  }
  void give_back(std::unique_ptr<Transfer> transfer) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(transfer));
  }

 private:
  const TransferLimits limits_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Transfer>> idle_;
};

}  // namespace

std::size_t DownloadReport::count(FileReport::State state) const {
  return static_cast<std::size_t>(std::count_if(files.begin(), files.end(),
                                                [state](const FileReport& file) { return file.state == state; }));
}

std::uint64_t DownloadReport::received_bytes() const {
  std::uint64_t bytes = 0;
  for (const FileReport& file : files) bytes += file.received_bytes;
  return bytes;
}

DownloadReport download_files(const std::vector<RemoteFile>& files, const fs::path& output_dir, const DownloadOptions& options,
                              ProgressReporter& progress) {
  DownloadReport report = empty_report(files, output_dir, options);
  const FolderLock lock(output_dir, "data download");
  DownloadRecord record(output_dir);
  TransferPool transfers(options.limits);
  Bars bars(progress, report.files);
  std::atomic<bool> give_up{false};
  std::atomic<int> failures_in_a_row{0};
  const auto stopped = [&] { return give_up.load() || interrupt_requested(); };

  for_each_index(files.size(), options.workers, [&](std::size_t i) {
    if (stopped()) return;
    const FileEvents events = {
        [&bars, i](std::uint64_t done, std::optional<std::uint64_t> total) { bars.size(i, done, total); },
        [&bars](std::uint64_t bytes) { bars.received(bytes); }, stopped};
    std::unique_ptr<Transfer> transfer = transfers.take();
    try {
      FileDownload(report.files[i], options, record, *transfer, events).run();
    } catch (...) {
      give_up = true;  // the disk refuses: the other threads must not go on either
      throw;
    }
    transfers.give_back(std::move(transfer));
    const State state = report.files[i].state;
    if (state == State::kFailed) {
      if (++failures_in_a_row >= options.failures_in_a_row_limit) give_up = true;
    } else if (state == State::kDownloaded) {
      failures_in_a_row = 0;
    }
    bars.ended(i);
  });
  report.interrupted = interrupt_requested() && report.count(State::kNotFetched) > 0;
  return report;
}

DownloadReport plan_download(const std::vector<RemoteFile>& files, const fs::path& output_dir, const DownloadOptions& options,
                             ProgressReporter& progress) {
  DownloadReport report = empty_report(files, output_dir, options);
  DownloadRecord record(output_dir);
  TransferPool transfers(options.limits);
  std::atomic<int> failures_in_a_row{0};
  const auto stopped = [&] { return interrupt_requested() || failures_in_a_row.load() >= options.failures_in_a_row_limit; };
  progress.start("asking for sizes", static_cast<std::int64_t>(files.size()), "files");
  for_each_index(files.size(), options.workers, [&](std::size_t i) {
    FileReport& file = report.files[i];
    std::error_code none;
    const std::uintmax_t partial = fs::file_size(file.path.string() + ".part", none);
    if (!none) file.partial_bytes = partial;
    if (!stopped()) {
      std::unique_ptr<Transfer> transfer = transfers.take();
      const FileEvents events = {[](std::uint64_t, std::optional<std::uint64_t>) {}, [](std::uint64_t) {}, stopped};
      FileDownload download(file, options, record, *transfer, events);
      if (!download.is_present()) {
        file.bytes = download.ask_size();
        if (file.bytes) {
          failures_in_a_row = 0;
        } else {
          ++failures_in_a_row;
        }
      }
      transfers.give_back(std::move(transfer));
    }
    progress.advance(1);
  });
  progress.finish();
  report.interrupted = interrupt_requested();
  return report;
}

}  // namespace nanochat
