#pragma once
// Constraints on answers: JSON that matches a schema, any JSON object, a regular expression, one text of a list, or a grammar.
//
//   auto constraint = answer_constraint(AnswerForm::kJsonSchema, {{"type", "integer"}}, trie);
//
// Before each token, the trie of the vocabulary and the grammar's automaton are traversed
// together; the allowed tokens of a state are stored. A token is allowed only if the remaining
// tokens suffice for a short ending. When they just suffice, only that ending is left.

#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "inference/token_constraint.h"
#include "inference/token_trie.h"

namespace nanochat {

// The form of an answer, and the value that goes with it.
enum class AnswerForm {
  kJsonObject,  // null
  kJsonSchema,  // a schema (json_schema.h)
  kRegex,       // an expression that the whole answer matches (regex.h)
  kChoice,      // a list of texts
  kGrammar,     // a grammar in GBNF (answer_grammars.h)
};

// Throws ConfigError if the value is not supported, or if the vocabulary cannot spell what it requires. The
// constraint and its clones share tables; each of them may be used by another thread.
std::unique_ptr<TokenConstraint> answer_constraint(AnswerForm form, const nlohmann::ordered_json& value,
                                                   std::shared_ptr<const TokenTrie> trie);

class ConstraintTables;

// Keeps the tables of the last forms and values, so that a later request with the same schema has them at once. Thread-safe.
class ConstraintCache {
 public:
  explicit ConstraintCache(std::shared_ptr<const TokenTrie> trie);
  // As answer_constraint().
  std::unique_ptr<TokenConstraint> make(AnswerForm form, const nlohmann::ordered_json& value);

 private:
  using Entry = std::pair<std::string, std::shared_ptr<ConstraintTables>>;
  static constexpr std::size_t kEntries = 16;  // of at most 16 MiB of masks each, and their automata
  std::shared_ptr<const TokenTrie> trie_;
  std::mutex mutex_;
  std::vector<Entry> entries_;  // the last used comes first
};

}  // namespace nanochat
