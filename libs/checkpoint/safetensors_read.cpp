#include <algorithm>
#include <cstring>
#include <limits>

#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint_files.h"
#include "checkpoint/internal/safetensors_dtype.h"
#include "checkpoint/json_file.h"
#include "checkpoint/safetensors.h"
#include "core/errors.h"
#include "core/json_message.h"

namespace nanochat {
namespace {

using nlohmann::json;

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the format's own library
constexpr std::size_t kMaxDimensions = 64;              // what LibTorch's iterators take

// One tensor of the header; every message begins with `where`, the file and the tensor.
class EntryParser {
 public:
  EntryParser(const json& value, std::string where) : value_(value), where_(std::move(where)) {}

  SafetensorsFile::Entry parse(std::size_t data_begin, std::size_t file_size) const {
    if (!value_.is_object()) fail("is described by a JSON " + std::string(value_.type_name()) + ", expected an object");
    SafetensorsFile::Entry entry;
    entry.dtype = dtype();
    entry.shape = shape();
    const json& offsets = field("data_offsets");
    if (!offsets.is_array() || offsets.size() != 2) fail("data_offsets must be an array of two numbers");
    const std::uint64_t begin = number(offsets[0], "data_offsets"), end = number(offsets[1], "data_offsets");
    const std::size_t data_size = file_size - data_begin;
    if (begin > end || end > data_size) {
      fail("bytes " + std::to_string(begin) + " to " + std::to_string(end) + " do not lie in the " + std::to_string(data_size) +
           " bytes of data that the file has; it is truncated or damaged");
    }
    const std::uint64_t needed = byte_count(entry);
    if (end - begin != needed) {
      fail("has " + std::to_string(end - begin) + " bytes, but its shape " + shape_text(entry.shape) + " needs " +
           std::to_string(needed));
    }
    entry.begin = data_begin + begin;
    entry.end = data_begin + end;
    return entry;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw CheckpointError(where_ + ": " + what); }

  const json& field(const char* key) const {
    const auto found = value_.find(key);
    if (found == value_.end()) fail(std::string("\"") + key + "\" is missing");
    return *found;
  }

  std::uint64_t number(const json& value, const char* key) const {
    if (!value.is_number_unsigned()) fail(std::string(key) + " holds " + shown_json(value) + ", expected an integer from 0");
    return value.get<std::uint64_t>();
  }

  at::ScalarType dtype() const {
    const json& name = field("dtype");
    std::string known;
    for (const auto& [text, type] : kSafetensorsDtypes) {
      if (name.is_string() && name.get_ref<const std::string&>() == text) return type;
      known += (known.empty() ? "" : ", ") + std::string(text);
    }
    fail("dtype " + shown_json(name) + " is not supported, expected one of " + known);
  }

  std::vector<std::int64_t> shape() const {
    const json& sizes = field("shape");
    if (!sizes.is_array()) fail("shape must be an array of numbers");
    if (sizes.size() > kMaxDimensions) {
      fail("shape has " + std::to_string(sizes.size()) + " dimensions, more than " + std::to_string(kMaxDimensions));
    }
    std::vector<std::int64_t> result;
    for (const json& size : sizes) {
      const std::uint64_t n = number(size, "shape");
      if (n > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        fail("shape holds " + std::to_string(n) + ", which is too large");
      }
      result.push_back(static_cast<std::int64_t>(n));
    }
    return result;
  }

  std::uint64_t byte_count(const SafetensorsFile::Entry& entry) const {
    auto product = static_cast<std::int64_t>(c10::elementSize(entry.dtype));
    for (const std::int64_t size : entry.shape) {
      if (__builtin_mul_overflow(product, size, &product)) {
        fail("shape " + shape_text(entry.shape) + " is too large");
      }
    }
    return static_cast<std::uint64_t>(product);
  }

  const json& value_;
  std::string where_;
};

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : SafetensorsFile(map_checkpoint_file(path), path) {}

SafetensorsFile::SafetensorsFile(MappedFile file, std::filesystem::path source)
    : path_(std::move(source)), file_(std::move(file)) {
  const auto bytes = file_.bytes();
  const auto fail = [&](const std::string& what) { throw CheckpointError(path_.string() + ": " + what); };
  std::uint64_t header_size = 0;
  if (bytes.size() < sizeof header_size) {
    fail("is " + std::to_string(bytes.size()) + " bytes, too short for a safetensors file; it is truncated");
  }
  std::memcpy(&header_size, bytes.data(), sizeof header_size);
  if (header_size > bytes.size() - sizeof header_size) {
    fail("the header claims " + std::to_string(header_size) + " bytes, but only " +
         std::to_string(bytes.size() - sizeof header_size) + " follow; it is truncated or not a safetensors file");
  }
  if (header_size > kMaxHeaderBytes) {
    fail("the header claims " + std::to_string(header_size) + " bytes, more than the format's limit of " +
         std::to_string(kMaxHeaderBytes));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + sizeof header_size,
                              static_cast<std::size_t>(header_size));
  const json header = parse_json_object(text, path_.string() + ": header");
  const std::size_t data_begin = sizeof header_size + text.size();
  for (const auto& [name, value] : header.items()) {
    if (name != "__metadata__") {
      entries_.emplace(name, EntryParser(value, path_.string() + ": " + name).parse(data_begin, bytes.size()));
      continue;
    }
    if (!value.is_object()) fail("__metadata__ must be an object of strings");
    for (const auto& [key, item] : value.items()) {
      if (!item.is_string()) fail("__metadata__: " + key + " is not a string");
      metadata_.emplace(key, item.get<std::string>());
    }
  }
  check_coverage(data_begin);
}

void SafetensorsFile::check_coverage(std::size_t data_begin) const {
  std::vector<const std::pair<const std::string, Entry>*> order;
  for (const auto& entry : entries_) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  std::size_t covered = data_begin;
  for (const auto* entry : order) {
    if (entry->second.begin != covered) {
      throw CheckpointError(path_.string() + ": " + entry->first + ": its bytes begin at " +
                            std::to_string(entry->second.begin - data_begin) + ", but those of the tensors before end at " +
                            std::to_string(covered - data_begin) + "; tensors may not overlap or leave gaps");
    }
    covered = entry->second.end;
  }
  if (covered != file_.bytes().size()) {
    throw CheckpointError(path_.string() + ": " + std::to_string(file_.bytes().size() - covered) +
                          " bytes at the end belong to no tensor; the file is damaged");
  }
}

void SafetensorsFile::read_into(const std::string& name, at::Tensor& target) const {
  const Entry& found = entry(name);
  // What has been copied need not stay in memory: a model is never there twice.
  copy_elements(found, file_.bytes().data() + found.begin, path_, name, target, [this] { file_.drop_resident(); });
}

}  // namespace nanochat
