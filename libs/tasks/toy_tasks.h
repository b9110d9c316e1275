#pragma once
// The toy world (data/toy/toy.h) as tasks: questions about what its corpus tells, arithmetic through the calculator, spelling.
// Tests ask in phrasings that no training conversation has; of arithmetic, with numbers that none has together.
//
// A question about a fact is answered with a whole sentence that the corpus has too. The model
// need not learn the answers again, only that it is asked. Deterministic in the options.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tasks/spelling.h"
#include "tasks/task.h"

namespace nanochat {

struct ToyTaskOptions {
  TaskSplit split = TaskSplit::kTrain;
  std::int64_t size = 0;  // conversations; 0: a default, below
  std::uint64_t seed = 42;
};

// Capitals, symbols, planets, opposites, days, months, first letters. To train on: conversations of one to three questions,
// some with a greeting or thanks, 3,000 by default, each question in each phrasing before any comes again. To test: single
// questions, 240 by default, evenly over the topics, kStated; a size beyond all there are gives all.
std::shared_ptr<const Task> toy_facts(const ToyTaskOptions& options);
// "What is 23 + 48?": sums and differences of numbers below 100, products of numbers up to 12. kExact; 2,000 and 200.
std::shared_ptr<const Task> toy_arithmetic(const ToyTaskOptions& options);
// "Spell the word moon." -> "The word moon is spelled m, o, o, n.": words of the toy world. kExact; 1,500 and 200.
std::shared_ptr<const Task> toy_spelling(const ToyTaskOptions& options);

// What may be asked about one relation of toy_facts.h, in the order of toy_relations().
struct ToyQuestions {
  std::vector<std::string> train, test;  // phrasings: {a}, {c} as there; without {b}
};
const std::vector<ToyQuestions>& toy_questions();  // empty lists where a relation is for another task

}  // namespace nanochat
