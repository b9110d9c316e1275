#pragma once
// The fields of vLLM, SGLang and llama.cpp's server that ask for answers of a form other than JSON: a regular expression
// (guided_regex, regex), a list of choices (guided_choice, choice) or a grammar in GBNF (guided_grammar, grammar), also as
// members of structured_outputs.

#include "serving/internal/api_request.h"
#include "serving/internal/json_fields.h"

namespace nanochat {

// Sets the form of the answer if one of the fields is there. Throws ApiError (400) if there are two, or another form too.
void parse_guided_fields(const JsonFields& fields, RequestedFormat& request);

}  // namespace nanochat
