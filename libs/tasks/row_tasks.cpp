#include "tasks/row_tasks.h"

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/log.h"
#include "data/conversations/conversations.h"
#include "data/rows/rows.h"
#include "tasks/answers.h"
#include "tasks/example_list.h"

namespace nanochat {
namespace {

using nlohmann::json;

const json& member(const json& row, const char* key) {
  if (!row.is_object()) throw DataError(fmt::format("found JSON {}, expected an object", row.type_name()));
  const auto found = row.find(key);
  if (found == row.end()) throw DataError(fmt::format("the row has no \"{}\"", key));
  return *found;
}

std::string text(const json& row, const char* key) {
  const json& value = member(row, key);
  if (!value.is_string()) {
    throw DataError(fmt::format("\"{}\" is JSON {}, expected a string", key, value.type_name()));
  }
  return value.get<std::string>();
}

std::vector<std::string> texts(const json& row, const char* key) {
  const json& value = member(row, key);
  const auto is_string = [](const json& item) { return item.is_string(); };
  if (!value.is_array() || !std::all_of(value.begin(), value.end(), is_string)) {
    throw DataError(fmt::format("\"{}\" is no list of strings", key));
  }
  return value.get<std::vector<std::string>>();
}

TaskExample multiple_choice(const std::string& question, std::vector<std::string> letters,
                            const std::vector<std::string>& choices, const std::string& answer) {
  TaskExample example;
  example.conversation.messages = {{"user", multiple_choice_question(question, letters, choices)}, {"assistant", answer}};
  example.letters = std::move(letters);
  example.rule = AnswerRule::kLetter;
  example.answers = {answer};
  return example;
}

std::vector<TaskExample> conversation_examples(const std::vector<std::filesystem::path>& files, bool skip_bad,
                                               const std::string& name) {
  ConversationReader reader(files, {.skip_bad = skip_bad});
  std::vector<TaskExample> examples;
  for (Conversation conversation; reader.next(conversation);) {
    examples.emplace_back().conversation = std::move(conversation);
  }
  log_report(reader.report(), name);
  return examples;
}

using Converter = TaskExample (*)(const json& row);

std::vector<TaskExample> row_examples(const std::vector<std::filesystem::path>& files, Converter convert, bool skip_bad,
                                      const std::string& name) {
  std::vector<TaskExample> examples;
  std::uint64_t rows = 0;
  std::string first_bad;
  for (const std::filesystem::path& file : files) {
    const auto reader = open_rows(file);
    for (Row row; reader->next(row);) {
      ++rows;
      try {
        if (!row.fault.empty()) throw DataError(row.fault);
        examples.push_back(convert(row.value));
      } catch (const DataError& error) {
        const std::string what = fmt::format("{}: {}", row.where, error.what());
        if (!skip_bad) throw DataError(what);
        if (first_bad.empty()) first_bad = what;
      }
    }
  }
  if (examples.empty()) {
    throw DataError(fmt::format("no example of {} in {}{}", name, files.empty() ? "an empty list of files" : files[0].string(),
                                first_bad.empty() ? "" : "; " + first_bad));
  }
  if (!first_bad.empty()) log_warn("{}: {} of {} rows skipped, the first: {}", name, rows - examples.size(), rows, first_bad);
  return examples;
}

}  // namespace

std::string multiple_choice_question(const std::string& question, const std::vector<std::string>& letters,
                                     const std::vector<std::string>& choices) {
  std::string query = fmt::format("Multiple Choice question: {}\n", question);
  for (std::size_t i = 0; i < std::min(letters.size(), choices.size()); ++i) {
    query += fmt::format("- {}={}\n", choices[i], letters[i]);  // no space before a letter: the answer is the same token
  }
  return query + "\nRespond only with the letter of the correct answer.";
}

std::vector<MessagePart> calculator_parts(const std::string& answer) {
  std::vector<MessagePart> parts;
  std::size_t text_begin = 0;
  const auto flush_text = [&](std::size_t end) {
    if (end > text_begin) parts.push_back({PartType::kText, answer.substr(text_begin, end - text_begin)});
  };
  for (std::size_t at = 0; (at = answer.find("<<", at)) != std::string::npos;) {
    // A call is << >> with at least one character between them, none of them '>'.
    const std::size_t close = answer.find('>', at + 2);
    if (close == std::string::npos) break;
    if (close == at + 2 || close + 1 == answer.size() || answer[close + 1] != '>') {
      ++at;
      continue;
    }
    flush_text(at);
    const std::string inner = answer.substr(at + 2, close - at - 2);
    const std::size_t equals = inner.rfind('=');
    parts.push_back({PartType::kPython, inner.substr(0, equals)});
    parts.push_back({PartType::kPythonOutput, equals == std::string::npos ? "" : inner.substr(equals + 1)});
    at = text_begin = close + 2;
  }
  flush_text(answer.size());
  return parts;
}

TaskExample gsm8k_example(const json& row) {
  const std::string answer = text(row, "answer");
  const auto number = final_number(answer);
  if (!number) throw DataError("\"answer\" has no number behind \"#### \"");
  TaskExample example;
  example.conversation.messages.emplace_back("user", text(row, "question"));
  example.conversation.messages.emplace_back("assistant", calculator_parts(answer));
  example.rule = AnswerRule::kFinalNumber;
  example.answers = {*number};
  return example;
}

TaskExample mmlu_example(const json& row) {
  if (row.is_object() && row.contains("train")) return mmlu_example(row.at("train"));  // as auxiliary_train wraps it
  const std::vector<std::string> letters = {"A", "B", "C", "D"};
  const std::vector<std::string> choices = texts(row, "choices");
  if (choices.size() != letters.size()) {
    throw DataError(fmt::format("\"choices\" has {} entries, expected 4", choices.size()));
  }
  const json& answer = member(row, "answer");
  if (!answer.is_number_integer() || answer.get<std::int64_t>() < 0 || answer.get<std::int64_t>() > 3) {
    throw DataError(fmt::format("\"answer\" is {}, expected 0, 1, 2 or 3", answer.dump()));
  }
  TaskExample example = multiple_choice(text(row, "question"), letters, choices, letters[answer.get<std::size_t>()]);
  example.group = text(row, "subject");
  return example;
}

TaskExample arc_example(const json& row) {
  const json& choices = member(row, "choices");
  const std::vector<std::string> labels = texts(choices, "label"), choice_texts = texts(choices, "text");
  const std::string answer = text(row, "answerKey");
  if (labels.size() != choice_texts.size()) throw DataError("\"choices\" has not as many labels as texts");
  if (std::find(labels.begin(), labels.end(), answer) == labels.end()) {
    throw DataError(fmt::format("\"answerKey\" is \"{}\", which is none of the labels", answer));
  }
  return multiple_choice(text(row, "question"), labels, choice_texts, answer);
}

TaskExample humaneval_example(const json& row) {
  const std::string prompt = text(row, "prompt");
  TaskExample example;
  example.conversation.messages = {{"user", prompt}, {"assistant", prompt + "\n" + text(row, "canonical_solution")}};
  example.rule = AnswerRule::kProgram;
  example.test = text(row, "test");
  example.entry_point = text(row, "entry_point");
  return example;
}

std::shared_ptr<const Task> load_row_task(RowTask kind, std::string name, const std::vector<std::filesystem::path>& files,
                                          bool skip_bad) {
  if (kind == RowTask::kConversations) {
    std::vector<TaskExample> examples = conversation_examples(files, skip_bad, name);
    return std::make_shared<ExampleList>(std::move(name), TaskKind::kConversation, std::move(examples));
  }
  const Converter convert = kind == RowTask::kGsm8k  ? gsm8k_example
                            : kind == RowTask::kMmlu ? mmlu_example
                            : kind == RowTask::kArc  ? arc_example
                                                     : humaneval_example;
  const bool categorical = kind == RowTask::kMmlu || kind == RowTask::kArc;
  std::vector<TaskExample> examples = row_examples(files, convert, skip_bad, name);
  return std::make_shared<ExampleList>(std::move(name), categorical ? TaskKind::kCategorical : TaskKind::kGenerative,
                                       std::move(examples));
}

}  // namespace nanochat
