#include "tokenizer/text_steps.h"

#include <algorithm>

#include <spdlog/fmt/fmt.h>

namespace nanochat {

bool TextSteps::matter(std::size_t vocabulary) const {
  const auto plain = [&](const AddedToken& token) { return token.special && static_cast<std::size_t>(token.id) >= vocabulary; };
  return !normalizer.empty() || !splits.empty() || !std::all_of(added.begin(), added.end(), plain);
}

std::vector<std::string> TextSteps::description(std::size_t vocabulary) const {
  std::vector<std::string> parts;
  if (!matter(vocabulary)) return parts;
  for (const NormalizerStep& step : normalizer) {
    parts.push_back(fmt::format("normalizer {} {:d} {:d}", static_cast<int>(step.kind), step.left, step.right));
    parts.push_back(step.pattern);
    parts.push_back(step.content);
  }
  for (const SplitStep& step : splits) {
    parts.push_back(fmt::format("split {} {} {:d} {:d}", static_cast<int>(step.kind), static_cast<int>(step.behavior),
                                step.invert, step.add_prefix_space));
    parts.push_back(step.pattern);
  }
  for (const AddedToken& token : added) {
    parts.push_back(fmt::format("added {} {:d} {:d} {:d} {:d} {:d}", token.id, token.special, token.single_word, token.lstrip,
                                token.rstrip, token.normalized));
    parts.push_back(token.content);
  }
  return parts;
}

}  // namespace nanochat
