#pragma once
// For tests only: reads event files back, with code that shares nothing with the writer.

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "core/atomic_file.h"

namespace nanochat::testing {

// CRC-32C bit by bit, most significant bit first on reflected input: the definition rather than a table.
inline std::uint32_t slow_crc32c(std::string_view bytes) {
  const auto reflect = [](std::uint32_t value, int bits) {
    std::uint32_t result = 0;
    for (int i = 0; i < bits; ++i) result |= ((value >> i) & 1u) << (bits - 1 - i);
    return result;
  };
  std::uint32_t crc = 0xFFFFFFFFu;
  for (const char c : bytes) {
    crc ^= reflect(static_cast<unsigned char>(c), 8) << 24;
    for (int i = 0; i < 8; ++i) crc = (crc & 0x80000000u) != 0 ? (crc << 1) ^ 0x1EDC6F41u : crc << 1;
  }
  return ~reflect(crc, 32);
}

inline std::uint32_t slow_masked_crc32c(std::string_view bytes) {
  const std::uint32_t crc = slow_crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

struct TensorBoardEvent {
  double wall_time = 0.0;
  std::int64_t step = 0;
  std::string file_version;
  std::map<std::string, float> scalars;
  bool session_start = false;
};

// The fields of one protocol buffer message.
struct ProtoReader {
  std::string_view rest;

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= std::uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
  }
  std::string_view take(std::size_t bytes) {
    if (bytes > rest.size()) throw std::runtime_error("message ends early");
    const std::string_view taken = rest.substr(0, bytes);
    rest.remove_prefix(bytes);
    return taken;
  }
  template <class T>
  T fixed() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view bytes() { return take(varint()); }
};

inline TensorBoardEvent parse_event(std::string_view data) {
  TensorBoardEvent event;
  for (ProtoReader reader{data}; !reader.rest.empty();) {
    switch (const std::uint64_t key = reader.varint(); key) {
      case 1 << 3 | 1: event.wall_time = reader.fixed<double>(); break;
      case 2 << 3 | 0: event.step = static_cast<std::int64_t>(reader.varint()); break;
      case 3 << 3 | 2: event.file_version = reader.bytes(); break;
      case 7 << 3 | 2: event.session_start = reader.bytes() == std::string_view("\x08\x01", 2); break;
      case 5 << 3 | 2:
        for (ProtoReader summary{reader.bytes()}; !summary.rest.empty();) {
          if (summary.varint() != (1 << 3 | 2)) throw std::runtime_error("unexpected field of Summary");
          std::string tag;
          float number = 0.0f;
          for (ProtoReader value{summary.bytes()}; !value.rest.empty();) {
            switch (value.varint()) {
              case 1 << 3 | 2: tag = value.bytes(); break;
              case 2 << 3 | 5: number = value.fixed<float>(); break;
              default: throw std::runtime_error("unexpected field of Summary.Value");
            }
          }
          event.scalars[tag] = number;
        }
        break;
      default: throw std::runtime_error("unexpected field of Event, key " + std::to_string(key));
    }
  }
  return event;
}

// Throws std::runtime_error for a wrong checksum or a record cut short.
inline std::vector<TensorBoardEvent> read_event_file(const std::filesystem::path& path) {
  const std::string bytes = read_file(path);
  std::vector<TensorBoardEvent> events;
  for (ProtoReader reader{bytes}; !reader.rest.empty();) {
    const std::string_view length_bytes = reader.rest.substr(0, 8);
    const auto length = reader.fixed<std::uint64_t>();
    if (reader.fixed<std::uint32_t>() != slow_masked_crc32c(length_bytes)) throw std::runtime_error("CRC of a length");
    const std::string_view data = reader.take(length);
    if (reader.fixed<std::uint32_t>() != slow_masked_crc32c(data)) throw std::runtime_error("CRC of a record");
    events.push_back(parse_event(data));
  }
  return events;
}

// Event files of a folder, in order of name.
inline std::vector<std::filesystem::path> event_files(const std::filesystem::path& folder) {
  std::map<std::string, std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.find("tfevents") != std::string::npos) files[name] = entry.path();
  }
  std::vector<std::filesystem::path> result;
  for (const auto& [name, path] : files) result.push_back(path);
  return result;
}

}  // namespace nanochat::testing
