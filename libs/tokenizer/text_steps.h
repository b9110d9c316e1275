#pragma once
// What a tokenizer.json can do to a text beyond one split pattern and special tokens with the last ids.

#include <string>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/text_normalizer.h"
#include "tokenizer/text_splitter.h"

namespace nanochat {

struct TextSteps {
  std::vector<NormalizerStep> normalizer;
  std::vector<SplitStep> splits;  // empty: one split pattern, given elsewhere
  std::vector<AddedToken> added;  // by id; empty: special tokens with the last ids, given elsewhere
  // Sections of tokenizer.json as they were read, to be written again as JSON; empty if this program writes its own.
  std::string normalizer_json, pre_tokenizer_json, post_processor_json, decoder_json;

  // True if they affect ids. `vocabulary` is the number of tokens that merges make.
  bool matter(std::size_t vocabulary) const;
  // Everything that determines ids, for fingerprints; empty if the steps make no difference.
  std::vector<std::string> description(std::size_t vocabulary) const;
};

}  // namespace nanochat
