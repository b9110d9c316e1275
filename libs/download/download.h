#pragma once
// Downloads files: several at a time, resumable, checked, and each under its final name only when it is whole.
//
// A transfer that breaks goes on from NAME.part by HTTP ranges, in this run or a later one, after kill -9 too; when the
// file on the server has changed meanwhile, from its beginning. A size and a SHA-256 that are known, from the table of
// sets or from the server, must hold. What was downloaded is recorded in .downloads.jsonl of the output folder, so that
// the next run skips it without reading it.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "download/remote_file.h"
#include "download/retry.h"
#include "download/transfer.h"

namespace nanochat {

class ProgressReporter;

struct DownloadOptions {
  int workers = 4;                // files at a time
  std::string mirror = {};        // instead of scheme and host of every URL
  bool verify = false;            // read files that are there again, and compare their SHA-256
  RetryPolicy retry = {};
  TransferLimits limits = {};
  int wrong_contents_limit = 2;   // give a file up when it came whole, but wrong, so many times
  int failures_in_a_row_limit = 3;  // then do not ask for the rest: the server, or the way to it, is down
};

struct FileReport {
  enum class State {
    kDownloaded,
    kPresent,     // was there, and is what it should be
    kFailed,      // `error` says why
    kNotFetched   // interrupted or given up before it was done; or only asked about by plan_download
  };
  RemoteFile file;
  std::filesystem::path path;           // with the output folder
  State state = State::kNotFetched;
  std::optional<std::uint64_t> bytes = {};  // size of the whole file
  std::uint64_t partial_bytes = 0;      // of kNotFetched and kFailed: in NAME.part
  std::uint64_t received_bytes = 0;     // over the network, those that were thrown away included
  int tries = 0;
  std::string sha256 = {};              // of kDownloaded; of kPresent where it is known
  std::string error = {};
};

struct DownloadReport {
  std::vector<FileReport> files;  // in the order asked for
  bool interrupted = false;
  std::size_t count(FileReport::State state) const;
  std::uint64_t received_bytes() const;
};

// A file that fails does not end the others; its report has the error. SIGINT (core/interrupt.h) ends all within a
// moment and keeps what came. Throws ConfigError for a mirror or a URL that is none, IoError when the disk refuses (full,
// read-only): then nothing else can succeed.
DownloadReport download_files(const std::vector<RemoteFile>& files, const std::filesystem::path& output_dir,
                              const DownloadOptions& options, ProgressReporter& progress);

// What download_files would do: which files are there, in part or whole, and the size of the others, for which the
// servers are asked where it is not known. Writes nothing.
DownloadReport plan_download(const std::vector<RemoteFile>& files, const std::filesystem::path& output_dir,
                             const DownloadOptions& options, ProgressReporter& progress);

}  // namespace nanochat
