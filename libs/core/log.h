#pragma once
// Logging through spdlog, always to standard error or a file, never to standard output (that belongs to results).
// Libraries log with log_info(...) and friends; only apps/ calls configure_logging. Thread-safe.

#include <filesystem>
#include <string>
#include <string_view>

#include <spdlog/fmt/fmt.h>

namespace nanochat {

enum class LogLevel { kTrace, kDebug, kInfo, kWarn, kError, kOff };

struct LogOptions {
  LogLevel level = LogLevel::kInfo;
  std::filesystem::path file;   // also append here when set
  bool json = false;            // one JSON object a line: time, level, message
};

LogLevel parse_log_level(std::string_view name);  // trace|debug|info|warn|error|off; throws ConfigError
void configure_logging(const LogOptions& options);
// Adds a file (a run's log.txt) to the sinks until the next configure_logging.
void add_log_file(const std::filesystem::path& file);
void log_message(LogLevel level, std::string_view message);

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warn(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kWarn, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace nanochat
