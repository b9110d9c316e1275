#include "download/file_download.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "core/log.h"
#include "core/sha256.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using State = FileReport::State;

struct FileStatus {
  std::uint64_t bytes;
  std::int64_t modified_ns;
};

std::optional<FileStatus> status_of(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  return FileStatus{static_cast<std::uint64_t>(status.st_size),
                    std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec};
}

std::string count_of(std::uint64_t bytes) { return with_commas(static_cast<std::int64_t>(bytes)) + " bytes"; }

bool is_page(const fs::path& path) { return path.extension() == ".html" || path.extension() == ".htm"; }

}  // namespace

FileDownload::FileDownload(FileReport& report, const DownloadOptions& options, DownloadRecord& record, Transfer& transfer,
                           const FileEvents& events)
    : report_(report), options_(options), record_(record), transfer_(transfer), events_(events),
      url_(with_mirror(report.file.url, options.mirror)),
      jitter_(std::uint64_t{std::random_device()()} << 32 | std::random_device()()) {}

void FileDownload::fail(const std::string& reason) {
  report_.state = State::kFailed;
  report_.error = shown_url(url_) + ": " + reason;
}

std::optional<std::uint64_t> FileDownload::expected_bytes(const PartialFile& part) const {
  return report_.file.bytes ? report_.file.bytes : part.version().bytes;
}

bool FileDownload::is_present() {
  const std::optional<FileStatus> status = status_of(report_.path);
  if (!status) return false;
  const auto accept = [&](const std::string& sha256) {
    report_.state = State::kPresent;
    report_.bytes = status->bytes;
    report_.sha256 = sha256;
    return true;
  };
  const RemoteFile& file = report_.file;
  if (file.bytes && *file.bytes != status->bytes) return false;
  const std::string name = file.path.generic_string();
  const auto known = record_.find(name);
  const bool recorded = known && known->url == file.url && known->bytes == status->bytes &&
                        (file.sha256.empty() || file.sha256 == known->sha256);
  if (recorded && known->modified_ns == status->modified_ns && !options_.verify) return accept(known->sha256);

  // Not as it was left, or nothing is known of it, or asked to look: by its contents, then.
  std::string expected = !file.sha256.empty() ? file.sha256 : recorded ? known->sha256 : "";
  if (expected.empty()) {
    TransferResponse response;
    const TransferHandlers handlers = {[](const TransferResponse&) { return true; },
                                       [](const char*, std::size_t) { return false; }, events_.stopped};
    const TransferEnd end = transfer_.perform({.url = url_, .head = true}, handlers, response);
    if (end.kind != TransferEnd::Kind::kComplete || response.status != 200) return false;
    if (!response.version.bytes || *response.version.bytes != status->bytes) return false;
    expected = response.version.sha256;
  }
  const std::string found = sha256_hex_of_file(report_.path);
  return (expected.empty() || expected == found) && accept(found);
}

std::optional<std::uint64_t> FileDownload::ask_size() {
  if (report_.file.bytes) return report_.file.bytes;
  TransferResponse response;
  const TransferHandlers handlers = {[](const TransferResponse&) { return true; },
                                     [](const char*, std::size_t) { return false; }, events_.stopped};
  const TransferEnd end = transfer_.perform({.url = url_, .head = true}, handlers, response);
  if (end.kind == TransferEnd::Kind::kComplete && response.status == 200) return response.version.bytes;
  if (end.kind != TransferEnd::Kind::kStopped) {
    report_.error = fmt::format("{}: {}", shown_url(url_),
                                end.reason.empty() ? fmt::format("answered {}", response.status) : end.reason);
  }
  return std::nullopt;
}

bool FileDownload::wait(double seconds) const {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!events_.stopped()) {
    const auto left = end - std::chrono::steady_clock::now();
    if (left.count() <= 0) return true;
    std::this_thread::sleep_for(std::min<std::chrono::duration<double>>(left, std::chrono::milliseconds(50)));
  }
  return false;
}

