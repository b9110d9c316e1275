#include <c10/util/Exception.h>

#include <fstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "checkpoint/append_file.h"
#include "checkpoint/internal/tensorboard.h"
#include "checkpoint/run_folder.h"
#include "core/atomic_file.h"
#include "core/errors.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kMetricsFile = "metrics.jsonl";

// A line of a step that will be run again, or what a crash left of one.
bool is_void(const std::string& line, std::int64_t resume_step) {
  const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return true;
  const auto step = object.find("step");
  return step != object.end() && step->is_number() && step->get<double>() > static_cast<double>(resume_step);
}

// A step at a time, so that a long run's metrics need not fit in memory.
void drop_lines_after(const fs::path& path, std::int64_t resume_step) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return;
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw IoError(path.string() + ": cannot be opened");
  AtomicFile kept(path);
  for (std::string line; std::getline(stream, line);) {
    if (!is_void(line, resume_step)) kept.write(line + "\n");
  }
  if (stream.bad()) throw IoError(path.string() + ": cannot be read");
  kept.commit();
}

// The file to append to, after what must go has gone.
fs::path prepared(const fs::path& folder, std::optional<std::int64_t> resume_step) {
  if (resume_step) drop_lines_after(folder / kMetricsFile, *resume_step);
  return folder / kMetricsFile;
}

std::optional<std::int64_t> first_step(std::optional<std::int64_t> resume_step) {
  return resume_step ? std::optional<std::int64_t>(*resume_step + 1) : std::nullopt;
}

}  // namespace

struct MetricsWriter::Impl {
  Impl(const fs::path& folder, std::optional<std::int64_t> resume_step)
      : lines(prepared(folder, resume_step), /*exclusive=*/false), events(folder, first_step(resume_step)) {}
  AppendFile lines;
  EventFile events;
};

MetricsWriter::MetricsWriter(const fs::path& run_folder, std::optional<std::int64_t> resume_step)
    : impl_(std::make_unique<Impl>(run_folder, resume_step)) {}

MetricsWriter::~MetricsWriter() = default;

void MetricsWriter::write(std::int64_t step, const json& values) {
  TORCH_CHECK(values.is_object(), "MetricsWriter: expected an object, got a JSON ", values.type_name());
  nlohmann::ordered_json line = {{"step", step}};
  std::vector<std::pair<std::string_view, float>> scalars;
  for (auto value = values.begin(); value != values.end(); ++value) {
    line[value.key()] = *value;
    if (value->is_number()) scalars.emplace_back(value.key(), value->get<float>());
  }
  line["step"] = step;
  impl_->lines.append(line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
  impl_->events.add_scalars(step, scalars);
}

}  // namespace nanochat
