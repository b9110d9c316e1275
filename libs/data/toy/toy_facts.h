#pragma once
// What the toy world knows: relations, each a list of facts and the ways to tell them.
//
// In a phrasing {a} is the subject, {b} the answer, {c} what else the fact needs; {A}, {B}, {C} are the same with a
// capital letter. A phrasing of `told` is a whole sentence; one of `held_out` is the prompt that the answer {b}
// follows, and is never written to the training text. Held-out phrasings join parts that occur apart in told ones, so
// that they can be understood by who has learned the facts and not by who has learned strings.

#include <string>
#include <string_view>
#include <vector>

#include "data/toy/toy.h"

namespace nanochat {

struct ToyFact {
  std::string a, b, c;
};

struct ToyRelation {
  std::string topic;
  int weight = 1;  // how often it is told, beside the other relations
  std::vector<ToyFact> facts;
  std::vector<std::string> told;
  std::vector<std::string> held_out;
};

const std::vector<ToyRelation>& toy_relations();

// Entries of the encyclopaedia: a subject with what is told of it beside the relations above.
struct ToyCountry {
  std::string name, capital, continent, language;
};
struct ToyElement {
  std::string name, symbol, kind, use;
};
const std::vector<ToyCountry>& toy_countries();
const std::vector<ToyElement>& toy_elements();

std::string fill_phrasing(std::string_view phrasing, const ToyFact& fact);

}  // namespace nanochat