// Is this answer one whose body we do not want, although its status is 200 or 206?
std::optional<FileDownload::Try> FileDownload::refuse(const TransferResponse& response, const TransferRequest& request,
                                                      const PartialFile& part) const {
  if (!response.content_encoding.empty() && response.content_encoding != "identity") {
    return Try{Try::Kind::kNever, fmt::format("the server sends it as {}, expected the plain file", response.content_encoding)};
  }
  if (response.content_type.starts_with("text/html") && !is_page(report_.path)) {
    return Try{Try::Kind::kNever,
               "the server sends a web page, expected the file itself (is a login or a consent asked "
               "for, by the site or by the network?)"};
  }
  const auto bytes = response.version.bytes;
  if (report_.file.bytes && bytes && *bytes != *report_.file.bytes) {
    return Try{Try::Kind::kWrongContents,
               fmt::format("the server offers {}, expected {}", count_of(*bytes), count_of(*report_.file.bytes))};
  }
  if (response.status == 200) {
    const bool size_known = report_.file.bytes || bytes || !report_.file.sha256.empty() || !response.version.sha256.empty();
    if (!response.delimited && !size_known) {
      // Worth another try: so does an answer look that broke off within its headers.
      return Try{Try::Kind::kAgain,
                 "the server does not say how long the file is, so that a broken connection could not "
                 "be told from its end; give \"bytes\" or \"sha256\" in the table of sets"};
    }
    return std::nullopt;
  }
  if (request.offset == 0 || response.range_begin != request.offset) {
    return Try{Try::Kind::kWrongContents,
               fmt::format("asked for bytes from {} on, the server sends them from {} on", request.offset,
                           response.range_begin ? std::to_string(*response.range_begin) : "an unknown place")};
  }
  if (!response.version.may_equal(part.version())) {
    return Try{Try::Kind::kWrongContents, "the file has changed on the server while it was downloaded"};
  }
  return std::nullopt;
}

FileDownload::Try FileDownload::attempt(PartialFile& part) {
  TransferRequest request;
  request.url = url_;
  if (part.size() > 0) {
    const bool named_by_content = !part.version().sha256.empty();
    const std::string if_range = named_by_content ? "" : part.version().if_range();
    if (named_by_content || !if_range.empty() || !report_.file.sha256.empty()) {
      request.offset = part.size();
      request.if_range = if_range;
    } else {
      part.restart({});  // nothing would tell that the rest belongs to what is here
    }
  }
  events_.size(part.size(), expected_bytes(part));

  std::optional<Try> problem;
  TransferHandlers handlers;
  handlers.stopped = events_.stopped;
  handlers.response = [&](const TransferResponse& response) {
    if (response.status != 200 && response.status != 206) return false;
    problem = refuse(response, request, part);
    if (problem) return false;
    if (response.status == 200) part.restart(response.version);
    report_.bytes = expected_bytes(part);
    events_.size(part.size(), report_.bytes);
    return true;
  };
  handlers.body = [&](const char* data, std::size_t bytes) {
    const auto expected = expected_bytes(part);
    if (expected && part.size() + bytes > *expected) {
      problem = Try{Try::Kind::kWrongContents, fmt::format("the server sends more than {}", count_of(*expected))};
      return false;
    }
    part.append(data, bytes);
    report_.received_bytes += bytes;
    events_.received(bytes);
    events_.size(part.size(), expected);
    return true;
  };
  ++report_.tries;
  TransferResponse response;
  const TransferEnd end = transfer_.perform(request, handlers, response);
  if (problem) return *problem;
  return judge(end, response, request, part);
}

