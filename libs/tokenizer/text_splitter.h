#pragma once
// The chain of pre-tokenizers of a tokenizer.json: each step splits the
// pieces of the step before. Immutable after construction; thread-safe.
//
// Source: huggingface/tokenizers, its pre-tokenizers Split and ByteLevel; Digits and Punctuation are Splits by a pattern.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/pretokenizer.h"

namespace nanochat {

struct SplitStep {
  enum class Kind { kSplit, kByteLevel };
  // How a match is used: a piece, removed, merged with adjacent matches, or part of the piece before or after it.
  enum class Behavior { kIsolated, kRemoved, kContiguous, kMergedWithPrevious, kMergedWithNext };
  Kind kind = Kind::kSplit;
  std::string pattern;  // in the dialect of pretokenizer.h; of kByteLevel GPT-2's, or none
  Behavior behavior = Behavior::kIsolated;
  bool invert = false;            // what is between the matches is the match
  bool add_prefix_space = false;  // kByteLevel: add a space before each piece that has none
};

class TextSplitter {
 public:
  // Steps after kByteLevel see bytes as GPT-2's printable characters
  // (hf_tokenizer_json.h). Throws TokenizerError if a pattern does not compile.
  explicit TextSplitter(std::vector<SplitStep> steps);

  // Calls visit(bytes) for each piece of valid UTF-8, in order; no piece is empty.
  void split(std::string_view text, const std::function<void(std::string_view)>& visit) const;

 private:
  struct Step {
    SplitStep step;
    std::vector<Pretokenizer> pattern;  // one or none
  };
  void run(std::size_t index, std::string_view text, bool printable, const std::function<void(std::string_view)>& visit) const;

  std::vector<Step> steps_;
};

}  // namespace nanochat
