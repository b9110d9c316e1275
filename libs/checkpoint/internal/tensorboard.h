#pragma once
// TensorBoard event files, written without TensorFlow: TFRecords that contain Event protobufs.
// Sources: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto and summary.proto;
// CRC-32C is RFC 3720, appendix B.4. docs/formats/run-folder.md describes them byte by byte.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/append_file.h"

namespace nanochat {

// CRC-32C (Castagnoli) of the bytes.
std::uint32_t crc32c(std::string_view bytes);
// Masked as in TFRecord, because the CRC of data that contains CRCs is weak.
std::uint32_t masked_crc32c(std::string_view bytes);

// One event file of a run. Each event is in the file when add_scalars() returns. Not thread-safe.
class EventFile {
 public:
  // Creates events.out.tfevents.TIME.nanochat in `folder`. TIME is in seconds and later than that of every
  // event file there, because TensorBoard reads them in order of name. `first_step`: TensorBoard ignores
  // steps from this one on in earlier files, because the run was resumed before them. Throws IoError.
  EventFile(const std::filesystem::path& folder, std::optional<std::int64_t> first_step);
  void add_scalars(std::int64_t step, const std::vector<std::pair<std::string_view, float>>& values);

 private:
  void add_record(std::string_view data);
  AppendFile file_;
};

}  // namespace nanochat
