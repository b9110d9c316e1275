#pragma once
// Logging with spdlog, always to standard error or a file and never to standard output, which has the
// results. Libraries call log_info(...) and similar functions; only apps/ calls configure_logging.
// Before that, messages of level info and above go to standard error. Thread-safe.

#include <filesystem>
#include <string>
#include <string_view>

#include <spdlog/fmt/fmt.h>

namespace nanochat {

enum class LogLevel { kTrace, kDebug, kInfo, kWarn, kError, kOff };

struct LogOptions {
  LogLevel level = LogLevel::kInfo;
  std::filesystem::path file = {};  // also append to this file, if set
  bool json = false;                // one JSON object per line: time (UTC, ISO 8601), level, message
};

LogLevel parse_log_level(std::string_view name);  // trace|debug|info|warn|error|off; throws ConfigError
// Both throw IoError with the name of the file if it cannot be opened.
void configure_logging(const LogOptions& options);
// Adds a file (the log.txt of a run) to the outputs until the next configure_logging.
void add_log_file(const std::filesystem::path& file);

// From now on standard error gets messages of this level and above only; files get what they got.
void limit_terminal_log(LogLevel level);

bool log_enabled(LogLevel level);
void log_message(LogLevel level, std::string_view message);
// Formats only if the level is enabled. Removes a progress bar on the same terminal and draws it again (core/progress.h).
void log_formatted(LogLevel level, fmt::string_view format, fmt::format_args arguments);

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log_formatted(LogLevel::kDebug, format, fmt::make_format_args(args...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_formatted(LogLevel::kInfo, format, fmt::make_format_args(args...));
}
template <class... Args>
void log_warn(fmt::format_string<Args...> format, Args&&... args) {
  log_formatted(LogLevel::kWarn, format, fmt::make_format_args(args...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log_formatted(LogLevel::kError, format, fmt::make_format_args(args...));
}

}  // namespace nanochat
