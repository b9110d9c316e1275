#include "core/log.h"

#include <unistd.h>

#include <array>
#include <chrono>
#include <ctime>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <spdlog/formatter.h>
#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include "core/errors.h"
#include "core/status_line.h"
#include "core/terminal.h"

namespace nanochat {
namespace {

struct LevelName {
  std::string_view name;
  LogLevel level;
  spdlog::level::level_enum spdlog_level;
};

constexpr std::array<LevelName, 6> kLevels = {{{"trace", LogLevel::kTrace, spdlog::level::trace},
                                               {"debug", LogLevel::kDebug, spdlog::level::debug},
                                               {"info", LogLevel::kInfo, spdlog::level::info},
                                               {"warn", LogLevel::kWarn, spdlog::level::warn},
                                               {"error", LogLevel::kError, spdlog::level::err},
                                               {"off", LogLevel::kOff, spdlog::level::off}}};

spdlog::level::level_enum to_spdlog(LogLevel level) { return kLevels[static_cast<std::size_t>(level)].spdlog_level; }

class JsonFormatter : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& destination) override {
    const auto since_epoch = message.time.time_since_epoch();
    const std::time_t seconds = std::chrono::duration_cast<std::chrono::seconds>(since_epoch).count();
    const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch).count() % 1000;
    std::tm utc{};
    ::gmtime_r(&seconds, &utc);
    nlohmann::ordered_json line;
    line["time"] = fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
                               utc.tm_hour, utc.tm_min, utc.tm_sec, milliseconds);
    for (const LevelName& known : kLevels) {
      if (known.spdlog_level == message.level) line["level"] = known.name;
    }
    line["message"] = std::string_view(message.payload.data(), message.payload.size());
    const std::string text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    destination.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<JsonFormatter>(); }
};

std::unique_ptr<spdlog::formatter> make_formatter(bool json) {
  if (json) return std::make_unique<JsonFormatter>();
  return std::make_unique<spdlog::pattern_formatter>("%H:%M:%S %^%l%$ %v");
}

spdlog::sink_ptr open_file(const std::filesystem::path& file) {
  try {
    return std::make_shared<spdlog::sinks::basic_file_sink_mt>(file.string());
  } catch (const spdlog::spdlog_ex& error) {
    throw IoError(file.string() + ": cannot be opened for logging: " + error.what());
  }
}

// What is in force. Loggers are never changed, only exchanged, so that a message in flight keeps its own.
struct State {
  std::mutex mutex;
  std::shared_ptr<spdlog::logger> logger;
  bool json = false;
};

std::shared_ptr<spdlog::logger> make_logger(std::vector<spdlog::sink_ptr> sinks, spdlog::level::level_enum level) {
  auto logger = std::make_shared<spdlog::logger>("nanochat", sinks.begin(), sinks.end());
  logger->set_level(level);
  logger->flush_on(spdlog::level::trace);  // a process that is killed leaves its log behind
  return logger;
}

spdlog::sink_ptr standard_error(bool json) {
  const auto mode = wants_color(STDERR_FILENO) ? spdlog::color_mode::automatic : spdlog::color_mode::never;
  auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>(mode);
  sink->set_formatter(make_formatter(json));
  return sink;
}

State& state() {
  static State* instance = [] {  // never destroyed: destructors of other statics may log
    auto* created = new State;
    created->logger = make_logger({standard_error(false)}, spdlog::level::info);
    return created;
  }();
  return *instance;
}

std::shared_ptr<spdlog::logger> current_logger() {
  const std::lock_guard lock(state().mutex);
  return state().logger;
}

}  // namespace

LogLevel parse_log_level(std::string_view name) {
  for (const LevelName& known : kLevels) {
    if (known.name == name) return known.level;
  }
  throw ConfigError("log level: found \"" + std::string(name) + "\", expected trace, debug, info, warn, error or off");
}

void configure_logging(const LogOptions& options) {
  std::vector<spdlog::sink_ptr> sinks = {standard_error(options.json)};
  if (!options.file.empty()) {
    sinks.push_back(open_file(options.file));
    sinks.back()->set_formatter(make_formatter(options.json));
  }
  auto logger = make_logger(std::move(sinks), to_spdlog(options.level));
  const std::lock_guard lock(state().mutex);
  state().logger = std::move(logger);
  state().json = options.json;
}

void limit_terminal_log(LogLevel level) {
  const std::lock_guard lock(state().mutex);
  state().logger->sinks().front()->set_level(to_spdlog(level));
}

void add_log_file(const std::filesystem::path& file) {
  spdlog::sink_ptr sink = open_file(file);
  const std::lock_guard lock(state().mutex);
  sink->set_formatter(make_formatter(state().json));
  std::vector<spdlog::sink_ptr> sinks = state().logger->sinks();
  sinks.push_back(std::move(sink));
  state().logger = make_logger(std::move(sinks), state().logger->level());
}

bool log_enabled(LogLevel level) { return level != LogLevel::kOff && current_logger()->should_log(to_spdlog(level)); }

void log_message(LogLevel level, std::string_view message) {
  const std::shared_ptr<spdlog::logger> logger = current_logger();
  if (level == LogLevel::kOff || !logger->should_log(to_spdlog(level))) return;
  const spdlog::string_view_t text(message.data(), message.size());
  status_line::write_above([&] { logger->log(to_spdlog(level), text); });
}

void log_formatted(LogLevel level, fmt::string_view format, fmt::format_args arguments) {
  if (log_enabled(level)) log_message(level, fmt::vformat(format, arguments));
}

}  // namespace nanochat
