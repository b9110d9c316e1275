#include "training/rl/pass_at_k.h"

#include <algorithm>
#include <cmath>

namespace nanochat {
namespace {

double pass_of(std::int64_t k, const AnsweredQuestion& question) {
  const auto answers = static_cast<std::int64_t>(question.answers.size());
  const auto wrong = std::count_if(question.answers.begin(), question.answers.end(),
                                   [](const SampledAnswer& a) { return !a.right; });
  double all_wrong = 1.0;  // that k of them, drawn without putting back, are
  for (std::int64_t i = 0; i < k; ++i)
    all_wrong *= static_cast<double>(std::max<std::int64_t>(0, wrong - i)) / static_cast<double>(answers - i);
  return 1.0 - all_wrong;
}

}  // namespace

PassRate pass_at(std::int64_t k, const std::vector<AnsweredQuestion>& questions) {
  if (questions.empty()) return {};
  const auto count = static_cast<double>(questions.size());
  double sum = 0.0, squares = 0.0;
  for (const AnsweredQuestion& question : questions) {
    const double pass = pass_of(k, question);
    sum += pass;
    squares += pass * pass;
  }
  const double mean = sum / count;
  const double variance = count > 1.0 ? std::max(0.0, squares - sum * mean) / (count - 1.0) : 0.0;
  return {mean, std::sqrt(variance / count)};
}

}  // namespace nanochat
