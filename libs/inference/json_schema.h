#pragma once
// Converts a JSON schema to a grammar of the JSON texts that match it (response_format of OpenAI's API).
//
// Supported, alone and beside each other: type, nullable, enum, const, anyOf, oneOf, allOf, not, if, then, else, $ref and
// $dynamicRef to places in the schema ($defs, $id, $anchor; also recursive); properties, required, additionalProperties,
// patternProperties, propertyNames, minProperties, maxProperties, dependentRequired, dependentSchemas, unevaluatedProperties;
// items, prefixItems, minItems, maxItems, contains, minContains, maxContains, uniqueItems of few values, unevaluatedItems;
// minLength, maxLength, pattern (regex.h), format, contentEncoding base64; minimum, maximum, exclusiveMinimum,
// exclusiveMaximum, multipleOf. Annotations (title, description, default, examples ...) and keywords that begin with "x-"
// are passed over. Anything else is a ConfigError with the keyword and its place, as are schemas more than 256 deep, more
// than 2,000 alternatives of one value, and grammars of more than ByteGrammar::kMaxSymbols.
//
// The grammar generates a subset of what the schema allows:
//   - Properties come in the order of the schema. Others come behind them, and only if the schema says what they are
//     (additionalProperties with a schema, patternProperties), if none is declared, or if minProperties needs them. Items
//     behind those of prefixItems come only if "items" is there or minItems needs them.
//   - Without "type", values have the types of the keywords that are there, unless there is no such value.
//   - Numbers have at most 15 digits on each side of the point and exponents at most 2, so that every reader accepts them;
//     with bounds or multipleOf, at most 15 digits and no exponent.
//   - White space ends after 20 characters, and free values nest 24 deep. Strings with a pattern and a maxLength have at most
//     256 characters, unless longer ones are needed.

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
