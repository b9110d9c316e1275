#pragma once
// A generated corpus that makes a model of 3 M parameters visibly learn in minutes on two cores: short stories and
// encyclopaedia-like facts. Each fact is told in several phrasings; some phrasings are never written to the training
// text and serve as test prompts.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace nanochat {

struct ToyOptions {
  std::int64_t bytes = 8'000'000;  // at least this much text
  std::uint64_t seed = 42;
};

// Calls `sink` with each document. Deterministic in (bytes, seed); a larger corpus begins with the smaller one.
void generate_toy_corpus(const ToyOptions& options, const std::function<void(const std::string& document)>& sink);

struct ToyPrompt {
  std::string prompt;                // "The capital of France is"
  std::vector<std::string> answers;  // any of these at the start of the continuation is right (after spaces)
  std::string topic;                 // capitals, symbols, planets, opposites, days, months, arithmetic, spelling
};

// `count` prompts in phrasings that generate_toy_corpus never writes.
std::vector<ToyPrompt> toy_test_prompts(std::size_t count, std::uint64_t seed);
// The fixed prompts of the quickstart.
std::vector<ToyPrompt> toy_quickstart_prompts();

}  // namespace nanochat
