#include "data/toy/toy.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/random.h"
#include "data/toy/toy_facts.h"
#include "data/toy/toy_stories.h"

namespace nanochat {
namespace {

constexpr std::size_t kMinDocument = 300;
constexpr std::size_t kMaxDocument = 2500;

// Facts are told without repeating one within a document: the second telling could be copied from the first, and the
// model would learn to look back instead of to know.
class FactTeller {
 public:
  explicit FactTeller(Rng& rng) : rng_(rng) {}

  // A sentence of a relation chosen by weight; empty when all its facts have been told.
  std::string tell_any() {
    const std::vector<ToyRelation>& relations = toy_relations();
    int total = 0;
    for (const ToyRelation& relation : relations) total += relation.weight;
    auto choice = static_cast<int>(rng_.below(static_cast<std::uint64_t>(total)));
    std::size_t index = 0;
    while (choice >= relations[index].weight) choice -= relations[index++].weight;
    return tell(index, [](const std::string&) { return true; });
  }

  // A sentence of relation `index` in one of the phrasings that `accept` takes.
  template <class Accept>
  std::string tell(std::size_t index, const Accept& accept) {
    const ToyRelation& relation = toy_relations()[index];
    std::vector<std::size_t>& left = left_[index];
    if (left.empty() && !started_[index]) {
      for (std::size_t i = 0; i < relation.facts.size(); ++i) left.push_back(i);
      rng_.shuffle(left);
    }
    started_[index] = true;
    std::vector<const std::string*> phrasings;
    for (const std::string& phrasing : relation.told) {
      if (accept(phrasing)) phrasings.push_back(&phrasing);
    }
    if (left.empty() || phrasings.empty()) return {};
    const ToyFact& fact = relation.facts[left.back()];
    left.pop_back();
    return fill_phrasing(*rng_.choose(phrasings), fact);
  }

