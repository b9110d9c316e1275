#pragma once
// The conversation of `nanochat infer --chat`.

#include "core/errors.h"
#include "inference/generator.h"

namespace nanochat {
struct LoadedModel;
}

namespace nanochat::cli {

struct Context;

// Reads messages and commands (/help) a line each from standard input until it ends; answers go to standard output, all
// else to standard error. Throws CheckpointError when the model's tokenizer has no chat tokens.
ExitCode chat(const LoadedModel& loaded, const GenerationOptions& generation, const Context& context);

}  // namespace nanochat::cli
