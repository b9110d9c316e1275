#pragma once
// What a tokenizer.json may say about a text beyond one split pattern and special tokens with the last ids.

#include <string>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/text_normalizer.h"
#include "tokenizer/text_splitter.h"

namespace nanochat {

struct TextSteps {
  std::vector<NormalizerStep> normalizer;
  std::vector<SplitStep> splits;  // empty: one split pattern, named elsewhere
  std::vector<AddedToken> added;  // by id; empty: special tokens with the last ids, named elsewhere
  // Sections of tokenizer.json as they were read, to be written again: JSON, or empty for what this program writes itself.
  std::string normalizer_json, pre_tokenizer_json, post_processor_json, decoder_json;

  // True when they make a difference for ids. `vocabulary` is the number of tokens that merges make.
  bool matter(std::size_t vocabulary) const;
  // All that decides ids, for fingerprints; empty when they make no difference.
  std::vector<std::string> description(std::size_t vocabulary) const;
};

}  // namespace nanochat
