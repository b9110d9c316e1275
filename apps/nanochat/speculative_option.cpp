#include "speculative_option.h"

namespace nanochat::cli {

void SpeculativeOption::declare(Subcommand& command) {
  command
      .option("speculative", &value,
              "Speculative decoding. ngram drafts tokens where the last ones occurred before in the prompt or the answer, and "
              "the model confirms several in one step. Answers do not change. none disables it.")
      .one_of({std::string(speculative_name(Speculative::kNone)), std::string(speculative_name(Speculative::kNgram))});
}

Speculative SpeculativeOption::get() const { return speculative_of_name(value).value(); }

}  // namespace nanochat::cli
