#pragma once
// Internal to download: downloads one file, with retries.

#include <cstdint>
#include <functional>
#include <optional>

#include "core/random.h"
#include "download/download.h"
#include "download/download_record.h"

namespace nanochat {

// Callbacks for progress bars, called on the thread that downloads.
struct FileEvents {
  std::function<void(std::uint64_t done, std::optional<std::uint64_t> total)>
      size;  // bytes of the file so far, and of the whole file
  std::function<void(std::uint64_t bytes)> received;
  std::function<bool()> stopped;  // come to an end
};

class FileDownload {
 public:
  // All arguments must outlive the object. `report` names the file and receives the result.
  FileDownload(FileReport& report, const DownloadOptions& options, DownloadRecord& record, Transfer& transfer,
               const FileEvents& events);

  // Whether the file exists and is correct. Asks the server if size and SHA-256 are not known. Fills in the report.
  bool is_present();
  // Asks the server for the size of the file, without retries.
  std::optional<std::uint64_t> ask_size();
  // Throws only IoError.
  void run();

 private:
  // The result of one try. `reason` is the part of the message after the URL and a colon.
  struct Try {
    enum class Kind { kWhole, kAgain, kWrongContents, kStopped, kNever } kind;
    std::string reason = {};
    std::optional<double> retry_after = {};
  };
  Try attempt(PartialFile& part);
  std::optional<Try> refuse(const TransferResponse& response, const TransferRequest& request, const PartialFile& part) const;
  Try judge(const TransferEnd& end, const TransferResponse& response, const TransferRequest& request, PartialFile& part) const;
  Try verify(PartialFile& part, bool resumed) const;
  std::optional<std::uint64_t> expected_bytes(const PartialFile& part) const;
  void keep(PartialFile& part);
  bool wait(double seconds) const;  // false if it was stopped
  void fail(const std::string& reason);

  FileReport& report_;
  const DownloadOptions& options_;
  DownloadRecord& record_;
  Transfer& transfer_;
  const FileEvents& events_;
  std::string url_;  // with the mirror, if there is one
  Rng jitter_;
};

}  // namespace nanochat
