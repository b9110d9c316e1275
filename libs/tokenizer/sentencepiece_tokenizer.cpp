#include "tokenizer/internal/sentencepiece_tokenizer.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <unordered_map>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/format.h"
#include "core/utf8.h"
#include "tokenizer/internal/derive_merges.h"
#include "tokenizer/internal/fingerprint.h"
#include "tokenizer/internal/hf_tokenizer_json.h"
#include "tokenizer/internal/sentencepiece_model.h"

namespace nanochat {
namespace {

constexpr char32_t kSpaceCodePoint = 0x2581;

// Calls visit(characters' bytes) for each character of valid UTF-8.
template <class Visit>
void for_each_character(std::string_view text, Visit visit) {
  while (!text.empty()) {
    const std::size_t length = utf8::character_length(text.substr(0, 4));
    visit(text.substr(0, length));
    text.remove_prefix(length);
  }
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (std::size_t at = 0;;) {
    const std::size_t found = text.find(from, at);
    out += text.substr(at, found - at);
    if (found == std::string_view::npos) return out;
    out += to;
    at = found + from.size();
  }
}

void require(bool holds, const std::string& source, std::string_view setting) {
  if (holds) return;
  throw TokenizerError(
      fmt::format("{}: the model has {}, so decoding would not give the text back; train one with "
                  "nanochat tokenizer train",
                  source, setting));
}

// Merges of the pieces that are made of others, best score first.
std::vector<Merge> merges_by_score(const SentencePieceModel& model, const std::string& source) {
  using Piece = SentencePieceModel::Piece;
  std::unordered_map<std::string_view, TokenId> characters;
  std::vector<std::size_t> order;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const Piece& piece = model.pieces[id];
    if (piece.type != SentencePieceModel::Type::kNormal) continue;
    if (utf8::character_length(piece.text) == piece.text.size()) {
      characters.emplace(piece.text, static_cast<TokenId>(id));
    } else {
      order.push_back(id);
    }
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return model.pieces[a].score > model.pieces[b].score; });
  std::vector<MergedToken> tokens;
  tokens.reserve(order.size());
  for (const std::size_t id : order) {
    MergedToken token{static_cast<TokenId>(id), model.pieces[id].text, {}, {}};
    for_each_character(token.bytes, [&](std::string_view character) {
      const auto found = characters.find(character);
      if (found == characters.end()) {
        throw TokenizerError(fmt::format("{}: piece {} \"{}\" has a character that is no piece itself", source, id,
                                         token.bytes));
      }
      token.symbols.push_back(found->second);
      token.symbol_lengths.push_back(character.size());
    });
    tokens.push_back(std::move(token));
  }
  return derive_merges(tokens);
}

}  // namespace

std::string byte_piece(int byte) { return fmt::format("<0x{:02X}>", byte); }

SentencePieceDefinition define_sentencepiece(const SentencePieceModel& model, std::string model_file,
                                             std::vector<std::string> specials, const std::string& source) {
  using Type = SentencePieceModel::Type;
  if (model.algorithm != SentencePieceModel::Algorithm::kBpe) {
    throw TokenizerError(fmt::format("{}: not a BPE model; of sentencepiece's kinds only BPE is supported", source));
  }
  require(!model.normalizes, source, "a normalization rule other than identity");
  require(!model.add_dummy_prefix, source, "add_dummy_prefix");
  require(!model.remove_extra_whitespaces, source, "remove_extra_whitespaces");
  require(model.escape_whitespaces, source, "escape_whitespaces off");
  require(model.byte_fallback, source, "byte_fallback off");
  SentencePieceDefinition definition;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePieceModel::Piece& piece = model.pieces[id];
    if (piece.type == Type::kControl || piece.type == Type::kUserDefined || piece.type == Type::kUnused) {
      throw TokenizerError(
          fmt::format("{}: piece {} \"{}\" is a control, user-defined or unused symbol, which is not "
                      "supported; special tokens are added after the pieces",
                      source, id, piece.text));
    }
    const bool is_unknown = piece.text == kUnknownPiece;
    if (is_unknown != (piece.type == Type::kUnknown)) {
      throw TokenizerError(fmt::format("{}: piece {} \"{}\" should{} be of the unknown type", source, id, piece.text,
                                       is_unknown ? "" : " not"));
    }
    definition.pieces.push_back(piece.text);
  }
  definition.merges = merges_by_score(model, source);
  definition.specials = std::move(specials);
  definition.model_file = std::move(model_file);
  return definition;
}

