#pragma once
// Downloads several files at a time. Each file has its final name only when it is complete and verified.
//
// An interrupted transfer continues from NAME.part with HTTP ranges, in this run or a later one, also after kill -9. If the
// file on the server has changed, it starts again. Known sizes and SHA-256 (from the table of sets or the server) are compared.
// .downloads.jsonl in the output folder lists completed downloads, and the next run skips them without reading them.

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
  int workers = 4;  // number of files at a time
  std::string mirror = {};  // replaces scheme and host of every URL
  bool verify = false;  // read existing files again and compare their SHA-256
  RetryPolicy retry = {};
  TransferLimits limits = {};
  int wrong_contents_limit = 2;  // give up a file that was complete but wrong this many times
  int failures_in_a_row_limit = 3;  // after so many failed files, do not try the others: the server or the network is down
};

struct FileReport {
  enum class State {
    kDownloaded,
    kPresent,  // existed and is correct
    kFailed,  // `error` says why
    kNotFetched  // interrupted or given up before it was done; or only asked about by plan_download
  };
  RemoteFile file;
  std::filesystem::path path;  // includes the output folder
  State state = State::kNotFetched;
  std::optional<std::uint64_t> bytes = {};  // size of the whole file
  std::uint64_t partial_bytes = 0;  // of kNotFetched and kFailed: in NAME.part
  std::uint64_t received_bytes = 0;  // received over the network, including discarded bytes
  int tries = 0;
  std::string sha256 = {};  // of kDownloaded; of kPresent where it is known
  std::string error = {};
};

struct DownloadReport {
  std::vector<FileReport> files;  // in the order of the request
  bool interrupted = false;
  std::size_t count(FileReport::State state) const;
  std::uint64_t received_bytes() const;
};

// The failure of one file does not stop the others; its report has the error. SIGINT (core/interrupt.h) stops all transfers at
// once and keeps the received bytes. Throws ConfigError for an invalid mirror or URL, and IoError if the disk is full or
// read-only.
DownloadReport download_files(const std::vector<RemoteFile>& files, const std::filesystem::path& output_dir,
                              const DownloadOptions& options, ProgressReporter& progress);

// What download_files would do: which files exist completely or in part, and the sizes of the others, which are requested from
// the servers if they are not known. Writes nothing.
DownloadReport plan_download(const std::vector<RemoteFile>& files, const std::filesystem::path& output_dir,
                             const DownloadOptions& options, ProgressReporter& progress);

}  // namespace nanochat
