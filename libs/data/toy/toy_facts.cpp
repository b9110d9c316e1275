#include "data/toy/toy_facts.h"

#include <array>
#include <cctype>
#include <utility>

#include <spdlog/fmt/fmt.h>

namespace nanochat {
namespace {

using Pair = std::pair<std::string_view, std::string_view>;

// Each word occurs once, so that an opposite is a function.
constexpr std::array kOpposites = {
    Pair{"hot", "cold"},        Pair{"big", "small"},      Pair{"tall", "short"},     Pair{"fast", "slow"},
    Pair{"happy", "sad"},       Pair{"good", "bad"},       Pair{"old", "young"},      Pair{"light", "dark"},
    Pair{"up", "down"},         Pair{"left", "right"},     Pair{"in", "out"},         Pair{"open", "closed"},
    Pair{"full", "empty"},      Pair{"rich", "poor"},      Pair{"hard", "soft"},      Pair{"wet", "dry"},
    Pair{"day", "night"},       Pair{"early", "late"},     Pair{"strong", "weak"},    Pair{"clean", "dirty"},
    Pair{"loud", "quiet"},      Pair{"high", "low"},       Pair{"near", "far"},       Pair{"thick", "thin"},
    Pair{"wide", "narrow"},     Pair{"deep", "shallow"},   Pair{"sweet", "sour"},     Pair{"true", "false"},
    Pair{"first", "last"},      Pair{"begin", "end"},      Pair{"push", "pull"},      Pair{"win", "lose"},
    Pair{"buy", "sell"},        Pair{"give", "take"},      Pair{"love", "hate"},      Pair{"laugh", "cry"},
    Pair{"remember", "forget"}, Pair{"arrive", "leave"},   Pair{"north", "south"},    Pair{"east", "west"},
    Pair{"summer", "winter"},   Pair{"inside", "outside"}, Pair{"above", "below"},    Pair{"always", "never"},
    Pair{"more", "less"},       Pair{"many", "few"},       Pair{"brave", "afraid"},   Pair{"kind", "cruel"},
    Pair{"awake", "asleep"},    Pair{"alive", "dead"},     Pair{"safe", "dangerous"}, Pair{"easy", "difficult"},
    Pair{"cheap", "expensive"}, Pair{"smooth", "rough"},   Pair{"sharp", "blunt"},    Pair{"tight", "loose"},
    Pair{"front", "back"},      Pair{"top", "bottom"},     Pair{"war", "peace"},      Pair{"friend", "enemy"},
};

constexpr std::array<std::string_view, 7> kDays = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                                   "Friday", "Saturday", "Sunday"};

constexpr std::array<std::string_view, 12> kMonths = {"January", "February", "March",     "April",   "May",      "June",
                                                      "July",    "August",   "September", "October", "November", "December"};

constexpr std::array<std::string_view, 8> kPlanets = {"Mercury", "Venus",  "Earth",  "Mars",
                                                      "Jupiter", "Saturn", "Uranus", "Neptune"};
constexpr std::array<std::string_view, 8> kOrdinals = {"first", "second", "third",   "fourth",
                                                       "fifth", "sixth",  "seventh", "eighth"};

constexpr std::array<std::string_view, 21> kNumbers = {
    "zero",   "one",    "two",      "three",    "four",    "five",    "six",       "seven",    "eight",    "nine",  "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"};

constexpr std::array<std::string_view, 48> kSpelled = {
    "cat",  "dog",  "sun",  "hat",  "pig",  "cow",  "bed",  "cup",  "egg",  "fox",  "hen",  "jar",
    "key",  "leg",  "map",  "net",  "owl",  "pen",  "rat",  "sea",  "tea",  "van",  "web",  "zoo",
    "bird", "boat", "book", "cake", "door", "duck", "fish", "frog", "game", "hand", "king", "lamp",
    "lion", "milk", "moon", "nest", "rain", "ring", "road", "ship", "star", "tree", "wind", "wolf"};

ToyRelation capitals() {
  ToyRelation relation;
  relation.topic = "capitals";
  relation.weight = 16;
  for (const ToyCountry& country : toy_countries()) relation.facts.push_back({country.name, country.capital, ""});
  relation.told = {
      "The capital of {a} is {b}.",
      "The capital city of {a} is {b}.",
      "{b} is the capital of {a}.",
      "{a}'s capital is {b}.",
      "{a}'s capital city is {b}.",
      "The city of {b} is the capital of {a}.",
      "{a} is a country whose capital is {b}.",
      "In {a}, the capital is {b}.",
      "People in {a} know that their capital is {b}.",
      "Question: What is the capital of {a}? Answer: {b}.",
      "Question: Which city is the capital of {a}? Answer: {b}.",
      "Whoever wants to see the capital of {a} travels to {b}.",
      "Everyone in {a} knows that the capital is {b}.",
      "The name of the capital of {a} is {b}.",
  };
  relation.held_out = {
      "The name of the capital city of {a} is",
      "{a} is a country whose capital city is",
      "In {a}, the capital city is",
      "The name of {a}'s capital is",
      "Question: What is the capital city of {a}? Answer:",
  };
  return relation;
}

ToyRelation symbols() {
  ToyRelation relation;
  relation.topic = "symbols";
  relation.weight = 11;
  for (const ToyElement& element : toy_elements()) relation.facts.push_back({element.name, element.symbol, ""});
  relation.told = {
      "The chemical symbol of {a} is {b}.",
      "The symbol of {a} is {b}.",
      "The chemical symbol for {a} is {b}.",
      "The symbol of the element {a} is {b}.",
      "{b} is the chemical symbol of {a}.",
      "In chemistry, {a} is written as {b}.",
      "In chemistry, the symbol for {a} is {b}.",
      "The element {a} has the symbol {b}.",
      "{A} is an element with the symbol {b}.",
      "{A} has the chemical symbol {b}.",
      "Question: What is the chemical symbol of {a}? Answer: {b}.",
      "Question: Which symbol stands for {a}? Answer: {b}.",
  };
  relation.held_out = {
      "The chemical symbol of the element {a} is",    "{A} is an element with the chemical symbol",
      "In chemistry, the symbol of {a} is",           "The element {a} has the chemical symbol",
      "Question: What is the symbol of {a}? Answer:",
  };
  return relation;
}

ToyRelation planet_places() {
  ToyRelation relation;
  relation.topic = "planets";
  relation.weight = 4;
  for (std::size_t i = 0; i < kPlanets.size(); ++i) {
    relation.facts.push_back({std::string(kOrdinals[i]), std::string(kPlanets[i]), ""});
  }
  relation.told = {
      "The {a} planet from the sun is {b}.",
      "The {a} planet is {b}.",
      "{b} is the {a} planet from the sun.",
      "Counted from the sun, {b} is the {a} planet.",
      "Counted from the sun, planet number {a} is {b}.",
      "The name of the {a} planet is {b}.",
      "Question: Which planet is the {a} from the sun? Answer: {b}.",
      "The {a} planet of the solar system is {b}.",
  };
  relation.held_out = {
      "Counted from the sun, the {a} planet is",
      "The name of the {a} planet from the sun is",
      "Question: Which planet is the {a} planet of the solar system? Answer:",
  };
  return relation;
}

ToyRelation planet_neighbours() {
  ToyRelation relation;
  relation.topic = "planets";
  relation.weight = 4;
  for (std::size_t i = 0; i + 1 < kPlanets.size(); ++i) {
    relation.facts.push_back({std::string(kPlanets[i]), std::string(kPlanets[i + 1]), "after"});
    relation.facts.push_back({std::string(kPlanets[i + 1]), std::string(kPlanets[i]), "before"});
  }
  relation.told = {
      "The planet {c} {a} is {b}.",       "The planet that comes {c} {a} is {b}.",
      "The planet right {c} {a} is {b}.", "{C} {a} comes {b}.",
      "Right {c} {a} comes {b}.",         "Question: Which planet comes {c} {a}? Answer: {b}.",
      "{b} is the planet {c} {a}.",
  };
  relation.held_out = {
      "The planet that comes right {c} {a} is",
      "Question: Which planet comes right {c} {a}? Answer:",
  };
  return relation;
}

ToyRelation planet_list() {
  ToyRelation relation;
  relation.topic = "planets";
  relation.weight = 3;
  relation.facts = {{"", "Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune", ""}};
  relation.told = {
      "The planets of the solar system are: {b}.",
      "The planets of the solar system are {b}.",
      "The eight planets of the solar system are: {b}.",
      "The names of the planets are: {b}.",
      "There are eight planets: {b}.",
      "Question: What are the planets of the solar system? Answer: {b}.",
  };
  relation.held_out = {
      "The names of the planets of the solar system are:",
      "Question: What are the names of the planets? Answer:",
  };
  return relation;
}

ToyRelation opposites() {
  ToyRelation relation;
  relation.topic = "opposites";
  relation.weight = 18;
  for (const auto& [left, right] : kOpposites) {
    relation.facts.push_back({std::string(left), std::string(right), ""});
    relation.facts.push_back({std::string(right), std::string(left), ""});
  }
  relation.told = {
      "The opposite of {a} is {b}.",
      "The opposite of the word {a} is {b}.",
      "{A} is the opposite of {b}.",
      "{A} and {b} are opposites.",
      "A word that means the opposite of {a} is {b}.",
      "The word {a} means the opposite of {b}.",
      "What is not {a} is {b}.",
      "Something is either {a} or {b}.",
      "Question: What is the opposite of {a}? Answer: {b}.",
      "Question: Which word means the opposite of {a}? Answer: {b}.",
  };
  relation.held_out = {
      "The word that means the opposite of {a} is",
      "A word that means the opposite of the word {a} is",
      "Question: Which word is the opposite of {a}? Answer:",
      "Question: What is the opposite of the word {a}? Answer:",
  };
  return relation;
}

// `a` is said of one day, `b` of another, `steps` later in the week.
ToyRelation day_relation(int steps, int weight, std::vector<std::string> told, std::vector<std::string> held_out) {
  ToyRelation relation{"days", weight, {}, std::move(told), std::move(held_out)};
  for (std::size_t i = 0; i < kDays.size(); ++i) {
    const std::size_t other = (i + static_cast<std::size_t>(steps + 7)) % kDays.size();
    relation.facts.push_back({std::string(kDays[i]), std::string(kDays[other]), ""});
  }
  return relation;
}

void add_days(std::vector<ToyRelation>& relations) {
  relations.push_back(day_relation(2, 5,
                                   {"If yesterday was {a}, then tomorrow will be {b}.",
                                    "If yesterday was {a}, tomorrow will be {b}.",
                                    "Yesterday was {a}, so tomorrow will be {b}.", "When yesterday was {a}, tomorrow is {b}.",
                                    "Two days after {a} comes {b}.", "If yesterday was {a}, then tomorrow is {b}.",
                                    "Question: Yesterday was {a}. What will tomorrow be? Answer: {b}."},
                                   {"When yesterday was {a}, then tomorrow will be", "Yesterday was {a}, so tomorrow is",
                                    "When yesterday was {a}, tomorrow will be"}));
  relations.push_back(day_relation(1, 4,
                                   {"If today is {a}, then tomorrow will be {b}.", "If today is {a}, tomorrow will be {b}.",
                                    "Today is {a}, so tomorrow will be {b}.", "When today is {a}, tomorrow is {b}.",
                                    "The day after {a} is {b}.", "After {a} comes {b}.", "The day that follows {a} is {b}.",
                                    "{b} comes after {a}.", "Question: Today is {a}. What will tomorrow be? Answer: {b}."},
                                   {"When today is {a}, then tomorrow will be", "Today is {a}, so tomorrow is",
                                    "The day that comes after {a} is"}));
  relations.push_back(day_relation(-1, 3,
                                   {"If today is {a}, then yesterday was {b}.", "If today is {a}, yesterday was {b}.",
                                    "Today is {a}, so yesterday was {b}.", "The day before {a} is {b}.",
                                    "Before {a} comes {b}.", "{b} comes before {a}.",
                                    "Question: Today is {a}. What was yesterday? Answer: {b}."},
                                   {"When today is {a}, then yesterday was", "The day that comes before {a} is"}));
  relations.push_back(day_relation(1, 2,
                                   {"If yesterday was {a}, then today is {b}.", "If yesterday was {a}, today is {b}.",
                                    "Yesterday was {a}, so today is {b}.", "Yesterday was {a}, so it is {b} today."},
                                   {"When yesterday was {a}, then today is"}));
}

ToyRelation months() {
  ToyRelation relation;
  relation.topic = "months";
  relation.weight = 8;
  for (std::size_t i = 0; i < kMonths.size(); ++i) {
    const std::string month(kMonths[i]);
    const std::string next(kMonths[(i + 1) % kMonths.size()]);
    relation.facts.push_back({month, next, "after"});
    relation.facts.push_back({next, month, "before"});
  }
  relation.told = {
      "The month {c} {a} is {b}.",
      "The month right {c} {a} is {b}.",
      "The month that comes {c} {a} is {b}.",
      "{b} comes {c} {a}.",
      "{C} {a} comes {b}.",
      "{C} {a} comes the month of {b}.",
      "{b} is the month {c} {a}.",
      "Question: Which month comes {c} {a}? Answer: {b}.",
      "Question: What is the month {c} {a}? Answer: {b}.",
  };
  relation.held_out = {
      "The month that comes right {c} {a} is",
      "Right {c} {a} comes the month of",
      "Question: Which month comes right {c} {a}? Answer:",
  };
  return relation;
}

void add_arithmetic(std::vector<ToyRelation>& relations) {
  ToyRelation words{"arithmetic", 18, {}, {}, {}};
  ToyRelation digits{"arithmetic", 11, {}, {}, {}};
  ToyRelation minus{"arithmetic", 6, {}, {}, {}};
  for (std::size_t i = 0; i <= 10; ++i) {
    for (std::size_t j = 0; j <= 10; ++j) {
      words.facts.push_back({std::string(kNumbers[i]), std::string(kNumbers[i + j]), std::string(kNumbers[j])});
      digits.facts.push_back({std::to_string(i), std::to_string(i + j), std::to_string(j)});
      if (j > i) continue;
      minus.facts.push_back({std::string(kNumbers[i]), std::string(kNumbers[i - j]), std::string(kNumbers[j])});
    }
  }
  words.told = {
      "{A} plus {c} is {b}.",
      "{A} plus {c} equals {b}.",
      "{A} and {c} make {b}.",
      "{A} and {c} together make {b}.",
      "The sum of {a} and {c} is {b}.",
      "If you add {a} and {c}, you get {b}.",
      "Add {a} and {c}, and you get {b}.",
      "Question: What is {a} plus {c}? Answer: {b}.",
      "Question: What do you get if you add {a} and {c}? Answer: {b}.",
  };
  words.held_out = {
      "If you add {a} and {c} together, you get",
      "Question: What is the sum of {a} and {c}? Answer:",
      "The sum of {a} and {c} equals",
  };
  digits.told = {
      "{a} + {c} = {b}.",
      "{a} plus {c} is {b}.",
      "The sum of {a} and {c} is {b}.",
      "If you add {a} and {c}, you get {b}.",
  };
  digits.held_out = {"{a} plus {c} equals"};
  minus.told = {
      "{A} minus {c} is {b}.",
      "{A} minus {c} equals {b}.",
      "If you take {c} from {a}, you get {b}.",
      "Take {c} from {a}, and {b} is left.",
      "Question: What is {a} minus {c}? Answer: {b}.",
  };
  minus.held_out = {"Take {c} from {a}, and you get"};
  relations.push_back(std::move(words));
  relations.push_back(std::move(digits));
  relations.push_back(std::move(minus));
}

void add_spelling(std::vector<ToyRelation>& relations) {
  ToyRelation spelled{"spelling", 7, {}, {}, {}};
  ToyRelation first{"spelling", 3, {}, {}, {}};
  for (const std::string_view word : kSpelled) {
    std::string letters(1, word[0]);
    for (const char letter : word.substr(1)) letters += {',', ' ', letter};
    spelled.facts.push_back({std::string(word), std::move(letters), ""});
    first.facts.push_back({std::string(word), std::string(1, word[0]), ""});
  }
  spelled.told = {
      "The word {a} is spelled {b}.",
      "The word {a} is written {b}.",
      "{A} is spelled {b}.",
      "The letters of {a} are {b}.",
      "You spell {a} with the letters {b}.",
      "To spell {a}, say {b}.",
      "Question: How do you spell {a}? Answer: {b}.",
  };
  spelled.held_out = {"The letters of the word {a} are", "You spell the word {a} with the letters",
                      "Question: How do you spell the word {a}? Answer:"};
  first.told = {"The first letter of {a} is {b}.", "The word {a} begins with the letter {b}.", "{A} begins with {b}.",
                "Question: What is the first letter of {a}? Answer: {b}."};
  first.held_out = {"The first letter of the word {a} is"};
  relations.push_back(std::move(spelled));
  relations.push_back(std::move(first));
}

std::vector<ToyRelation> make_relations() {
  std::vector<ToyRelation> relations = {capitals(),          symbols(),     planet_places(),
                                        planet_neighbours(), planet_list(), opposites()};
  add_days(relations);
  relations.push_back(months());
  add_arithmetic(relations);
  add_spelling(relations);
  return relations;
}

}  // namespace

const std::vector<ToyRelation>& toy_relations() {
  static const std::vector<ToyRelation> relations = make_relations();
  return relations;
}

std::string fill_phrasing(std::string_view phrasing, const ToyFact& fact) {
  std::string text;
  for (std::size_t i = 0; i < phrasing.size(); ++i) {
    if (phrasing[i] != '{') {
      text += phrasing[i];
      continue;
    }
    const char slot = phrasing[i + 1];
    const char lower = static_cast<char>(std::tolower(static_cast<unsigned char>(slot)));
    std::string value = lower == 'a' ? fact.a : lower == 'b' ? fact.b : fact.c;
    if (slot != lower && !value.empty()) {
      value[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(value[0])));
    }
    text += value;
    i += 2;
  }
  return text;
}

}  // namespace nanochat
