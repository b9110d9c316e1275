#pragma once
// Logging through spdlog, always to standard error or a file, never to standard output (that belongs to results).
// Libraries log with log_info(...) and friends; only apps/ calls configure_logging. Until it does, messages of level
// info and above go to standard error. Thread-safe.

#include <filesystem>
#include <string>
#include <string_view>

#include <spdlog/fmt/fmt.h>

namespace nanochat {

enum class LogLevel { kTrace, kDebug, kInfo, kWarn, kError, kOff };

struct LogOptions {
  LogLevel level = LogLevel::kInfo;
  std::filesystem::path file = {};  // also append here when set
  bool json = false;                // one JSON object a line: time (UTC, ISO 8601), level, message
};

LogLevel parse_log_level(std::string_view name);  // trace|debug|info|warn|error|off; throws ConfigError
// Both throw IoError naming the file when it cannot be opened.
void configure_logging(const LogOptions& options);
// Adds a file (a run's log.txt) to the sinks until the next configure_logging.
void add_log_file(const std::filesystem::path& file);

bool log_enabled(LogLevel level);
void log_message(LogLevel level, std::string_view message);
// Formats only when the level is enabled. A bar on the same terminal is taken away and drawn again (core/progress.h).
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
