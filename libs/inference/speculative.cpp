#include "inference/speculative.h"

namespace nanochat {

std::string_view speculative_name(Speculative speculative) { return speculative == Speculative::kNgram ? "ngram" : "none"; }

std::optional<Speculative> speculative_of_name(std::string_view name) {
  for (const Speculative known : {Speculative::kNone, Speculative::kNgram}) {
    if (name == speculative_name(known)) return known;
  }
  return std::nullopt;
}

}  // namespace nanochat
