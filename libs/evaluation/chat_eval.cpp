#include "evaluation/chat_eval.h"

#include <algorithm>
#include <map>

#include <spdlog/fmt/fmt.h>

#include "core/elapsed.h"
#include "core/errors.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "core/progress.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "evaluation/core_prompts.h"
#include "evaluation/sandbox.h"
#include "inference/generator.h"
#include "model/gpt.h"
#include "tasks/answers.h"
#include "tokenizer/special_tokens.h"

namespace nanochat {
namespace {

constexpr std::size_t kCategoricalWindow = 512;  // prompts in memory at a time

class ChatTaskRun {
 public:
  ChatTaskRun(Gpt& model, const Tokenizer& tokenizer, const Task& task, const ChatOptions& options, ExampleStore& store,
              ProgressReporter& progress)
      : model_(model), tokenizer_(tokenizer), task_(task), options_(options), store_(store), progress_(progress),
        key_("chat/" + task.name()) {}

  TaskResult run() {
    if (task_.kind() == TaskKind::kConversation) {
      throw DataError(fmt::format("task {}: its conversations are to train on; there is no answer to compare", task_.name()));
    }
    const auto start = SteadyClock::now();
    size_ = options_.max_examples > 0 ? std::min(options_.max_examples, task_.size()) : task_.size();
    std::vector<std::int64_t> open;
    for (std::int64_t i = options_.rank; i < size_; i += options_.world) {
      if (!store_.of(key_).contains(i)) open.push_back(i);
    }
    const bool categorical = task_.kind() == TaskKind::kCategorical;
    const std::size_t window = categorical ? kCategoricalWindow : generative_window();
    progress_.start(task_.name(), static_cast<std::int64_t>(open.size()), "examples");
    for (std::size_t begin = 0; begin < open.size() && !interrupt_requested(); begin += window) {
      const std::size_t end = std::min(open.size(), begin + window);
      const std::vector<std::int64_t> indices(open.begin() + static_cast<std::ptrdiff_t>(begin),
                                              open.begin() + static_cast<std::ptrdiff_t>(end));
      std::vector<TaskExample> examples;
      for (const std::int64_t index : indices) examples.push_back(task_.example(index));
      categorical ? choose(indices, examples) : write(indices, examples);
    }
    progress_.finish();
    TaskResult result = count();
    result.seconds = seconds_since(start);
    return result;
  }

 private:
  // Twice what is written at a time, so that the places of short answers are filled.
  std::size_t generative_window() const {
    return static_cast<std::size_t>(std::max<std::int64_t>(1, 2 * options_.max_running / options_.num_samples));
  }

  std::int64_t prompt_limit() const { return std::min(kDefaultConversationTokens, longest_prompt(model_)); }

  TokenId letter_id(const std::string& letter) {
    const auto [found, fresh] = letters_.try_emplace(letter, 0);
    if (fresh) {
      const std::vector<TokenId> ids = tokenizer_.encode(letter);
      if (ids.size() != 1) {
        letters_.erase(found);
        throw DataError(fmt::format("task {}: the letter \"{}\" is {} tokens in this tokenizer, expected one", task_.name(),
                                    letter, ids.size()));
      }
      found->second = ids.front();
    }
    return found->second;
  }

  void choose(const std::vector<std::int64_t>& indices, const std::vector<TaskExample>& examples) {
    std::vector<std::vector<TokenId>> prompts;
    for (const TaskExample& example : examples) {
      prompts.push_back(render_for_completion(tokenizer_, example.conversation, prompt_limit()));
    }
    score_next_token(model_, prompts, options_.scoring, [&](std::size_t i, const at::Tensor& logits) {
      const TaskExample& example = examples[i];
      const float* logit = logits.const_data_ptr<float>();
      std::vector<float> scores;
      for (const std::string& letter : example.letters) scores.push_back(logit[letter_id(letter)]);
      const auto best = static_cast<std::size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
      nlohmann::json row{{"correct", is_right_answer(example, example.letters.at(best))}, {"chosen", example.letters[best]}};
      if (options_.save_samples) row["sample"] = {{"tokens", prompts[i]}, {"letters", example.letters}, {"logits", scores}};
      add(indices[i], example, std::move(row));
    });
  }

