#pragma once
// A TokenConstraint of a grammar over bytes: JSON of a schema, or any JSON object.
//
// Before each token the trie of the vocabulary is walked beside the grammar's automaton; what is allowed in a state is
// remembered. A token is allowed only if the tokens left after it suffice for a short ending, so that when they just
// suffice only that ending remains.

#include <memory>

#include <nlohmann/json_fwd.hpp>

#include "inference/token_constraint.h"
#include "inference/token_trie.h"

namespace nanochat {

// Answers that fit the schema (see json_schema.h), or any JSON object. Throws ConfigError for a schema that is not
// supported and for a vocabulary that cannot spell what it asks for. The constraint and its clones share tables: one
// thread at a time may use them. A compiled schema is not shared between requests.
std::unique_ptr<TokenConstraint> json_schema_constraint(const nlohmann::ordered_json& schema, std::shared_ptr<const TokenTrie> trie);
std::unique_ptr<TokenConstraint> json_object_constraint(std::shared_ptr<const TokenTrie> trie);

}  // namespace nanochat
