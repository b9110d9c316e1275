#pragma once
// The facts of the toy world. A relation is a list of facts and the phrasings for them.
//
// In a phrasing, {a} is the subject, {b} the answer and {c} any other value of the fact; {A}, {B} and {C} are the same with a
// capital letter. A phrasing of `told` is a whole sentence. A phrasing of `held_out` is a prompt that the answer {b} completes;
// it never occurs in the training text. Held-out phrasings combine parts of different told phrasings. A model that has learned
// the facts can answer them, and a model that has memorised strings cannot.

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
  int weight = 1;  // relative frequency in the corpus
  std::vector<ToyFact> facts;
  std::vector<std::string> told;
  std::vector<std::string> held_out;
};

const std::vector<ToyRelation>& toy_relations();

// Entries of the encyclopaedia: a subject with further sentences about it.
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
