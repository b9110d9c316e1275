#include <limits>
#include <utility>

#include "core/pickle.h"

namespace nanochat {

PickleWriter::PickleWriter(int protocol) {
  out_ += static_cast<char>(0x80);
  number(static_cast<std::uint64_t>(protocol), 1);
}

void PickleWriter::number(std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out_ += static_cast<char>(value >> (8 * i) & 0xFF);
}

void PickleWriter::none() { out_ += 'N'; }
void PickleWriter::boolean(bool value) { out_ += static_cast<char>(value ? 0x88 : 0x89); }

void PickleWriter::integer(std::int64_t value) {
  if (value >= 0 && value <= 0xFF) {
    out_ += 'K';
    number(static_cast<std::uint64_t>(value), 1);
  } else if (value >= 0 && value <= 0xFFFF) {
    out_ += 'M';
    number(static_cast<std::uint64_t>(value), 2);
  } else if (value >= std::numeric_limits<std::int32_t>::min() && value <= std::numeric_limits<std::int32_t>::max()) {
    out_ += 'J';
    number(static_cast<std::uint64_t>(value), 4);
  } else {
    out_ += "\x8a\x08";
    number(static_cast<std::uint64_t>(value), 8);
  }
}

void PickleWriter::string(std::string_view utf8) {
  out_ += 'X';
  number(utf8.size(), 4);
  out_ += utf8;
}

void PickleWriter::bytes(std::string_view bytes) {
  out_ += 'B';
  number(bytes.size(), 4);
  out_ += bytes;
}

void PickleWriter::global(std::string_view module, std::string_view name) {
  out_ += 'c';
  out_ += module;
  out_ += '\n';
  out_ += name;
  out_ += '\n';
}

void PickleWriter::mark() { out_ += '('; }
void PickleWriter::tuple() { out_ += 't'; }
void PickleWriter::empty_tuple() { out_ += ')'; }
void PickleWriter::empty_dict() { out_ += '}'; }
void PickleWriter::set_items() { out_ += 'u'; }
void PickleWriter::reduce() { out_ += 'R'; }
void PickleWriter::new_object() { out_ += static_cast<char>(0x81); }
void PickleWriter::build() { out_ += 'b'; }
void PickleWriter::persistent_id() { out_ += 'Q'; }

std::string PickleWriter::finish() { return std::move(out_ += '.'); }

}  // namespace nanochat
