#pragma once
// From a JSON schema to a grammar of the JSON texts that fit it (response_format of OpenAI's API).
//
// Supported: type (also a list of types), properties, required, additionalProperties, items, minItems, maxItems, enum,
// const, anyOf, allOf of one, $ref into $defs or definitions (also recursive), minLength, maxLength, and minimum, maximum,
// exclusiveMinimum, exclusiveMaximum of integers. Annotations (title, description, default, examples ...) are passed over.
// Everything else is a ConfigError naming the keyword and where it stands.
//
// What the grammar writes is a part of what the schema allows: properties come in the order of the schema and only those it
// declares (an object without any has free keys), numbers have at most 15 digits on each side of the point and exponents at
// most 2, so that every reader takes them; runs of white space end after 20 characters, and free values nest 24 deep.

#include <nlohmann/json_fwd.hpp>

#include "inference/byte_grammar.h"

namespace nanochat {

// Throws ConfigError when the schema is not one, asks for what is not supported, or cannot be fulfilled.
ByteGrammar json_grammar(const nlohmann::ordered_json& schema);
// Any JSON object: response_format json_object.
ByteGrammar json_object_grammar();

}  // namespace nanochat