 private:
  Rng& rng_;
  std::map<std::size_t, std::vector<std::size_t>> left_;
  std::map<std::size_t, bool> started_;
};

bool is_question(const std::string& phrasing) { return phrasing.starts_with("Question:"); }

// Paragraphs of facts of any kind.
std::string notes(Rng& rng, std::size_t bytes) {
  FactTeller teller(rng);
  std::string text;
  std::size_t sentences = 0;
  while (text.size() < bytes) {
    const std::string sentence = teller.tell_any();
    if (sentence.empty()) continue;
    if (!text.empty()) text += sentences++ % 6 == 5 ? "\n\n" : " ";
    text += sentence;
  }
  return text;
}

// Facts of one relation, a line each.
std::string fact_list(Rng& rng, std::size_t bytes) {
  FactTeller teller(rng);
  const std::vector<ToyRelation>& relations = toy_relations();
  std::size_t index = rng.below(relations.size());
  while (relations[index].facts.size() < 12) index = rng.below(relations.size());
  std::string text = fmt::format("Facts about {}", relations[index].topic);
  while (text.size() < bytes) {
    const std::string sentence = teller.tell(index, [](const std::string&) { return true; });
    if (sentence.empty()) break;
    text += "\n" + sentence;
  }
  return text;
}

// Questions of all kinds with their answers, a line each.
std::string questions(Rng& rng, std::size_t bytes) {
  FactTeller teller(rng);
  const std::size_t relations = toy_relations().size();
  std::string text = "Questions and answers";
  while (text.size() < bytes) {
    const std::string sentence = teller.tell(rng.below(relations), is_question);
    if (!sentence.empty()) text += "\n" + sentence;
  }
  return text;
}

std::string country_entry(Rng& rng, const ToyCountry& country) {
  const ToyRelation& capitals = toy_relations()[0];
  std::vector<std::string> sentences;
  sentences.push_back(rng.below(2) == 0 ? fmt::format("{} is a country in {}.", country.name, country.continent)
                                        : fmt::format("{} lies in {}.", country.name, country.continent));
  std::string told;
  do {
    told = rng.choose(capitals.told);
  } while (is_question(told));
  sentences.push_back(fill_phrasing(told, {country.name, country.capital, ""}));
  if (rng.below(3) > 0) {
    sentences.push_back(rng.below(2) == 0 ? fmt::format("People in {} speak {}.", country.name, country.language)
                                          : fmt::format("The language of {} is {}.", country.name, country.language));
  }
  if (rng.below(3) == 0) rng.shuffle(sentences);
  std::string text;
  for (const std::string& sentence : sentences) text += (text.empty() ? "" : " ") + sentence;
  return text;
}

std::string element_entry(Rng& rng, const ToyElement& element) {
  const ToyRelation& symbols = toy_relations()[1];
  std::string name = element.name;
  name[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(name[0])));
  std::string told;
  do {
    told = rng.choose(symbols.told);
  } while (is_question(told));
  std::string text = fmt::format("{} is {}. {}", name, element.kind, fill_phrasing(told, {element.name, element.symbol, ""}));
  if (rng.below(3) > 0) text += fmt::format(" {} {}.", name, element.use);
  return text;
}

// Entries of an encyclopaedia, a paragraph each.
std::string encyclopaedia(Rng& rng, std::size_t bytes) {
  const bool of_countries = rng.below(3) > 0;
  std::vector<std::size_t> order(of_countries ? toy_countries().size() : toy_elements().size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  rng.shuffle(order);
  std::string text;
  for (std::size_t i = 0; i < order.size() && text.size() < bytes; ++i) {
    if (!text.empty()) text += "\n\n";
    text += of_countries ? country_entry(rng, toy_countries()[order[i]]) : element_entry(rng, toy_elements()[order[i]]);
  }
  return text;
}

std::string stories(Rng& rng) {
  std::string text = toy_story(rng);
  if (rng.below(3) == 0 && text.size() < kMaxDocument / 3) text += "\n\n" + toy_story(rng);
  return text;
}

std::string document(Rng& rng) {
  const std::uint64_t kind = rng.below(100);
  const auto bytes = static_cast<std::size_t>(rng.between(500, 1600));
  if (kind < 34) return stories(rng);
  if (kind < 70) return notes(rng, bytes);
  if (kind < 80) return fact_list(rng, bytes);
  if (kind < 89) return questions(rng, bytes);
  return encyclopaedia(rng, bytes);
}

std::vector<std::string> answers_of(const ToyRelation& relation, const ToyFact& fact) {
  if (relation.topic == "planets" && fact.a.empty()) return {"Mercury, Venus, Earth, Mars"};
  return {fact.b};
}

}  // namespace

void generate_toy_corpus(const ToyOptions& options, const std::function<void(const std::string& document)>& sink) {
  std::int64_t written = 0;
  for (std::uint64_t index = 0; written < options.bytes; ++index) {
    Rng rng(derive_seed(options.seed, fmt::format("toy document {}", index)));
    std::string text = document(rng);
    while (text.size() < kMinDocument) text += "\n\n" + document(rng);
    written += static_cast<std::int64_t>(text.size());
    sink(text);
  }
}

std::vector<ToyPrompt> toy_test_prompts(std::size_t count, std::uint64_t seed) {
  std::map<std::string, std::vector<ToyPrompt>> by_topic;
  for (const ToyRelation& relation : toy_relations()) {
    for (const ToyFact& fact : relation.facts) {
      for (const std::string& phrasing : relation.held_out) {
        by_topic[relation.topic].push_back({fill_phrasing(phrasing, fact), answers_of(relation, fact), relation.topic});
      }
    }
  }
  Rng rng(derive_seed(seed, "toy test prompts"));
  for (auto& [topic, prompts] : by_topic) rng.shuffle(prompts);
  std::vector<ToyPrompt> chosen;
  for (bool any = true; any && chosen.size() < count;) {
    any = false;
    for (auto& [topic, prompts] : by_topic) {
      if (prompts.empty() || chosen.size() == count) continue;
      chosen.push_back(std::move(prompts.back()));
      prompts.pop_back();
      any = true;
    }
  }
  return chosen;
}

std::vector<ToyPrompt> toy_quickstart_prompts() {
  return {
      {"The capital of France is", {"Paris"}, "capitals"},
      {"The chemical symbol of gold is", {"Au"}, "symbols"},
      {"If yesterday was Friday, then tomorrow will be", {"Sunday"}, "days"},
      {"The opposite of hot is", {"cold"}, "opposites"},
      {"The planets of the solar system are:", {"Mercury, Venus, Earth, Mars"}, "planets"},
      {"Three plus four is", {"seven", "7"}, "arithmetic"},
      {"The month after March is", {"April"}, "months"},
  };
}

bool is_right_answer(const ToyPrompt& prompt, std::string_view continuation) {
  const std::size_t begin = continuation.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return false;
  continuation.remove_prefix(begin);
  const auto same = [&](char found, char wanted) {
    const auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
    return prompt.topic == "symbols" ? found == wanted : lower(found) == lower(wanted);
  };
  return std::any_of(prompt.answers.begin(), prompt.answers.end(), [&](const std::string& answer) {
    if (continuation.size() < answer.size()) return false;
    if (!std::equal(answer.begin(), answer.end(), continuation.begin(), same)) return false;
    return continuation.size() == answer.size() || std::isalnum(static_cast<unsigned char>(continuation[answer.size()])) == 0;
  });
}

}  // namespace nanochat
