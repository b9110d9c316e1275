#include "tokenizer/internal/sentencepiece_tokenizer.h"

#include <ctime>

#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>
#include <sentencepiece_processor.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/format.h"
#include "core/testing.h"
#include "tokenizer/internal/sentencepiece_model.h"
#include "tokenizer/load.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using Type = SentencePieceModel::Type;

const SentencePieceTokenizer& small() {
  static const auto tokenizer = testing::small_sentencepiece();
  return dynamic_cast<const SentencePieceTokenizer&>(*tokenizer);
}

// The library itself, reading the model that we wrote.
const sentencepiece::SentencePieceProcessor& library() {
  static const auto processor = [] {
    auto made = std::make_unique<sentencepiece::SentencePieceProcessor>();
    const testing::TemporaryDirectory folder;
    small().save(folder.path());
    if (!made->LoadFromSerializedProto(read_file(folder / "tokenizer.model")).ok()) throw std::runtime_error("cannot load");
    return made;
  }();
  return *processor;
}

// Valid UTF-8 without U+2581: words of the corpus, white space of all kinds, and any characters.
rc::Gen<std::string> any_text() {
  const auto character = rc::gen::map(rc::gen::inRange<std::uint32_t>(0, 0x110000), [](std::uint32_t point) -> std::string {
    if ((point >= 0xD800 && point < 0xE000) || point == 0x2581) point = 'x';
    const auto byte = [](std::uint32_t value) { return static_cast<char>(value); };
    if (point < 0x80) return {byte(point)};
    if (point < 0x800) return {byte(0xC0 | point >> 6), byte(0x80 | (point & 63))};
    if (point < 0x10000) return {byte(0xE0 | point >> 12), byte(0x80 | (point >> 6 & 63)), byte(0x80 | (point & 63))};
    return {byte(0xF0 | point >> 18), byte(0x80 | (point >> 12 & 63)), byte(0x80 | (point >> 6 & 63)),
            byte(0x80 | (point & 63))};
  });
  const auto part = rc::gen::oneOf(character, rc::gen::elementOf(std::vector<std::string>{
                                                  " ", "  ", "    ", "\n", "\r\n", "\t", std::string(1, '\0'), "the",
                                                  "The old sailor", "café", "Жёлтый", "1984", ",\n    ", ".\n\n", "<unk>",
                                                  "<0x41>", "<|bos|>", "\u00A0", "harbour;"}));
  return rc::gen::map(rc::gen::container<std::vector<std::string>>(part), [](const std::vector<std::string>& parts) {
    std::string text;
    for (const std::string& piece : parts) text += piece;
    return text;
  });
}

TEST(SentencePiece, DescribesItself) {
  EXPECT_EQ(small().type(), "sentencepiece");
  EXPECT_EQ(small().vocab_size(), 500);
  EXPECT_EQ(small().first_special(), 491);
  EXPECT_EQ(small().bos_id(), 491);
  EXPECT_EQ(small().special_tokens().back(), "<|output_end|>");
  EXPECT_EQ(small().pieces().front(), "<unk>");
  EXPECT_EQ(small().token_bytes(0), "<unk>");
  EXPECT_EQ(small().token_bytes(1), std::string(1, '\0'));
  EXPECT_EQ(small().token_bytes(256), "\xFF");
  EXPECT_EQ(small().token_byte_lengths()[491], 0);
  EXPECT_FALSE(small().merges().empty());
}

TEST(SentencePiece, WordsOfTheCorpusAreSingleTokens) {
  const auto ids = small().encode(" the");
  ASSERT_EQ(ids.size(), 1U);
  EXPECT_EQ(small().token_bytes(ids[0]), " the");
  EXPECT_EQ(small().encode(".\n\n").size(), 1U);  // line breaks merge with punctuation before them
  EXPECT_EQ(small().encode("1984").size(), 4U);   // digits stand alone
}

RC_GTEST_PROP(SentencePiece, TextRoundTrips, ()) {
  const std::string text = *any_text();
  const auto ids = small().encode(text);
  RC_ASSERT(small().decode(ids) == text);
  for (const TokenId id : ids) RC_ASSERT(id > 0 && !small().is_special(id));
}

RC_GTEST_PROP(SentencePiece, IdsAreThoseOfTheLibrary, ()) {
  const std::string text = *any_text();
  RC_ASSERT(small().encode(text) == library().EncodeAsIds(text));
}

TEST(SentencePiece, IdsAreThoseOfTheLibraryOnTheCorpus) {
  for (const std::string& document : testing::small_corpus()) {
    ASSERT_THAT(small().encode(document), ElementsAreArray(library().EncodeAsIds(document)));
  }
}

TEST(SentencePiece, TheSymbolOfTheSpaceBecomesASpace) {
  EXPECT_EQ(small().decode(small().encode("a\u2581b")), "a b");
  for (const char* text : {"\u2581", " \u2581the", "\u2581 the", "x\u2581\u2581the"}) {
    EXPECT_THAT(small().encode(text), ElementsAreArray(library().EncodeAsIds(text)));
  }
}

