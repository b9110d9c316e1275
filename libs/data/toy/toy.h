#pragma once
// A generated corpus that makes a model of 3 M parameters visibly learn in minutes on two cores: short stories and
// encyclopaedia-like facts. Each fact is told in several phrasings; some phrasings are never written to the training
// text and serve as test prompts. Facts are in toy_facts.h, stories in toy_stories.h. Thread-safe.

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

// Calls `sink` with each document, of 300 to 2,500 bytes. Deterministic in (bytes, seed); a larger corpus begins with
// the smaller one.
void generate_toy_corpus(const ToyOptions& options, const std::function<void(const std::string& document)>& sink);

struct ToyPrompt {
  std::string prompt;                // "The capital of France is"; the answer follows after a space
  std::vector<std::string> answers;  // any of these at the start of the continuation is right, see is_right_answer
  std::string topic;                 // capitals, symbols, planets, opposites, days, months, arithmetic, spelling
};

// `count` prompts, as evenly over the topics as their facts allow, in phrasings that generate_toy_corpus never writes;
// fewer when there are not so many. Deterministic in (count, seed).
std::vector<ToyPrompt> toy_test_prompts(std::size_t count, std::uint64_t seed);
// The fixed prompts of the quickstart.
std::vector<ToyPrompt> toy_quickstart_prompts();

// Whether `continuation` begins, after white space, with an answer that does not go on as a longer word or number
// ("seventeen" is not "seven"). Case does not matter, save where the answer is a chemical symbol.
bool is_right_answer(const ToyPrompt& prompt, std::string_view continuation);

}  // namespace nanochat
