#include "tasks/spelling.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>
#include <utility>

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "core/errors.h"
#include "core/format.h"
#include "core/random.h"
#include "data/rows/byte_source.h"

namespace nanochat {
namespace {

constexpr std::uint64_t kTestSeeds = 10'000'000;  // the reference's TEST_RANDOM_SEED_OFFSET
constexpr std::uint64_t kWordOrderSeed = 42;
constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz";

// {l}: the letter, {w}: the word. As many as the reference has, so that the draws that follow are the same.
constexpr std::array<std::string_view, 51> kQuestions = {
    "How many {l} does the word {w} have",
    "How many {l} are there in {w}",
    "Count the {l} in the word {w}",
    "How often does {l} occur in {w}",
    "How often is {l} in {w}",
    "In {w}, how many {l} are there",
    "How many times do you see the letter {l} in {w}",
    "Count how often {l} is in {w}",
    "Say how many {l} are in {w}",
    "How many letters {l} does {w} contain",
    "Give the number of {l} in {w}",
    "Please count the letter {l} in {w}",
    "How frequent is {l} in {w}",
    "How many {l}s does {w} have",
    "How many {l}'s are there in {w}",
    "Count every {l} in {w}",
    "How many times can you find {l} in {w}",
    "The number of {l} in {w}",
    "The count of {l} in {w}",
    "{w} contains how many {l}",
    "{w} has how many letters {l}",
    "What is the number of {l} in {w}",
    "Of the letters of {w}, how many are {l}",
    "In the word {w}, count the letter {l}",
    "How many {l} can you count in {w}",
    "Find all {l} in {w}",
    "Tell me how often {l} is in {w}",
    "How many of the letters in {w} are {l}",
    "I want to know how many {l} are in {w}",
    "Work out how many {l} {w} has",
    "¿Cuántas {l} tiene {w}?",
    "¿Cuántas veces está {l} en {w}?",
    "Cuenta la letra {l} en {w}",
    "¿Qué número de {l} hay en {w}?",
    "{w}有几个{l}",
    "{w}中{l}出现几次",
    "请数{w}里的{l}",
    "单词{w}有多少个{l}",
    "{w}에는 {l}가 몇 개입니까",
    "{w}의 {l}를 세어 주세요",
    "{w} 안의 {l} 개수",
    "단어 {w}에 {l}는 몇 번",
    "Combien y a-t-il de {l} dans {w}",
    "Combien de fois trouve-t-on {l} dans {w}",
    "Compte la lettre {l} dans {w}",
    "Wie viele {l} hat {w}",
    "Wie oft steht {l} in {w}",
    "Wie viele {l} gibt es in {w}",
    "{w}には{l}が何個ある",
    "{w}の{l}を数えて",
    "{w}で{l}は何回",
};

std::vector<std::string> characters(std::string_view word) {
  std::vector<std::string> all;
  for (const char c : word) {
    if (all.empty() || (static_cast<unsigned char>(c) & 0xc0) != 0x80) all.emplace_back();
    all.back() += c;
  }
  return all;
}

std::string filled(std::string question, const std::string& letter, const std::string& word) {
  std::string text;
  for (std::size_t i = 0; i < question.size(); ++i) {
    if (question[i] != '{') {
      text += question[i];
      continue;
    }
    text += question[i + 1] == 'l' ? letter : word;
    i += 2;
  }
  return text;
}

std::string in_lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return static_cast<unsigned char>(c) < 0x80 ? static_cast<char>(std::tolower(static_cast<unsigned char>(c))) : c;
  });
  return text;
}

template <typename Items>
auto choose(PythonRandom& random, const Items& items) {
  return items[static_cast<std::size_t>(random.randbelow(items.size()))];
}

class WordTask : public Task {
 public:
  WordTask(std::string name, std::vector<std::string> words, std::int64_t size, TaskSplit split)
      : words_(std::move(words)), name_(std::move(name)), size_(size), split_(split) {
    if (words_.empty()) throw ConfigError(name_ + ": no words");
    if (size_ < 1) throw ConfigError(fmt::format("{}: size is {}, expected at least 1", name_, size_));
  }
  const std::string& name() const override { return name_; }
  TaskKind kind() const override { return TaskKind::kGenerative; }
  std::int64_t size() const override { return size_; }

 protected:
  PythonRandom random_of(std::int64_t index) const {
    return PythonRandom(static_cast<std::uint64_t>(index) + (split_ == TaskSplit::kTest ? kTestSeeds : 0));
  }
  std::vector<std::string> words_;

 private:
  std::string name_;
  std::int64_t size_;
  TaskSplit split_;
};

