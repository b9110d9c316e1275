#pragma once
// Internal to download: one file, from the first try to its final name or a reason why not.

#include <cstdint>
#include <functional>
#include <optional>

#include "core/random.h"
#include "download/download.h"
#include "download/download_record.h"

namespace nanochat {

// What goes on, for the progress bars. Called from the thread that downloads.
struct FileEvents {
  std::function<void(std::uint64_t done, std::optional<std::uint64_t> total)> size;  // of the file, now
  std::function<void(std::uint64_t bytes)> received;
  std::function<bool()> stopped;  // come to an end
};

class FileDownload {
 public:
  // All must outlive it. `report` says which file, and gets the outcome.
  FileDownload(FileReport& report, const DownloadOptions& options, DownloadRecord& record, Transfer& transfer,
               const FileEvents& events);

  // Is the file there, and what it should be? Asks the server where nothing is known of it. Sets the report.
  bool is_present();
  // Size of the file by asking the server, once.
  std::optional<std::uint64_t> ask_size();
  // Throws IoError alone.
  void run();

 private:
  // How one try ended; `reason` is a clause that follows the URL and a colon.
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
  bool wait(double seconds) const;  // false: stopped
  void fail(const std::string& reason);

  FileReport& report_;
  const DownloadOptions& options_;
  DownloadRecord& record_;
  Transfer& transfer_;
  const FileEvents& events_;
  std::string url_;  // on the mirror, where there is one
  Rng jitter_;
};

}  // namespace nanochat
