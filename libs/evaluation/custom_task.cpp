#include <set>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/json_input.h"
#include "core/json_message.h"
#include "core/options.h"
#include "data/rows/byte_source.h"
#include "evaluation/chat_tasks.h"
#include "tasks/example_list.h"
#include "tasks/row_tasks.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

// Everything a description may say. Which keys a form needs is checked as it is read.
struct Description {
  std::string name, form, data, query, choices, gold, contexts, continuation, context, prompt, answer;
  std::string delimiter = " ", metric = "exact", group;
  std::int64_t num_fewshot = 0;
  double random_baseline = 0.0;
};

void declare(OptionList& options, Description& d) {
  options.add("name", d.name, "Name of the task in tables.");
  options.add("form", d.form, "How the task is scored; see docs/evaluation.md.")
      .one_of({"multiple_choice", "schema", "language_modeling", "categorical", "generative"});
  options.add("data", d.data, "Path of the .jsonl file with the rows, relative to the JSON file.");
  options.add("query", d.query, "Template of the question; {key} inserts a value of the row.");
  options.add("choices", d.choices, "Key of a row that holds a list of strings.");
  options.add("gold", d.gold, "Key of a row that holds the index of the correct choice, from 0.");
  options.add("contexts", d.contexts, "Key of a row that holds a list of strings.");
  options.add("continuation", d.continuation, "Template of the text that is scored.");
  options.add("context", d.context, "Template of the text before it.");
  options.add("prompt", d.prompt, "Template of the user's message.");
  options.add("answer", d.answer, "Template of the correct answer.");
  options.add("delimiter", d.delimiter, "Text between question and answer in the prompt of a base model.");
  options.add("metric", d.metric, "How an answer is compared with the correct one.")
      .one_of({"final_number", "exact", "stated"});
  options.add("group", d.group, "Key of a row whose values group the results.");
  options.add("num_fewshot", d.num_fewshot, "Number of other rows to show as examples before each question.").at_least(0);
  options.add("random_baseline", d.random_baseline, "Accuracy of random guessing.").at_least(0).at_most(0.999);
}

class CustomTaskReader {
 public:
  explicit CustomTaskReader(const fs::path& file) : file_(file) {
    OptionList options;
    declare(options, d_);
    options.apply_file(file);
    for (const char* key : {"name", "form", "data"}) require(options, key);
    static const std::map<std::string, std::vector<const char*>> needed = {{"multiple_choice", {"query", "choices", "gold"}},
                                                                           {"schema", {"contexts", "continuation", "gold"}},
                                                                           {"language_modeling", {"context", "continuation"}},
                                                                           {"categorical", {"prompt", "choices", "gold"}},
                                                                           {"generative", {"prompt", "answer"}}};
    for (const char* key : needed.at(d_.form)) require(options, key);
  }

  CustomTask read() {
    CustomTask task;
    task.name = d_.name;
    const fs::path data = fs::path(d_.data).is_absolute() ? fs::path(d_.data) : file_.parent_path() / d_.data;
    LineReader lines(open_bytes(data));
    std::vector<TaskExample> examples;
    for (std::string line; lines.next(line, std::size_t{64} << 20);) {
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      where_ = fmt::format("{}:{}", data.string(), lines.line_number());
      try {
        nlohmann::json row;
        JsonFault fault;
        if (!parse_json_input(line, row, fault)) throw DataError(fault.what);
        if (!row.is_object()) throw DataError(fmt::format("found {}, expected a JSON object", line.substr(0, 60)));
        d_.prompt.empty() ? task.rows.push_back(base_row(row)) : examples.push_back(chat_example(row));
      } catch (const DataError& error) {
        throw DataError(fmt::format("task {}: {}: {}", d_.name, where_, error.what()));
      }
    }
    if (task.rows.empty() && examples.empty()) throw DataError(fmt::format("task {}: {}: no rows", d_.name, data.string()));
    if (!d_.prompt.empty()) {
      const TaskKind kind = d_.form == "categorical" ? TaskKind::kCategorical : TaskKind::kGenerative;
      task.chat = std::make_shared<ExampleList>(d_.name, kind, std::move(examples));
      return task;
    }
    task.base.label = d_.name;
    task.base.file = data;
    task.base.num_fewshot = d_.num_fewshot;
    task.base.type = d_.form == "schema"            ? CoreTaskType::kSchema
                     : d_.form == "multiple_choice" ? CoreTaskType::kMultipleChoice
                                                    : CoreTaskType::kLanguageModeling;
    task.base.continuation_delimiter = d_.delimiter;
    task.base.random_baseline = d_.random_baseline;
    if (static_cast<std::int64_t>(task.rows.size()) <= d_.num_fewshot) {
      throw DataError(fmt::format("task {}: found {} rows, expected more, to show {} of them before each question", d_.name,
                                  task.rows.size(), d_.num_fewshot));
    }
    return task;
  }

