#include "checkpoint/internal/tensorboard.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <string>
#include <system_error>

namespace nanochat {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFilePrefix = "events.out.tfevents.";

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
    table[byte] = crc;
  }
  return table;
}
constexpr std::array<std::uint32_t, 256> kCrcTable = make_crc_table();

template <class T>
void append_little_endian(std::string& out, T value) {
  for (std::size_t i = 0; i < sizeof value; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

// Protocol buffer fields: a key of (number << 3 | wire type), then the value.
enum WireType : std::uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void append_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}
void append_key(std::string& out, std::uint64_t field, WireType type) { append_varint(out, field << 3 | type); }
void append_bytes(std::string& out, std::uint64_t field, std::string_view bytes) {
  append_key(out, field, kBytes);
  append_varint(out, bytes.size());
  out += bytes;
}

double seconds_now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

// Event: wall_time = 1 (double), step = 2 (int64), and one of file_version = 3, summary = 5, session_log = 7.
std::string event(std::int64_t step, std::uint64_t payload_field, std::string_view payload) {
  std::string out;
  append_key(out, 1, kFixed64);
  append_little_endian(out, std::bit_cast<std::uint64_t>(seconds_now()));
  if (step != 0) {
    append_key(out, 2, kVarint);
    append_varint(out, static_cast<std::uint64_t>(step));
  }
  append_bytes(out, payload_field, payload);
  return out;
}

fs::path new_file_name(const fs::path& folder) {
  auto time = static_cast<long long>(seconds_now());
  std::error_code ignored;
  for (fs::directory_iterator next(folder, ignored), end; !ignored && next != end; next.increment(ignored)) {
    const std::string name = next->path().filename().string();
    long long other = 0;
    if (!name.starts_with(kFilePrefix)) continue;
    std::from_chars(name.data() + kFilePrefix.size(), name.data() + name.size(), other);
    time = std::max(time, other + 1);
  }
  char digits[24];
  std::snprintf(digits, sizeof digits, "%010lld", time);
  return folder / (std::string(kFilePrefix) + digits + ".nanochat");
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = 0xFFFFFFFFu;
  for (const char c : bytes) crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<unsigned char>(c)) & 0xFF];
  return crc ^ 0xFFFFFFFFu;
}

std::uint32_t masked_crc32c(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u; }

EventFile::EventFile(const fs::path& folder, std::optional<std::int64_t> first_step)
    : file_(new_file_name(folder), /*exclusive=*/true) {
  add_record(event(0, 3, "brain.Event:2"));
  if (!first_step) return;
  std::string session_log;
  append_key(session_log, 1, kVarint);  // SessionLog: status = 1
  append_varint(session_log, 1);        // START
  add_record(event(*first_step, 7, session_log));
}

void EventFile::add_scalars(std::int64_t step, const std::vector<std::pair<std::string_view, float>>& values) {
  if (values.empty()) return;
  std::string summary;
  for (const auto& [tag, number] : values) {
    std::string value;  // Summary.Value: tag = 1, simple_value = 2 (float)
    append_bytes(value, 1, tag);
    append_key(value, 2, kFixed32);
    append_little_endian(value, std::bit_cast<std::uint32_t>(number));
    append_bytes(summary, 1, value);
  }
  add_record(event(step, 5, summary));
}

void EventFile::add_record(std::string_view data) {
  std::string record;
  append_little_endian(record, static_cast<std::uint64_t>(data.size()));
  append_little_endian(record, masked_crc32c(record));
  record += data;
  append_little_endian(record, masked_crc32c(data));
  file_.append(record);
}

}  // namespace nanochat
