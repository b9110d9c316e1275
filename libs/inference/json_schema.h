#pragma once
// Converts a JSON schema to a grammar of the JSON texts that match it (response_format of OpenAI's API).
//
// Supported: type (also a list), properties, required, additionalProperties, items, minItems, maxItems, enum
// and const (also both, and with a type), anyOf, oneOf of schemas that exclude each other, allOf of one, $ref
// to a place in the schema such as "#/$defs/NAME" (also recursive; in a schema with an $id, first within it),
// minLength, maxLength, and for integers minimum, maximum, exclusiveMinimum, exclusiveMaximum. Annotations
// (title, description, default, examples ...) are ignored. Anything else is a ConfigError with the keyword
// and its place, as are schemas more than 256 deep and grammars of more than ByteGrammar::kMaxSymbols.
//
// The grammar generates a subset of what the schema allows. Properties come in the order of the schema, and only declared
// ones (an object without any has free keys). Numbers have at most 15 digits on each side of the point and exponents at
// most 2, so that every reader accepts them. White space ends after 20 characters, and free values nest 24 deep.

#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "inference/byte_grammar.h"

namespace nanochat {

// Throws ConfigError if the schema is invalid, uses something unsupported, or cannot be satisfied.
ByteGrammar json_grammar(const nlohmann::ordered_json& schema);
// Any JSON object: response_format json_object.
ByteGrammar json_object_grammar();

// The place in `root` that a $ref such as "#/$defs/a" names; null if
// there is none, or if the reference is malformed or outside of `root`.
const nlohmann::ordered_json* find_reference(const nlohmann::ordered_json& root, std::string_view reference);

}  // namespace nanochat