 private:
  void require(OptionList& options, const char* key) const {
    if (options.find(key)->value().get<std::string>().empty()) {
      throw ConfigError(fmt::format("{}: \"{}\" is missing{}", file_.string(), key,
                                    d_.form.empty() ? "" : fmt::format("; the form {} requires it", d_.form)));
    }
  }

  static std::vector<std::string> list(const nlohmann::json& row, const std::string& key) {
    const auto found = row.find(key);
    if (found == row.end() || !found->is_array() || found->empty() ||
        !std::all_of(found->begin(), found->end(), [](const nlohmann::json& item) { return item.is_string(); })) {
      throw DataError(fmt::format("\"{}\": found {}, expected a list of strings", key,
                                  found == row.end() ? "nothing" : shown_json(*found)));
    }
    return found->get<std::vector<std::string>>();
  }

  std::size_t gold(const nlohmann::json& row, std::size_t count) const {
    const auto found = row.find(d_.gold);
    if (found == row.end()) throw DataError(fmt::format("the row has no \"{}\"", d_.gold));
    if (!found->is_number_integer() || found->get<std::int64_t>() < 0 ||
        found->get<std::int64_t>() >= static_cast<std::int64_t>(count)) {
      throw DataError(fmt::format("\"{}\": found {}, expected an index from 0 to {}", d_.gold, shown_json(*found), count - 1));
    }
    return found->get<std::size_t>();
  }

  CoreRow base_row(const nlohmann::json& row) const {
    CoreRow result;
    if (d_.form == "multiple_choice") {
      result.context = fill_template(d_.query, row);
      result.options = list(row, d_.choices);
    } else if (d_.form == "schema") {
      result.options = list(row, d_.contexts);
      result.continuation = fill_template(d_.continuation, row);
    } else {
      result.context = fill_template(d_.context, row);
      result.continuation = fill_template(d_.continuation, row);
      return result;
    }
    result.gold = gold(row, result.options.size());
    return result;
  }

  TaskExample chat_example(const nlohmann::json& row) const {
    TaskExample example;
    std::string prompt = fill_template(d_.prompt, row), answer;
    if (d_.form == "categorical") {
      const std::vector<std::string> choices = list(row, d_.choices);
      if (choices.size() > 26)
        throw DataError(fmt::format("found {} choices, expected at most 26, one for each letter", choices.size()));
      for (std::size_t i = 0; i < choices.size(); ++i) example.letters.emplace_back(1, static_cast<char>('A' + i));
      prompt = multiple_choice_question(prompt, example.letters, choices);
      answer = example.letters[gold(row, choices.size())];
      example.rule = AnswerRule::kLetter;
    } else {
      answer = fill_template(d_.answer, row);
      example.rule = d_.metric == "final_number" ? AnswerRule::kFinalNumber
                     : d_.metric == "stated"     ? AnswerRule::kStated
                                                 : AnswerRule::kExact;
    }
    example.conversation.messages = {{"user", prompt}, {"assistant", answer}};
    example.answers = {answer};
    if (!d_.group.empty()) example.group = fill_template("{" + d_.group + "}", row);
    return example;
  }

  const fs::path& file_;
  Description d_;
  std::string where_;
};

}  // namespace

std::string fill_template(const std::string& text, const nlohmann::json& row) {
  std::string filled;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool brace = text[i] == '{' || text[i] == '}';
    if (brace && i + 1 < text.size() && text[i + 1] == text[i]) {
      filled += text[i++];
    } else if (text[i] == '{') {
      const std::size_t end = text.find('}', i);
      if (end == std::string::npos) throw ConfigError(fmt::format("the template \"{}\" has a brace that is not closed", text));
      const std::string key = text.substr(i + 1, end - i - 1);
      const auto found = row.find(key);
      if (found == row.end() || found->is_structured() || found->is_null()) {
        throw DataError(fmt::format("the row has no text or number \"{}\"", key));
      }
      filled += found->is_string() ? found->get<std::string>() : found->dump();
      i = end;
    } else {
      filled += text[i];
    }
  }
  return filled;
}

CustomTask load_custom_task(const fs::path& file) { return CustomTaskReader(file).read(); }

}  // namespace nanochat
