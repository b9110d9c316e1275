#pragma once
// Changes that a tokenizer.json makes to a text before it is split: Unicode normalization forms,
// lower case and replacements. They equal the normalizers of Hugging Face's `tokenizers`,
// character for character (unicode_versions.h). Immutable after construction; thread-safe.
//
// Sources: Unicode Standard Annex #15 (normalization forms); huggingface/tokenizers,
// its normalizers. Decomposition and composition are from utf8proc.

#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/pretokenizer.h"

namespace nanochat {

struct NormalizerStep {
  enum class Kind { kNfc, kNfd, kNfkc, kNfkd, kLowercase, kStripAccents, kStrip, kPrepend, kReplace };
  Kind kind = Kind::kNfc;
  std::string pattern;              // kReplace, in the dialect of pretokenizer.h
  std::string content;              // kReplace, kPrepend
  bool left = false, right = false;  // kStrip
};

class TextNormalizer {
 public:
  TextNormalizer() = default;
  // Throws TokenizerError if a pattern does not compile.
  explicit TextNormalizer(std::vector<NormalizerStep> steps);

  bool empty() const { return steps_.empty(); }
  // `text` must be valid UTF-8; the result is valid too.
  std::string apply(std::string_view text) const;

 private:
  std::vector<NormalizerStep> steps_;
  std::vector<Pretokenizer> patterns_;  // of the kReplace steps, in order
};

}  // namespace nanochat
