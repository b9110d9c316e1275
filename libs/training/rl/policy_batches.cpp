#include "training/rl/policy_batches.h"

#include <algorithm>
#include <numeric>

#include "data/batches/conversation_loader.h"
#include "training/finetune/conversation_training.h"

namespace nanochat {
namespace {

struct Sequence {
  const std::vector<TokenId>* prompt = nullptr;
  const SampledAnswer* answer = nullptr;
  float scale = 0.0F;

  std::size_t positions() const { return prompt->size() + answer->ids.size() - 1; }
  TokenId token(std::size_t i) const { return i < prompt->size() ? (*prompt)[i] : answer->ids[i - prompt->size()]; }
  bool drawn(std::size_t i) const { return i >= prompt->size() && answer->forced[i - prompt->size()] == 0; }
};

std::int64_t drawn_tokens(const AnsweredQuestion& question) {
  std::int64_t drawn = 0;
  for (const SampledAnswer& answer : question.answers)
    drawn += std::count(answer.forced.begin(), answer.forced.end(), std::uint8_t{0});
  return drawn;
}

std::vector<Sequence> sequences_of(const std::vector<AnsweredQuestion>& questions, std::int64_t questions_of_step) {
  std::vector<Sequence> sequences;
  for (const AnsweredQuestion& question : questions) {
    const double mean = mean_reward(question);
    const double weight = 1.0 / (static_cast<double>(std::max<std::int64_t>(1, drawn_tokens(question))) *
                                 static_cast<double>(questions_of_step));
    for (const SampledAnswer& answer : question.answers) {
      const double advantage = (answer.right ? 1.0 : 0.0) - mean;
      if (advantage != 0.0 && !answer.ids.empty()) {
        sequences.push_back({&question.prompt, &answer, static_cast<float>(advantage * weight)});
      }
    }
  }
  return sequences;
}

void add(const Sequence& sequence, TokenBatch& batch) {
  batch.documents.push_back(static_cast<std::int32_t>(batch.inputs.size()));
  for (std::size_t i = 0; i < sequence.positions(); ++i) {
    const bool drawn = sequence.drawn(i + 1);
    batch.inputs.push_back(sequence.token(i));
    batch.targets.push_back(drawn ? sequence.token(i + 1) : -1);
    batch.weights.push_back(drawn ? sequence.scale : 0.0F);
  }
}

void fill(TokenBatch& batch, std::size_t end, TokenId padding_id) {
  if (batch.inputs.size() == end) return;
  batch.documents.push_back(static_cast<std::int32_t>(batch.inputs.size()));
  batch.inputs.resize(end, padding_id);
  batch.targets.resize(end, -1);
  batch.weights.resize(end, 0.0F);
}

}  // namespace

double mean_reward(const AnsweredQuestion& question) {
  const auto right = std::count_if(question.answers.begin(), question.answers.end(),
                                   [](const SampledAnswer& a) { return a.right; });
  return static_cast<double>(right) / static_cast<double>(std::max<std::size_t>(1, question.answers.size()));
}

std::vector<TokenBatch> policy_batches(const std::vector<AnsweredQuestion>& questions, std::int64_t device_batch_size,
                                       std::int64_t sequence_len, TokenId padding_id, std::int64_t questions_of_step) {
  if (questions_of_step == 0) questions_of_step = static_cast<std::int64_t>(questions.size());
  const std::vector<Sequence> sequences = sequences_of(questions, questions_of_step);
  std::vector<std::size_t> order(sequences.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto room = static_cast<std::size_t>(sequence_len);
  const auto packed = best_fit_rows([&](std::size_t i) { return sequences[i].positions(); }, std::move(order), room);
  std::vector<TokenBatch> batches;
  if (packed.empty()) return batches;
  const StepShape shape = step_shape(static_cast<std::int64_t>(packed.size()), device_batch_size);
  const auto rows_each = static_cast<std::size_t>(shape.device_batch_size);
  for (std::size_t begin = 0; begin < packed.size(); begin += rows_each) {
    TokenBatch& batch = batches.emplace_back();
    batch.rows = static_cast<std::int64_t>(rows_each);
    batch.sequence_len = sequence_len;
    for (std::size_t row = 0; row < rows_each; ++row) {
      if (begin + row < packed.size()) {
        for (const std::size_t i : packed[begin + row]) add(sequences[i], batch);
      }
      fill(batch, (row + 1) * room, padding_id);
    }
    batch.documents.push_back(static_cast<std::int32_t>(batch.inputs.size()));
  }
  return batches;
}

}  // namespace nanochat