RC_GTEST_PROP(SentencePiece, MalformedBytesAreReplaced, ()) {
  const auto bytes = *rc::gen::container<std::string>(rc::gen::arbitrary<char>());
  RC_ASSERT(small().encode(bytes) == small().encode(replace_invalid_utf8(bytes)));
}

RC_GTEST_PROP(SentencePiece, StreamsDecodeToTheReplacedText, ()) {
  const auto ids = *rc::gen::container<std::vector<TokenId>>(rc::gen::inRange<TokenId>(0, 500));
  StreamDecoder decoder(small());
  std::string text;
  for (const TokenId id : ids) text += decoder.push(id);
  text += decoder.flush();
  RC_ASSERT(text == replace_invalid_utf8(small().decode(ids)));
}

TEST(SentencePiece, AMegabyteWithoutABoundaryIsQuick) {
  const std::clock_t start = std::clock();
  for (const std::string& unit : {std::string("a"), std::string(" "), std::string("the"), std::string("\xE4\xBD\xA0")}) {
    std::string text;
    while (text.size() < 1 << 20) text += unit;
    EXPECT_EQ(small().decode(small().encode(text)), text);
  }
  EXPECT_LT((std::clock() - start) / CLOCKS_PER_SEC, 20);  // minutes if it were quadratic
}

TEST(SentencePiece, SavesWhatLoadsAsTheSame) {
  const testing::TemporaryDirectory folder;
  small().save(folder.path());
  const auto both = load_tokenizer(folder.path());
  const auto json = load_tokenizer(folder / "tokenizer.json");
  const auto model = load_tokenizer(folder / "tokenizer.model");
  for (const auto& loaded : {both, json, model}) {
    EXPECT_EQ(loaded->type(), "sentencepiece");
    EXPECT_EQ(loaded->fingerprint(), small().fingerprint());
    const std::string text = "The café owner, in 1984:\n\t\u20AC 5";
    EXPECT_EQ(loaded->encode(text), small().encode(text));
  }
  const testing::TemporaryDirectory again;
  both->save(again.path());
  EXPECT_EQ(read_file(again / "tokenizer.model"), read_file(folder / "tokenizer.model"));
  json->save(folder.path() / ".." / again.path().filename());
  EXPECT_EQ(read_file(again / "tokenizer.json"), read_file(folder / "tokenizer.json"));
}

// ------------------------------------------------------------------------------------------------- definitions,
// models

SentencePieceModel sound_model() {
  SentencePieceModel model;
  model.algorithm = SentencePieceModel::Algorithm::kBpe;
  model.byte_fallback = true;
  model.add_dummy_prefix = model.remove_extra_whitespaces = false;
  model.pieces.push_back({"<unk>", 0, Type::kUnknown});
  for (int byte = 0; byte < 256; ++byte) model.pieces.push_back({byte_piece(byte), 0, Type::kByte});
  float score = 0;
  for (const char* piece : {"\u2581t", "he", "\u2581the", "\u2581", "t", "h", "e"}) {
    model.pieces.push_back({piece, score--, Type::kNormal});
  }
  return model;
}

SentencePieceDefinition define(const SentencePieceModel& model) { return define_sentencepiece(model, "", {}, "m.model"); }

TEST(SentencePieceModel, MergesFollowTheScores) {
  SentencePieceModel model = sound_model();
  EXPECT_EQ(SentencePieceTokenizer(define(model)).encode(" the").size(), 1U);
  std::swap(model.pieces[257].score,
            model.pieces[258].score);  // "he" before " t": the same three pieces, other merges
  const auto merges = define(model).merges;
  ASSERT_EQ(merges.size(), 3U);
  EXPECT_EQ(merges[0].result, 258);
  EXPECT_EQ(merges[1].result, 257);
}

TEST(SentencePieceModel, PiecesWithSpacesInsideMergeAcrossWords) {
  SentencePieceModel model = sound_model();
  model.pieces.push_back({"e\u2581t", -0.5F, Type::kNormal});
  const SentencePieceTokenizer tokenizer(define(model));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("he the")), "he the");
  bool spans = false;
  for (const TokenId id : tokenizer.encode("e t")) spans = spans || tokenizer.token_bytes(id) == "e t";
  EXPECT_TRUE(spans);
}

