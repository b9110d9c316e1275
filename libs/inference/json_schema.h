#pragma once
// From a JSON schema to a grammar of the JSON texts that fit it (response_format of OpenAI's API).
//
// Supported: type (also a list of types), properties, required, additionalProperties, items, minItems, maxItems, enum and
// const (also both, and beside a type), anyOf, oneOf of schemas that exclude each other, allOf of one, $ref to a place of the schema such as "#/$defs/NAME" (also
// recursive; within a schema that has an $id, to a place of that one first), minLength, maxLength, and minimum, maximum,
// exclusiveMinimum, exclusiveMaximum of integers. Annotations (title, description, default, examples ...) are passed over.
// Everything else is a ConfigError naming the keyword and where it stands, and so are schemas nested more than 256 deep and
// grammars of more than ByteGrammar::kMaxSymbols.
//
// What the grammar writes is a part of what the schema allows: properties come in the order of the schema and only those it
// declares (an object without any has free keys), numbers have at most 15 digits on each side of the point and exponents at
// most 2, so that every reader takes them; runs of white space end after 20 characters, and free values nest 24 deep.

#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "inference/byte_grammar.h"

namespace nanochat {

// Throws ConfigError when the schema is not one, asks for what is not supported, or cannot be fulfilled.
ByteGrammar json_grammar(const nlohmann::ordered_json& schema);
// Any JSON object: response_format json_object.
ByteGrammar json_object_grammar();

// The place of `root` that a $ref such as "#/$defs/a" names; null when there is none, or the reference is malformed or
// names a place outside of it.
const nlohmann::ordered_json* find_reference(const nlohmann::ordered_json& root, std::string_view reference);

}  // namespace nanochat
