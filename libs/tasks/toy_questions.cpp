// How people ask about the toy world. Every phrasing of `test` differs from those of `train` and from what the corpus tells.
#include "tasks/toy_tasks.h"

namespace nanochat {

const std::vector<ToyQuestions>& toy_questions() {
  static const std::vector<ToyQuestions> questions = {
      // capitals
      {{"What is the capital of {a}?", "Which city is the capital of {a}?", "Tell me the capital of {a}.",
        "What is {a}'s capital?", "Do you know the capital of {a}?", "Name the capital of {a}."},
       {"Can you tell me the capital of {a}?", "What is the capital city of {a}?", "Which city is {a}'s capital?"}},
      // symbols
      {{"What is the chemical symbol of {a}?", "Which symbol stands for {a}?", "Tell me the chemical symbol of {a}.",
        "What is the symbol of the element {a}?", "How is {a} written in chemistry?", "Do you know the symbol of {a}?"},
       {"Can you tell me the chemical symbol of {a}?", "What is the chemical symbol for {a}?",
        "Which chemical symbol does {a} have?"}},
      // planets by place
      {{"Which planet is the {a} from the sun?", "What is the {a} planet?", "Name the {a} planet from the sun.",
        "Tell me the {a} planet.", "Do you know the {a} planet of the solar system?"},
       {"Can you name the {a} planet?", "Which planet is the {a} planet of the solar system?",
        "What is the {a} planet from the sun?"}},
      // planets by neighbour
      {{"Which planet comes {c} {a}?", "What is the planet {c} {a}?", "Name the planet {c} {a}.",
        "Tell me which planet is {c} {a}.", "Do you know the planet {c} {a}?"},
       {"Which planet comes right {c} {a}?", "Can you name the planet {c} {a}?"}},
      // all planets
      {{"What are the planets of the solar system?", "Name the planets.", "Tell me the names of the planets.",
        "Which planets are there?", "Do you know the planets of the solar system?"},
       {"What are the names of the planets?", "Can you name the planets of the solar system?"}},
      // opposites
      {{"What is the opposite of {a}?", "Which word means the opposite of {a}?", "Tell me the opposite of {a}.",
        "What is the opposite of the word {a}?", "Do you know the opposite of {a}?",
        "Name a word that is the opposite of {a}."},
       {"Can you tell me the opposite of {a}?", "Which word is the opposite of {a}?", "Name the opposite of {a}."}},
      // days: two on
      {{"Yesterday was {a}. What will tomorrow be?", "If yesterday was {a}, what will tomorrow be?",
        "What will tomorrow be if yesterday was {a}?", "Tell me what tomorrow will be if yesterday was {a}."},
       {"When yesterday was {a}, what will tomorrow be?", "If yesterday was {a}, which day will tomorrow be?"}},
      // days: the next
      {{"Today is {a}. What will tomorrow be?", "If today is {a}, what will tomorrow be?",
        "What will tomorrow be if today is {a}?", "Which day comes after {a}?", "What is the day after {a}?"},
       {"When today is {a}, what will tomorrow be?", "If today is {a}, which day will tomorrow be?"}},
      // days: the one before
      {{"Today is {a}. What was yesterday?", "If today is {a}, what was yesterday?", "What was yesterday if today is {a}?",
        "Which day comes before {a}?", "What is the day before {a}?"},
       {"When today is {a}, what was yesterday?", "If today is {a}, which day was yesterday?"}},
      // days: from yesterday to today
      {{"Yesterday was {a}. What is today?", "If yesterday was {a}, what is today?", "What is today if yesterday was {a}?"},
       {"When yesterday was {a}, what is today?", "If yesterday was {a}, which day is today?"}},
      // months
      {{"Which month comes {c} {a}?", "What is the month {c} {a}?", "Tell me the month {c} {a}.",
        "Name the month that comes {c} {a}.", "Do you know the month {c} {a}?"},
       {"Which month comes right {c} {a}?", "Can you tell me the month {c} {a}?"}},
      {{}, {}},  // sums in words
      {{}, {}},  // sums in digits
      {{}, {}},  // differences
      // spelling
      {{"Spell the word {a}.", "How do you spell {a}?", "How is {a} spelled?", "Spell {a}.", "Tell me how to spell {a}.",
        "What are the letters of {a}?"},
       {"Can you spell {a}?", "How do you spell the word {a}?", "Tell me the letters of the word {a}."}},
      // first letters
      {{"What is the first letter of {a}?", "Which letter does {a} begin with?", "Tell me the first letter of {a}.",
        "Name the first letter of {a}."},
       {"What is the first letter of the word {a}?", "Can you tell me the first letter of {a}?"}},
  };
  return questions;
}

}  // namespace nanochat