class SimpleSpelling final : public WordTask {
 public:
  SimpleSpelling(std::vector<std::string> words, std::int64_t size, TaskSplit split)
      : WordTask("spelling", std::move(words), size, split) {
    PythonRandom(kWordOrderSeed).shuffle(words_);
  }
  TaskExample example(std::int64_t index) const override {
    PythonRandom random = random_of(index);
    const std::string word = choose(random, words_);
    TaskExample example;
    example.rule = AnswerRule::kExact;
    example.answers = {fmt::format("{}:{}", word, fmt::join(characters(word), ","))};
    example.conversation.messages = {{"user", "Spell the word: " + word}, {"assistant", example.answers[0]}};
    return example;
  }
};

class SpellingBee final : public WordTask {
 public:
  SpellingBee(std::vector<std::string> words, std::int64_t size, TaskSplit split)
      : WordTask("spelling-bee", std::move(words), size, split) {}
  TaskExample example(std::int64_t index) const override {
    PythonRandom random = random_of(index);
    const std::string word = choose(random, words_);
    const std::vector<std::string> letters = characters(word);
    const std::string letter = random.random() < 0.9 ? choose(random, letters) : std::string(1, choose(random, kLetters));
    const std::string question = ask(random, word, letter);
    const auto count = std::count(letters.begin(), letters.end(), letter);
    TaskExample example;
    example.rule = AnswerRule::kFinalNumber;
    example.answers = {std::to_string(count)};
    example.conversation.messages.emplace_back("user", question);
    example.conversation.messages.emplace_back(
        "assistant", std::vector<MessagePart>{
                         {PartType::kText, by_hand(word, letters, letter)},
                         {PartType::kText, "\n\nPython can check this:\n\n"},
                         {PartType::kPython, fmt::format("{0}{1}{0}.count('{2}')",
                                                         word.find('\'') == std::string::npos ? '\'' : '"', word, letter)},
                         {PartType::kPythonOutput, example.answers[0]},
                         {PartType::kText, fmt::format("\n\nPython also finds {0}, so the answer is:\n\n#### {0}", count)}});
    return example;
  }

 private:
  // People quote or do not, and often forget the shift key and the question mark.
  static std::string ask(PythonRandom& random, const std::string& word, const std::string& letter) {
    constexpr std::array<std::string_view, 3> kQuotes = {"", "'", "\""};
    std::string question(choose(random, kQuestions));
    if (random.random() < 0.3) question = in_lower_case(std::move(question));
    const std::string_view letter_quote = choose(random, kQuotes);
    const std::string_view word_quote = choose(random, kQuotes);
    question = filled(std::move(question), fmt::format("{0}{1}{0}", letter_quote, letter),
                      fmt::format("{0}{1}{0}", word_quote, word));
    if (random.random() < 0.5) question += "?";
    return question;
  }

  static std::string by_hand(const std::string& word, const std::vector<std::string>& letters, const std::string& letter) {
    std::string text = fmt::format(
        "To count '{}' in '{}', I go through it letter by letter.\n\nSpelled out:\n{}:{}\n\nOne at a time:\n", letter, word,
        word, fmt::join(letters, ","));
    int count = 0;
    for (std::size_t i = 0; i < letters.size(); ++i) {
      text += fmt::format("{}:{}", i + 1, letters[i]);  // no space before a letter: another token
      if (letters[i] == letter) text += fmt::format(" found, {} so far", ++count);
      text += '\n';
    }
    return text + fmt::format("\nBy hand that is {}.", count);
  }
};

}  // namespace

std::vector<std::string> read_words(const std::filesystem::path& file) {
  constexpr std::size_t kLongest = 1 << 16;
  LineReader lines(open_bytes(file));
  std::vector<std::string> words;
  for (std::string line; lines.next(line, kLongest);) {
    const std::size_t begin = line.find_first_not_of(" \t\r");
    if (begin == std::string::npos) continue;
    if (!is_valid_utf8(line)) throw DataError(fmt::format("{}:{}: is not UTF-8", file.string(), lines.line_number()));
    words.push_back(line.substr(begin, line.find_last_not_of(" \t\r") - begin + 1));
  }
  if (words.empty()) throw DataError(fmt::format("{}: holds no word, expected one word per line", file.string()));
  return words;
}

std::shared_ptr<const Task> simple_spelling(std::vector<std::string> words, std::int64_t size, TaskSplit split) {
  return std::make_shared<SimpleSpelling>(std::move(words), size, split);
}

std::shared_ptr<const Task> spelling_bee(std::vector<std::string> words, std::int64_t size, TaskSplit split) {
  return std::make_shared<SpellingBee>(std::move(words), size, split);
}

}  // namespace nanochat
