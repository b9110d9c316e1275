#pragma once
// Reads the parts of a SentencePiece model file (a protobuf ModelProto) that encoding needs: the pieces, and
// the settings that decide whether it is lossless. Field numbers are those of sentencepiece_model.proto.

#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

struct SentencePieceModel {
  enum class Type { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  enum class Algorithm { kUnigram = 1, kBpe = 2, kWord = 3, kChar = 4 };
  struct Piece {
    std::string text;
    float score = 0;
    Type type = Type::kNormal;
  };
  std::vector<Piece> pieces;
  Algorithm algorithm = Algorithm::kUnigram;
  bool byte_fallback = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool normalizes = false;  // has a character map, which is not the identity
};

// `source` names the file in errors. Throws TokenizerError if the bytes are not such a message or are truncated.
SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& source);

}  // namespace nanochat
