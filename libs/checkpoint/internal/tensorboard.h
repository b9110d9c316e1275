#pragma once
// TensorBoard event files, written without TensorFlow: records of TFRecord framing that hold Event protobufs.
// Sources: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto and summary.proto; CRC-32C is RFC
// 3720, appendix B.4. Byte by byte in docs/formats/run-folder.md.

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
// As TFRecord stores it, so that a CRC of data that holds CRCs stays strong.
std::uint32_t masked_crc32c(std::string_view bytes);

// One event file of a run. Each event is in the file when add_scalars() returns. Not thread-safe.
class EventFile {
 public:
  // Creates events.out.tfevents.TIME.nanochat in `folder`, TIME in seconds being later than that of every event file
  // there: TensorBoard reads them in order of name. `first_step`: steps from here on in earlier files are void, as
  // the run was resumed before them. Throws IoError.
  EventFile(const std::filesystem::path& folder, std::optional<std::int64_t> first_step);
  void add_scalars(std::int64_t step, const std::vector<std::pair<std::string_view, float>>& values);

 private:
  void add_record(std::string_view data);
  AppendFile file_;
};

}  // namespace nanochat
