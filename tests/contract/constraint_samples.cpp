// Random answers under constraints, for schemas_contract.py: reads one request per line, writes one answer per line.
//   {"form": "schema", "value": {"type": "integer"}, "n": 20, "seed": 1}  ->  {"answers": ["7", ...], "milliseconds": 0.4}
//   a value that is not supported                                         ->  {"error": "..."}
// Forms: schema, regex, choice, grammar. The vocabulary has every byte and pieces that cross the borders of JSON's parts; with
// a number as argument, so many tokens with words. "milliseconds" is the time of the first use, up to the first token;
// "mask_microseconds" the time for a token in the last of the n answers.
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/elapsed.h"
#include "core/errors.h"
#include "core/random.h"
#include "inference/answer_constraint.h"
#include "inference/testing_vocabulary.h"

namespace {

using nanochat::AnswerForm;
using Json = nlohmann::ordered_json;

AnswerForm form_of(const std::string& name) {
  if (name == "schema") return AnswerForm::kJsonSchema;
  if (name == "regex") return AnswerForm::kRegex;
  return name == "choice" ? AnswerForm::kChoice : AnswerForm::kGrammar;
}

struct MaskTime {
  double seconds = 0;
  std::int64_t masks = 0;
};

std::string draw(nanochat::TokenConstraint& constraint, const std::vector<std::string>& tokens, nanochat::Rng& rng,
                 MaskTime& time) {
  std::string text;
  for (std::int64_t room = constraint.closing_length() + static_cast<std::int64_t>(rng.below(80)); room > 0; --room) {
    if (constraint.must_end() || (constraint.may_end() && rng.below(4) == 0)) break;
    const auto begin = nanochat::SteadyClock::now();
    const auto allowed = constraint.allowed(room);
    time.seconds += nanochat::seconds_since(begin);
    ++time.masks;
    const std::vector<std::int32_t> choices = nanochat::testing::allowed_ids(allowed, tokens.size());
    if (choices.empty()) break;
    const std::int32_t token = rng.choose(choices);
    constraint.accept(token);
    text += tokens[static_cast<std::size_t>(token)];
  }
  if (!constraint.may_end()) throw std::runtime_error("the answer did not end in time: " + text);
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> tokens = nanochat::testing::make_vocabulary(argc > 1 ? std::stoul(argv[1]) : 0);
  const auto trie = nanochat::testing::trie_of(tokens);
  try {
    for (std::string line; std::getline(std::cin, line);) {
      const Json request = Json::parse(line);
      Json answer;
      try {
        nanochat::Rng rng(request.value("seed", std::uint64_t{1}));
        const auto begin = nanochat::SteadyClock::now();
        const auto first = nanochat::answer_constraint(form_of(request.at("form")), request.at("value"), trie);
        first->clone()->allowed(1 << 20);
        answer["milliseconds"] = nanochat::seconds_since(begin) * 1e3;
        answer["answers"] = Json::array();
        MaskTime time;
        for (int i = 0; i < request.value("n", 1); ++i) {
          time = {};
          answer["answers"].push_back(draw(*first->clone(), tokens, rng, time));
        }
        answer["mask_microseconds"] = time.masks == 0 ? 0 : time.seconds * 1e6 / static_cast<double>(time.masks);
      } catch (const nanochat::ConfigError& error) {
        answer = {{"error", error.what()}};
      }
      std::puts(answer.dump().c_str());
      std::fflush(stdout);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
}
