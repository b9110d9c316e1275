#include "training/finetune/sampled_answers.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "data/tasks/answers.h"
#include "data/tasks/factory.h"
#include "inference/generator.h"
#include "model/gpt.h"
#include "tokenizer/special_tokens.h"

namespace nanochat {

std::vector<AnsweredQuestion> sample_answers(Gpt& model, const Tokenizer& tokenizer, const std::vector<TaskExample>& questions,
                                             const AnswerOptions& options) {
  const auto samples = static_cast<std::size_t>(options.samples);
  std::vector<AnsweredQuestion> answered(questions.size());
  std::vector<std::vector<TokenId>> prompts;
  std::vector<SampledAnswer*> answers;  // one for each prompt
  for (std::size_t q = 0; q < questions.size(); ++q) {
    answered[q].prompt = render_for_completion(tokenizer, questions[q].conversation, model.config().sequence_len);
    answered[q].answers.resize(samples);
    if (static_cast<std::int64_t>(answered[q].prompt.size()) >= model.config().sequence_len) continue;
    for (SampledAnswer& answer : answered[q].answers) {
      prompts.push_back(answered[q].prompt);
      answers.push_back(&answer);
    }
  }
  GenerationOptions generation;
  generation.max_tokens = options.max_tokens;
  generation.sampling.temperature = options.temperature;
  generation.sampling.top_k = options.top_k;
  generation.sampling.seed = options.seed;
  generation.stop_tokens = {tokenizer.require_special(kAssistantEnd), tokenizer.bos_id()};
  generation.max_batch = options.max_batch;
  generation.tools = &tokenizer;
  std::vector<Generation> generated = generate(model, prompts, generation);
  for (std::size_t i = 0; i < generated.size(); ++i) {
    answers[i]->ids = std::move(generated[i].ids);
    answers[i]->forced = std::move(generated[i].forced);
  }
  for (std::size_t q = 0; q < questions.size(); ++q) {
    for (SampledAnswer& answer : answered[q].answers) answer.right = is_right_answer(questions[q], tokenizer.decode(answer.ids));
  }
  return answered;
}

TaskAccuracy generative_accuracy(const std::string& mixture, const std::string& flag, std::int64_t problems, std::int64_t max_tokens) {
  const std::shared_ptr<const TaskMixture> tasks = mixture_of(mixture, flag);
  return [tasks, problems, max_tokens](Gpt& model, const Tokenizer& tokenizer) {
    nlohmann::json scores;
    double sum = 0.0;
    for (const MixtureEntry& entry : tasks->entries()) {
      const std::int64_t size = entry.cap > 0 ? std::min(entry.cap, entry.task->size()) : entry.task->size();
      std::vector<TaskExample> questions;
      for (std::int64_t i = 0; i < std::min(problems, size); ++i) questions.push_back(entry.task->example(i));
      std::int64_t right = 0;
      AnswerOptions options;
      options.max_tokens = max_tokens;
      for (const AnsweredQuestion& question : sample_answers(model, tokenizer, questions, options)) right += question.answers.front().right ? 1 : 0;
      const double accuracy = static_cast<double>(right) / static_cast<double>(std::max<std::size_t>(1, questions.size()));
      scores["accuracy_" + entry.task->name()] = accuracy;
      sum += accuracy;
    }
    scores["accuracy"] = sum / static_cast<double>(tasks->entries().size());
    return scores;
  };
}

}  // namespace nanochat
