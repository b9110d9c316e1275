#pragma once
// A TokenConstraint from a grammar over bytes: JSON of a schema, or any JSON object.
//
// Before each token, the trie of the vocabulary and the grammar's automaton are traversed
// together; the allowed tokens of a state are stored. A token is allowed only if the remaining
// tokens suffice for a short ending. When they just suffice, only that ending is left.

#include <memory>

#include <nlohmann/json_fwd.hpp>

#include "inference/token_constraint.h"
#include "inference/token_trie.h"

namespace nanochat {

// Answers that match the schema (see json_schema.h), or any JSON object. Throws ConfigError for an
// unsupported schema, or if the vocabulary cannot spell what it requires. The constraint and its
// clones share tables; only one thread at a time may use them. Requests do not share compiled schemas.
std::unique_ptr<TokenConstraint> json_schema_constraint(const nlohmann::ordered_json& schema,
                                                        std::shared_ptr<const TokenTrie> trie);
std::unique_ptr<TokenConstraint> json_object_constraint(std::shared_ptr<const TokenTrie> trie);

}  // namespace nanochat
