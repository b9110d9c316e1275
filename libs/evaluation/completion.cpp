#include "evaluation/completion.h"

#include <cctype>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/json_input.h"
#include "core/progress.h"
#include "data/rows/byte_source.h"
#include "inference/generator.h"
#include "model/gpt.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

std::vector<CompletionItem> read_completion_items(const std::filesystem::path& file) {
  constexpr std::size_t kLongestRow = std::size_t{64} << 20;
  LineReader lines(open_bytes(file));
  std::vector<CompletionItem> items;
  for (std::string line; lines.next(line, kLongestRow);) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("{}:{}", name_of(file), lines.line_number());
    try {
      const nlohmann::json row = parse_json_input(line, where);
      items.push_back({row.at("prompt").get<std::string>(), row.at("answers").get<std::vector<std::string>>(),
                       row.value("topic", "")});
    } catch (const nlohmann::json::exception&) {
      throw DataError(fmt::format(R"({}: found {}, expected {{"prompt": "…", "answers": ["…"], "topic": "…"}})", where,
                                  line.substr(0, 60)));
    }
    if (items.back().answers.empty()) {
      throw DataError(fmt::format("{}: \"answers\" is empty; give at least one", where));
    }
  }
  if (items.empty()) throw DataError(fmt::format("{}: no rows", name_of(file)));
  return items;
}

bool begins_with_answer(const std::string& continuation, const std::string& answer) {
  const std::size_t start = continuation.find_first_not_of(" \t\r\n");
  if (start == std::string::npos || continuation.compare(start, answer.size(), answer) != 0) return false;
  const std::size_t after = start + answer.size();
  return after >= continuation.size() || std::isalnum(static_cast<unsigned char>(continuation[after])) == 0 ||
         std::isalnum(static_cast<unsigned char>(answer.back())) == 0;
}

CompletionResult evaluate_completions(Gpt& model, const Tokenizer& tokenizer, const std::vector<CompletionItem>& items,
                                      std::int64_t max_running, ProgressReporter& progress) {
  CompletionResult result;
  progress.start("completions", static_cast<std::int64_t>(items.size()), "prompts");
  for (std::size_t first = 0; first < items.size(); first += static_cast<std::size_t>(max_running)) {
    const std::size_t last = std::min(items.size(), first + static_cast<std::size_t>(max_running));
    std::vector<std::vector<std::int32_t>> prompts;
    std::int64_t longest_answer = 0;
    for (std::size_t i = first; i < last; ++i) {
      prompts.push_back({tokenizer.bos_id()});
      tokenizer.encode(items[i].prompt, prompts.back());
      for (const std::string& answer : items[i].answers) {
        longest_answer = std::max(longest_answer, static_cast<std::int64_t>(tokenizer.encode(" " + answer).size()));
      }
    }
    GenerationOptions options;
    options.sampling.temperature = 0.0;
    options.max_tokens = longest_answer + 4;  // one token past the answer shows where its last word ends
    options.stop_tokens = {tokenizer.bos_id()};
    const std::vector<Generation> generations = generate(model, prompts, options);
    for (std::size_t i = first; i < last; ++i) {
      const std::string continuation = tokenizer.decode(generations[i - first].ids);
      bool right = false;
      for (const std::string& answer : items[i].answers) right = right || begins_with_answer(continuation, answer);
      for (CompletionScore* score : {&result.all, &result.by_topic[items[i].topic]}) {
        ++score->total;
        score->correct += right ? 1 : 0;
      }
      result.continuations.push_back(continuation);
      result.correct.push_back(right);
    }
    progress.advance(static_cast<std::int64_t>(last - first));
  }
  progress.finish();
  return result;
}

}  // namespace nanochat