  void write(const std::vector<std::int64_t>& indices, const std::vector<TaskExample>& examples) {
    std::vector<std::vector<TokenId>> prompts;
    std::vector<std::size_t> asked;  // examples, each as often as it is answered
    for (std::size_t i = 0; i < examples.size(); ++i) {
      std::vector<TokenId> prompt = render_for_completion(tokenizer_, examples[i].conversation, prompt_limit());
      if (static_cast<std::int64_t>(prompt.size()) >= model_.config().sequence_len) {
        add(indices[i], examples[i], {{"correct", false}, {"too_long", true}});
        continue;
      }
      for (std::int64_t s = 0; s < options_.num_samples; ++s) {
        prompts.push_back(prompt);
        asked.push_back(i);
      }
    }
    if (prompts.empty()) return;
    GenerationOptions generation;
    generation.max_tokens = options_.max_tokens;
    generation.max_running = options_.max_running;
    generation.sampling.temperature = options_.temperature;
    generation.sampling.top_k = options_.top_k;
    generation.sampling.seed = derive_seed(options_.seed, fmt::format("{} {}", key_, indices.front()));
    generation.stop_tokens = {tokenizer_.require_special(kAssistantEnd), tokenizer_.bos_id()};
    generation.tools = &tokenizer_;
    const std::vector<Generation> generations = generate(model_, prompts, generation);
    if (interrupt_requested()) return;  // answers that were cut off say nothing

    std::vector<std::string> answers;
    for (const Generation& one : generations) answers.push_back(tokenizer_.decode(one.ids));
    const std::vector<char> right = judge(examples, asked, answers);
    for (std::size_t r = 0; r < asked.size();) {
      const std::size_t i = asked[r];
      std::int64_t passed = 0;
      nlohmann::json completions = nlohmann::json::array();
      const std::size_t first = r;
      for (; r < asked.size() && asked[r] == i; ++r) {
        passed += right[r];
        completions.push_back(replace_invalid_utf8(answers[r]));
      }
      nlohmann::json row{{"correct", passed > 0}};
      if (options_.num_samples > 1) row["passed"] = passed;
      if (options_.save_samples) row["sample"] = {{"tokens", prompts[first]}, {"completions", std::move(completions)}};
      add(indices[i], examples[i], std::move(row));
    }
  }

  std::vector<char> judge(const std::vector<TaskExample>& examples, const std::vector<std::size_t>& asked,
                          const std::vector<std::string>& answers) const {
    std::vector<char> right(asked.size());
    const bool programs = std::any_of(examples.begin(), examples.end(),
                                      [](const TaskExample& example) { return example.rule == AnswerRule::kProgram; });
    if (programs && options_.sandbox == nullptr) {
      throw ConfigError(fmt::format("task {}: its answers are programs, and there is no sandbox to run them in", task_.name()));
    }
    for_each_index(asked.size(), programs ? 0 : 1, [&](std::size_t r) {
      const TaskExample& example = examples[asked[r]];
      right[r] = example.rule == AnswerRule::kProgram ? options_.sandbox->run(program_of(example, answers[r])).success
                                                      : is_right_answer(example, answers[r]);
    });
    return right;
  }

  void add(std::int64_t index, const TaskExample& example, nlohmann::json row) {
    if (!example.group.empty()) row["group"] = example.group;
    store_.add(key_, index, std::move(row));
    progress_.advance(1);
  }

  // What guessing gives: of ChatCORE's tasks as the reference has it.
  double baseline() const {
    const auto known = chat_core_baselines().find(task_.name());
    if (known != chat_core_baselines().end()) return known->second;
    if (task_.kind() != TaskKind::kCategorical || size_ == 0) return 0.0;
    double sum = 0.0;
    for (std::int64_t i = 0; i < size_; ++i) sum += 1.0 / static_cast<double>(task_.example(i).letters.size());
    return sum / static_cast<double>(size_);
  }