TEST(SentencePieceModel, RefusesModelsThatLoseText) {
  const auto refuse = [](auto change, const char* reason) {
    SentencePieceModel model = sound_model();
    change(model);
    EXPECT_ERROR(define(model), TokenizerError, "m.model: ", reason);
  };
  refuse([](auto& model) { model.algorithm = SentencePieceModel::Algorithm::kUnigram; }, "not a BPE model");
  refuse([](auto& model) { model.add_dummy_prefix = true; }, "add_dummy_prefix");
  refuse([](auto& model) { model.remove_extra_whitespaces = true; }, "remove_extra_whitespaces");
  refuse([](auto& model) { model.escape_whitespaces = false; }, "escape_whitespaces off");
  refuse([](auto& model) { model.byte_fallback = false; }, "byte_fallback off");
  refuse([](auto& model) { model.normalizes = true; }, "a normalization rule other than identity");
  refuse(
      [](auto& model) {
        model.pieces.push_back({"<s>", 0, Type::kControl});
      },
      "piece 264 \"<s>\" is a control, user-defined or unused symbol");
  refuse([](auto& model) { model.pieces[0].type = Type::kNormal; }, "piece 0 \"<unk>\" should be of the unknown type");
  refuse([](auto& model) { model.pieces[5].type = Type::kUnknown; }, "should not be of the unknown type");
  refuse(
      [](auto& model) {
        model.pieces.push_back({"xy", 0, Type::kNormal});
      },
      "piece 264 \"xy\" has a character that is no piece itself");
}

TEST(SentencePieceModel, RefusesIncompletePieces) {
  const auto refuse = [](auto change, const char* reason) {
    SentencePieceDefinition definition = define(sound_model());
    change(definition.pieces);
    EXPECT_ERROR(SentencePieceTokenizer{definition}, TokenizerError, reason);
  };
  refuse([](auto& pieces) { pieces[0] = "x"; }, "the piece <unk> is missing");
  refuse([](auto& pieces) { pieces[11] = "x"; }, "the byte piece <0x0A> is missing");
  refuse([](auto& pieces) { pieces[260] = "x"; }, "the piece of the space, U+2581, is missing");
  refuse([](auto& pieces) { pieces[261] = "h"; }, "piece \"h\" occurs twice, first as 261");
}

TEST(SentencePieceModel, ParsesWhatTheTrainerWrites) {
  const testing::TemporaryDirectory folder;
  small().save(folder.path());
  const SentencePieceModel model = parse_sentencepiece_model(read_file(folder / "tokenizer.model"), "m");
  ASSERT_EQ(model.pieces.size(), 491U);
  EXPECT_EQ(model.algorithm, SentencePieceModel::Algorithm::kBpe);
  EXPECT_TRUE(model.byte_fallback);
  EXPECT_FALSE(model.add_dummy_prefix);
  EXPECT_FALSE(model.remove_extra_whitespaces);
  EXPECT_TRUE(model.escape_whitespaces);
  EXPECT_FALSE(model.normalizes);
  for (int id = 0; id < 491; ++id) {
    const auto& piece = model.pieces[static_cast<std::size_t>(id)];
    ASSERT_EQ(piece.text, library().IdToPiece(id));
    ASSERT_EQ(piece.score, library().GetScore(id));
    ASSERT_EQ(piece.type == Type::kByte, library().IsByte(id));
    ASSERT_EQ(piece.type == Type::kUnknown, library().IsUnknown(id));
  }
}

TEST(SentencePieceModel, EveryTruncationIsRefusedOrShorter) {
  const testing::TemporaryDirectory folder;
  small().save(folder.path());
  const std::string whole = read_file(folder / "tokenizer.model");
  for (std::size_t size = 0; size < whole.size(); size += 7) {
    try {
      const SentencePieceModel model = parse_sentencepiece_model(std::string_view(whole).substr(0, size), "m.model");
      // Cut between two fields: the settings at the end are gone, and with them what makes the model acceptable.
      EXPECT_ERROR(define(model), TokenizerError, "m.model: ");
    } catch (const TokenizerError& error) {
      EXPECT_THAT(error.what(), HasSubstr("m.model: "));
    }
  }
}

TEST(SentencePieceModel, RefusesWhatIsNoModel) {
  const auto refuse = [](const std::string& bytes, const char* reason) {
    EXPECT_ERROR(parse_sentencepiece_model(bytes, "m"), TokenizerError, reason);
  };
  refuse("hello world, this is text", "m: not a sentencepiece model, or cut off or damaged");
  refuse(std::string(20, '\xFF'), "not a sentencepiece model");
  refuse(std::string("\x03", 1), "not a sentencepiece model");      // wire type 3
  refuse(std::string("\x02\x00", 2), "not a sentencepiece model");  // field 0
  refuse(std::string("\x21\x00", 2), "not a sentencepiece model");  // half a fixed64
  refuse("", "m: a sentencepiece model without pieces");
  refuse(std::string("\x0A\x02\x18\x09", 4), "m: piece 0 has the unknown type 9");
  refuse(std::string("\x0A\x00", 2), "m: piece 0 is empty or not UTF-8");
  refuse(std::string("\x0A\x03\x0A\x01\xFF", 5), "m: piece 0 is empty or not UTF-8");
}

}  // namespace
}  // namespace nanochat