SentencePieceTokenizer::SentencePieceTokenizer(SentencePieceDefinition definition)
    : pieces_(std::move(definition.pieces)), specials_(std::move(definition.specials)), merges_(std::move(definition.merges)),
      model_file_(std::move(definition.model_file)), table_(merges_.size()), byte_ids_(256, -1), page_of_(0x110000 / 256, 0),
      character_ids_(256, -1) {
  std::unordered_map<std::string_view, TokenId> ids;
  for (const auto* list : {&pieces_, &specials_}) {
    for (const std::string& piece : *list) {
      const auto [first, is_new] = ids.emplace(piece, static_cast<TokenId>(ids.size()));
      if (!is_new) throw TokenizerError(fmt::format("piece \"{}\" occurs twice, first as {}", piece, first->second));
    }
  }
  if (!ids.contains(kUnknownPiece)) throw TokenizerError(fmt::format("the piece {} is missing", kUnknownPiece));
  std::vector<std::string> decoded;
  decoded.reserve(ids.size());
  for (const std::string& piece : pieces_) decoded.push_back(replace_all(piece, kSpaceSymbol, " "));
  decoded.insert(decoded.end(), specials_.begin(), specials_.end());
  std::vector<bool> ordinary(ids.size(), false);
  std::fill_n(ordinary.begin(), pieces_.size(), true);
  ordinary[static_cast<std::size_t>(ids.at(kUnknownPiece))] = false;
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = ids.find(byte_piece(byte));
    if (found == ids.end()) throw TokenizerError(fmt::format("the byte piece {} is missing", byte_piece(byte)));
    byte_ids_[static_cast<std::size_t>(byte)] = found->second;
    decoded[static_cast<std::size_t>(found->second)] = std::string(1, static_cast<char>(byte));
    ordinary[static_cast<std::size_t>(found->second)] = false;
  }
  if (!ids.contains(kSpaceSymbol)) throw TokenizerError("the piece of the space, U+2581, is missing");

  for (const Merge& merge : merges_) table_.add(merge);
  for (std::size_t id = 0; id < pieces_.size(); ++id) {
    const std::string& piece = pieces_[id];
    if (!ordinary[id]) continue;
    const std::size_t last_space = piece.rfind(kSpaceSymbol);
    if (last_space != std::string::npos && piece.find_first_not_of(kSpaceSymbol) < last_space) space_begins_word_ = false;
    const std::size_t length = utf8::character_length(piece);
    if (length != piece.size()) continue;
    const char32_t character = utf8::decode_character(piece, length);
    std::uint16_t& page = page_of_[character >> 8];
    if (page == 0) {
      page = static_cast<std::uint16_t>(character_ids_.size() / 256);
      character_ids_.resize(character_ids_.size() + 256, -1);
    }
    character_ids_[page * std::size_t{256} + (character & 0xFF)] = static_cast<TokenId>(id);
  }
  // A whole word is looked up before it is merged; only pieces that merging makes of their own characters may be
  // found.
  std::vector<TokenId> symbols, merged;
  strings_ = TokenStrings(decoded, [&](TokenId id) {
    if (!ordinary[static_cast<std::size_t>(id)]) return false;
    symbols.clear();
    merged.clear();
    for_each_character(pieces_[static_cast<std::size_t>(id)], [&](std::string_view character) {
      symbols.push_back(piece_of(utf8::decode_character(character, character.size())));
    });
    if (std::find(symbols.begin(), symbols.end(), -1) != symbols.end()) return false;
    table_.merge(symbols, merged);
    return merged == std::vector<TokenId>{id};
  });
  fingerprint_ = tokenizer_fingerprint({"sentencepiece"}, pieces_, merges_, specials_);
}

TokenId SentencePieceTokenizer::piece_of(char32_t character) const {
  return character_ids_[page_of_[character >> 8] * std::size_t{256} + (character & 0xFF)];
}

void SentencePieceTokenizer::encode(std::string_view text, std::vector<TokenId>& ids) const {
  const bool valid = utf8::valid_prefix(text) == text.size();
  if (valid && text.find(kSpaceSymbol) == std::string_view::npos) {
    encode_valid(text, ids);
  } else {  // the symbol of the space in a text is a space, also where words are told apart
    encode_valid(replace_all(valid ? std::string(text) : replace_invalid_utf8(text), kSpaceSymbol, " "), ids);
  }
}

void SentencePieceTokenizer::encode_valid(std::string_view text, std::vector<TokenId>& ids) const {
  std::vector<TokenId> symbols;
  while (!text.empty()) {
    // Up to the next space that follows something else: nothing merges across that place.
    std::size_t end = text.size();
    if (space_begins_word_) {
      end = std::min(text.find_first_not_of(' '), text.size());
      end = std::min(text.find(' ', end), text.size());
    }
    const std::string_view word = text.substr(0, end);
    if (const TokenId id = strings_.find(word); id >= 0) {
      ids.push_back(id);
    } else {
      encode_word(word, symbols, ids);
    }
    text.remove_prefix(end);
  }
}

void SentencePieceTokenizer::encode_word(std::string_view word, std::vector<TokenId>& symbols,
                                         std::vector<TokenId>& ids) const {
  symbols.clear();
  for_each_character(word, [&](std::string_view bytes) {
    const char32_t character = utf8::decode_character(bytes, bytes.size());
    const TokenId id = piece_of(character == ' ' ? kSpaceCodePoint : character);
    if (id >= 0) {
      symbols.push_back(id);
      return;
    }
    table_.merge(symbols, ids);
    symbols.clear();
    for (const char byte : bytes) ids.push_back(byte_ids_[static_cast<std::uint8_t>(byte)]);
  });
  table_.merge(symbols, ids);
}

std::string_view SentencePieceTokenizer::token_bytes(TokenId id) const {
  check_id(id);
  return strings_[id];
}

void SentencePieceTokenizer::save(const std::filesystem::path& folder) const {
  if (!model_file_.empty()) write_file_atomically(folder / "tokenizer.model", model_file_);
  write_file_atomically(folder / "tokenizer.json", to_hf_json(*this));
  write_file_atomically(folder / "tokenizer_config.json", hf_tokenizer_config(*this));
}

}  // namespace nanochat
