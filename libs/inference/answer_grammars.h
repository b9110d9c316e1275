#pragma once
// Grammars for answers that are not JSON: a regular expression, a list of choices, or a grammar in llama.cpp's GBNF:
//
//   root ::= "yes" | "no" " because " [a-z ]{1,40}
//
// GBNF as llama.cpp takes it: rules "name ::= ...", literals, classes of characters, ".", groups, "|", "*", "+", "?", "{n,m}"
// and comments with "#". The answer matches the rule "root". Rules that begin with themselves are refused.

#include <string>
#include <string_view>
#include <vector>

#include "inference/byte_grammar.h"

namespace nanochat {

// All of them throw ConfigError for what is wrong or not supported.
ByteGrammar regex_grammar(std::string_view expression);  // the whole answer matches (regex.h)
ByteGrammar choice_grammar(const std::vector<std::string>& choices);
ByteGrammar gbnf_grammar(std::string_view text);

}  // namespace nanochat
