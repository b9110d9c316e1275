#include "training/finetune/sampled_answers.h"

#include "inference/generator.h"
#include "model/gpt.h"
#include "tasks/answers.h"
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
  generation.max_running = options.max_running;
  generation.tools = &tokenizer;
  std::vector<Generation> generated = uneven_passes(model, [&] { return generate(model, prompts, generation); });
  for (std::size_t i = 0; i < generated.size(); ++i) {
    answers[i]->ids = std::move(generated[i].ids);
    answers[i]->forced = std::move(generated[i].forced);
  }
  for (std::size_t q = 0; q < questions.size(); ++q) {
    for (SampledAnswer& answer : answered[q].answers)
      answer.right = is_right_answer(questions[q], tokenizer.decode(answer.ids));
  }
  return answered;
}

}  // namespace nanochat
