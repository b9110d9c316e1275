#include "tokenizer/internal/sentencepiece_model.h"

#include <bit>
#include <cstdint>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"

namespace nanochat {
namespace {

// One field of a protobuf message: https://protobuf.dev/programming-guides/encoding/
struct Field {
  std::uint32_t number = 0;
  std::uint64_t value = 0;    // varint, or the bits of a fixed32 or fixed64
  std::string_view contents;  // of a length-delimited field
};

class MessageReader {
 public:
  MessageReader(std::string_view message, const std::string& source) : rest_(message), source_(source) {}

  bool next(Field& field) {
    if (rest_.empty()) return false;
    const std::uint64_t tag = varint();
    field = {};
    field.number = static_cast<std::uint32_t>(tag >> 3);
    switch (tag & 7) {
      case 0: field.value = varint(); break;
      case 1: field.value = fixed(8); break;
      case 2: field.contents = take(varint()); break;
      case 5: field.value = fixed(4); break;
      default: fail();
    }
    if (field.number == 0) fail();
    return true;
  }

 private:
  [[noreturn]] void fail() const {
    throw TokenizerError(fmt::format("{}: not a sentencepiece model, or cut off or damaged", source_));
  }
  std::string_view take(std::uint64_t bytes) {
    if (bytes > rest_.size()) fail();
    const std::string_view taken = rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
    return taken;
  }
  std::uint64_t fixed(std::size_t bytes) {
    const std::string_view taken = take(bytes);
    std::uint64_t value = 0;
    for (std::size_t i = bytes; i-- > 0;) value = value << 8 | static_cast<std::uint8_t>(taken[i]);
    return value;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const std::uint64_t byte = fixed(1);
      value |= (byte & 0x7F) << shift;
      if ((byte & 0x80) == 0) return value;
    }
    fail();
  }

  std::string_view rest_;
  const std::string& source_;
};

SentencePieceModel::Piece parse_piece(std::string_view message, std::size_t id, const std::string& source) {
  SentencePieceModel::Piece piece;
  MessageReader reader(message, source);
  for (Field field; reader.next(field);) {
    if (field.number == 1) piece.text = field.contents;
    if (field.number == 2) piece.score = std::bit_cast<float>(static_cast<std::uint32_t>(field.value));
    if (field.number == 3) {
      if (field.value < 1 || field.value > 6) {
        throw TokenizerError(fmt::format("{}: piece {} has the unknown type {}", source, id, field.value));
      }
      piece.type = static_cast<SentencePieceModel::Type>(field.value);
    }
  }
  if (piece.text.empty() || !is_valid_utf8(piece.text)) {
    throw TokenizerError(fmt::format("{}: piece {} is empty or not UTF-8", source, id));
  }
  return piece;
}

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& source) {
  SentencePieceModel model;
  MessageReader reader(bytes, source);
  for (Field field; reader.next(field);) {
    if (field.number == 1) {
      model.pieces.push_back(parse_piece(field.contents, model.pieces.size(), source));
    } else if (field.number == 2) {
      MessageReader trainer(field.contents, source);
      for (Field setting; trainer.next(setting);) {
        if (setting.number == 3) model.algorithm = static_cast<SentencePieceModel::Algorithm>(setting.value);
        if (setting.number == 35) model.byte_fallback = setting.value != 0;
      }
    } else if (field.number == 3) {
      MessageReader normalizer(field.contents, source);
      for (Field setting; normalizer.next(setting);) {
        if (setting.number == 2) model.normalizes = !setting.contents.empty();
        if (setting.number == 3) model.add_dummy_prefix = setting.value != 0;
        if (setting.number == 4) model.remove_extra_whitespaces = setting.value != 0;
        if (setting.number == 5) model.escape_whitespaces = setting.value != 0;
      }
    }
  }
  if (model.pieces.empty()) throw TokenizerError(fmt::format("{}: a sentencepiece model without pieces", source));
  return model;
}

}  // namespace nanochat