FileDownload::Try FileDownload::judge(const TransferEnd& end, const TransferResponse& response, const TransferRequest& request,
                                      PartialFile& part) const {
  switch (end.kind) {
    case TransferEnd::Kind::kStopped: return {Try::Kind::kStopped};
    case TransferEnd::Kind::kDropped: return {Try::Kind::kAgain, end.reason};
    case TransferEnd::Kind::kImpossible: return {Try::Kind::kNever, end.reason};
    case TransferEnd::Kind::kRefused:
    case TransferEnd::Kind::kComplete: break;
  }
  const long status = response.status;
  if (status == 416 && request.offset > 0) {
    // Nothing from there on: the file is whole already, or it is another by now.
    if (response.version.bytes == part.size() && expected_bytes(part).value_or(part.size()) == part.size()) {
      return verify(part, true);
    }
    return {Try::Kind::kWrongContents, fmt::format("the server has no bytes from {} on (416)", request.offset)};
  }
  if (status != 200 && status != 206) {
    const std::string reason = fmt::format("the server answered {}, expected the file (200)", status);
    if (is_worth_retrying(status)) return {Try::Kind::kAgain, reason, response.retry_after_seconds};
    return {Try::Kind::kNever, reason};
  }
  const auto expected = expected_bytes(part);
  if (expected && part.size() < *expected) {
    return {Try::Kind::kAgain, fmt::format("ended after {} of {}", count_of(part.size()), count_of(*expected))};
  }
  return verify(part, request.offset > 0);
}

FileDownload::Try FileDownload::verify(PartialFile& part, bool resumed) const {
  const std::string& expected = !report_.file.sha256.empty() ? report_.file.sha256 : part.version().sha256;
  if (expected.empty()) return {Try::Kind::kWhole};
  const std::string found = part.sha256();
  if (found == expected) return {Try::Kind::kWhole};
  return {Try::Kind::kWrongContents,
          fmt::format("SHA-256 of the {} is {}, expected {}", resumed ? "continued file" : "file", found, expected)};
}

void FileDownload::keep(PartialFile& part) {
  report_.sha256 = part.sha256();
  report_.bytes = part.size();
  // First what is known of the file, then its name: a file with a name and without a record would be read again.
  part.sync();
  record_.add({report_.file.path.generic_string(), report_.file.url, part.size(), part.modified_ns(), report_.sha256});
  part.commit();
  report_.state = State::kDownloaded;
}

void FileDownload::run() {
  if (is_present()) return;
  if (events_.stopped()) return;
  std::error_code error;
  fs::create_directories(report_.path.parent_path(), error);
  if (error) {
    throw IoError(fmt::format("cannot create folder {}: {}", report_.path.parent_path().string(), error.message()));
  }
  if (status_of(report_.path)) {
    log_warn("{} is not known to be the file at {}, and is downloaded again", report_.path.string(), shown_url(url_));
  }
  std::optional<PartialFile> part;
  try {
    part.emplace(report_.path, url_);
  } catch (const DataError& locked) {
    report_.state = State::kFailed;
    report_.error = locked.what();
    return;
  }
  if (report_.file.bytes && part->version().bytes && *part->version().bytes != *report_.file.bytes) {
    part->restart({});  // of a time when the server had another file
  }
  int failures = 0;
  int wrong = 0;
  while (true) {
    const std::uint64_t before = report_.received_bytes;
    // An earlier run may have ended between the last byte and the final name.
    const auto expected = expected_bytes(*part);
    const Try outcome = expected && part->size() == *expected && (part->size() > 0 || report_.tries > 0) ? verify(*part, true)
                                                                                                         : attempt(*part);
    report_.partial_bytes = part->size();
    switch (outcome.kind) {
      case Try::Kind::kWhole: return keep(*part);
      case Try::Kind::kStopped: return;
      case Try::Kind::kNever: return fail(outcome.reason);
      case Try::Kind::kWrongContents:
        part->restart({});
        report_.partial_bytes = 0;
        if (++wrong >= options_.wrong_contents_limit) return fail(outcome.reason);
        break;
      case Try::Kind::kAgain: break;
    }
    if (report_.received_bytes - before >= options_.retry.reset_after_bytes && outcome.kind == Try::Kind::kAgain) {
      failures = 0;
    }
    if (++failures > options_.retry.retries) {
      return fail(fmt::format("{}; tried {} times", outcome.reason, report_.tries));
    }
    const double seconds = delay_seconds(options_.retry, failures, outcome.retry_after, jitter_);
    log_debug("{}: {}; trying again in {:.1f} s", shown_url(url_), outcome.reason, seconds);
    if (!wait(seconds)) return;
  }
}

}  // namespace nanochat