  TaskResult count() const {
    TaskResult result;
    result.suite = "chat";
    result.task = task_.name();
    if (options_.num_samples > 1) result.metric = fmt::format("pass@{}", options_.num_samples);
    result.baseline = baseline();
    TaskCounts counts;
    std::int64_t too_long = 0;
    for (const auto& [index, row] : store_.of(key_)) {
      if (index >= size_) continue;
      const bool correct = row.at("correct").get<bool>();
      const auto book = [&](TaskCounts& to) {
        ++to.total;
        to.correct += correct ? 1 : 0;
      };
      book(counts);
      if (row.contains("group")) book(result.groups[row["group"].get<std::string>()]);
      too_long += row.contains("too_long") ? 1 : 0;
    }
    take_accuracy(result, counts);
    if (too_long > 0) result.notes.push_back(fmt::format("{} prompts fill the context and count as wrong", too_long));
    if (counts.total < size_) result.notes.push_back(fmt::format("{} of {} examples", counts.total, size_));
    return result;
  }

  Gpt& model_;
  const Tokenizer& tokenizer_;
  const Task& task_;
  const ChatOptions& options_;
  ExampleStore& store_;
  ProgressReporter& progress_;
  std::string key_;
  std::int64_t size_ = 0;
  std::map<std::string, TokenId> letters_;
};

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  for (;;) {
    const std::size_t end = text.find('\n');
    lines.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return lines;
    text.remove_prefix(end + 1);
  }
}

// The imports that a prompt begins with; comments and empty lines may stand between them.
std::string imports_of(std::string_view prompt) {
  std::string imports;
  for (const std::string_view line : lines_of(prompt)) {
    const std::string_view text = python_strip(line);
    if (text.starts_with("import ") || text.starts_with("from ")) {
      imports += (imports.empty() ? "" : "\n") + std::string(text);
    } else if (!text.empty() && text.front() != '#') {
      break;
    }
  }
  return imports;
}

// The first block between "```" or "```python" at the end of a line and "```" at the beginning of one; or everything.
std::string_view code_of(std::string_view answer) {
  for (std::size_t fence = answer.find("```"); fence != std::string_view::npos; fence = answer.find("```", fence + 1)) {
    std::size_t space = fence + 3;
    if (answer.substr(space).starts_with("python")) space += 6;
    const std::size_t end = std::min(answer.find_first_not_of(" \t\r\n\v\f", space), answer.size());
    // The block begins behind a line feed, the last of the white space if there is an end behind it.
    for (std::size_t begin = end; begin > space; --begin) {
      if (answer[begin - 1] != '\n') continue;
      const std::size_t close = answer.find("\n```", begin);
      if (close != std::string_view::npos) return python_strip(answer.substr(begin, close - begin));
    }
  }
  return python_strip(answer);
}

}  // namespace

std::string program_of(const TaskExample& example, std::string_view answer) {
  const std::string prompt = example.conversation.messages.empty() ? "" : example.conversation.messages.front().joined_text();
  return fmt::format("{}\n\n{}\n\n{}\ncheck({})", imports_of(prompt), code_of(answer), example.test, example.entry_point);
}

TaskResult evaluate_chat_task(Gpt& model, const Tokenizer& tokenizer, const Task& task, const ChatOptions& options,
                              ExampleStore& store, ProgressReporter& progress) {
  return ChatTaskRun(model, tokenizer, task, options, store, progress).run();
}

TaskResult task_accuracy(Gpt& model, const Tokenizer& tokenizer, const Task& task, const ChatOptions& options) {
  ExampleStore store;
  SilentProgress progress;
  return evaluate_chat_task(model, tokenizer, task, options, store, progress);
}

}  // namespace nanochat
