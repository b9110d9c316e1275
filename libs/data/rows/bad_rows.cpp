#include "data/rows/bad_rows.h"

#include <charconv>
#include <system_error>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "core/log.h"

namespace nanochat {

void BadRows::add(const std::string& what) {
  const std::lock_guard lock(mutex_);
  if (count_ == allowed_) {
    throw DataError(fmt::format("{}; --skip-bad allows {} bad {}, and this is one more", what, allowed_,
                                allowed_ == 1 ? "row" : "rows"));
  }
  ++count_;
  if (examples_.size() < kShown) examples_.push_back(what);
}

std::uint64_t BadRows::count() const {
  const std::lock_guard lock(mutex_);
  return count_;
}

std::vector<std::string> BadRows::examples() const {
  const std::lock_guard lock(mutex_);
  return examples_;
}

void BadRows::log() const {
  const std::lock_guard lock(mutex_);
  if (count_ == 0) return;
  for (const std::string& example : examples_) log_warn("skipped {}", example);
  const std::string rows = with_commas(static_cast<std::int64_t>(count_)) +
                           (count_ == 1 ? " bad row was skipped" : " bad rows were skipped");
  log_warn("{}{}", rows, count_ > examples_.size() ? fmt::format("; the first {} are listed", examples_.size()) : "");
}

std::uint64_t parse_skip_bad(const std::string& text) {
  if (text == "all") return BadRows::kAll;
  std::uint64_t allowed = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), allowed);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) {
    throw ConfigError(fmt::format("--skip-bad: found \"{}\", expected a number of rows, or all", text));
  }
  return allowed;
}

}  // namespace nanochat
