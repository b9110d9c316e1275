#pragma once
// Generates a toy corpus of short stories and encyclopaedic facts. A model of 3 M parameters learns it in minutes on two cores.
// Each fact has several phrasings. Some phrasings never occur in the training text and serve as test prompts. Facts are in
// toy_facts.h, stories in toy_stories.h. Thread-safe.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

struct ToyOptions {
  std::int64_t bytes = 8'000'000;  // at least this much text
  std::uint64_t seed = 42;
};

// Calls `sink` with each document of 300 to 2,500 bytes. The result depends only on bytes and seed. A larger corpus begins with
// the documents of a smaller one.
void generate_toy_corpus(const ToyOptions& options, const std::function<void(const std::string& document)>& sink);

struct ToyPrompt {
  std::string prompt;  // "The capital of France is"; the answer follows after a space
  std::vector<std::string> answers;  // the continuation is correct if it begins with one of these; see is_right_answer
  std::string topic;  // capitals, symbols, planets, opposites, days, months, arithmetic, spelling
};

// Up to `count` prompts in phrasings that generate_toy_corpus never writes, distributed evenly over the topics as far as they
// have facts. The result depends only on count and seed.
std::vector<ToyPrompt> toy_test_prompts(std::size_t count, std::uint64_t seed);
// The fixed prompts of the quickstart.
std::vector<ToyPrompt> toy_quickstart_prompts();

// True if `continuation`, after white space, begins with one of the answers as a whole word or number ("seventeen" is not
// "seven"). Upper and lower case are equal, except in chemical symbols.
bool is_right_answer(const ToyPrompt& prompt, std::string_view continuation);

}  // namespace nanochat
