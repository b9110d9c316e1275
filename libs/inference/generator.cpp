#include "inference/generator.h"

#include <ATen/core/LegacyTypeDispatch.h>

#include <algorithm>
#include <exception>
#include <functional>
#include <numeric>

#include <spdlog/fmt/fmt.h>

#include "core/elapsed.h"
#include "core/errors.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "inference/calculator_tool.h"
#include "inference/check_prompt.h"
#include "inference/internal/block_pool.h"
#include "inference/internal/engine_core.h"
#include "runtime/memory_limits.h"

namespace nanochat {
namespace {

using Prompts = std::vector<std::vector<std::int32_t>>;

// Tokens in one pass through the model, which bounds its activations. Nobody waits for a token meanwhile, as streams do.
std::int64_t batch_tokens(const Gpt& model) { return model.device().is_cuda() ? 16384 : 4096; }

// On a GPU one size for many batches of prompts, so that recorded passes fit the next one's cache, too (device_runner.cpp): at
// most an eighth more.
std::int64_t rounded_blocks(std::int64_t blocks) {
  std::int64_t eighth = 1;
  while (eighth * 16 <= blocks) eighth *= 2;
  return (blocks + eighth - 1) / eighth * eighth;
}

// oneDNN, which multiplies bf16 matrices on a CPU, may crash when it finds no memory for its kernels.
void check_room(at::Device device) {
  constexpr std::int64_t kRoom = 24 << 20;
  if (!device.is_cpu() || available_memory_bytes() >= kRoom) return;
  throw OutOfMemoryError(
      fmt::format("less than {} of memory are left to generate with; lower --device-batch-size or raise the limit "
                  "of memory (ulimit -v)",
                  human_bytes(static_cast<double>(kRoom))));
}

// The largest number of blocks that these prompts can use at a time.
std::int64_t blocks_in_use(const GptConfig& config, const Prompts& prompts, std::int64_t max_tokens,
                           const EngineOptions& options) {
  std::vector<std::int64_t> blocks;
  for (const auto& prompt : prompts) {
    const std::int64_t length = std::min(static_cast<std::int64_t>(prompt.size()) + max_tokens, config.sequence_len);
    blocks.push_back(blocks_for(length, options.block_size));
  }
  std::sort(blocks.begin(), blocks.end(), std::greater<>());
  const auto running = std::min<std::ptrdiff_t>(options.max_running, static_cast<std::ptrdiff_t>(blocks.size()));
  return std::max(blocks_for(config.sequence_len, options.block_size),
                  std::accumulate(blocks.begin(), blocks.begin() + running, std::int64_t{0}));
}

EngineOptions engine_options(const Gpt& model, const Prompts& prompts, const GenerationOptions& options) {
  EngineOptions engine;
  engine.max_running = std::min(options.max_running, static_cast<std::int64_t>(prompts.size()));
  engine.max_batch_tokens = std::max(batch_tokens(model), engine.max_running);
  engine.fp8_cache = options.fp8_cache;
  engine.kv_blocks = blocks_in_use(model.config(), prompts, options.max_tokens, engine);
  if (model.device().is_cuda()) engine.kv_blocks = rounded_blocks(engine.kv_blocks);
  engine.kv_blocks = std::min(engine.kv_blocks, default_kv_blocks(model, engine));
  engine.batch_invariant = options.batch_invariant;
  engine.speculative = options.speculative;
  if (options.tools != nullptr) engine.make_tool = [tokenizer = options.tools] { return make_calculator_tool(*tokenizer); };
  return engine;
}

class Generator {
 public:
  Generator(Gpt& model, const Prompts& prompts, const GenerationOptions& options, const TokenCallback& on_token)
      : prompts_(prompts), options_(options), on_token_(on_token), results_(prompts.size()),
        engine_options_(engine_options(model, prompts, options)), core_(model, engine_options_) {}

  std::vector<Generation> run() {
    // Equal prompts that follow each other pass through the model once.
    for (std::size_t row = 0; row < prompts_.size();) {
      std::size_t end = row + 1;
      while (end < prompts_.size() && static_cast<std::int64_t>(end - row) < engine_options_.max_running &&
             prompts_[end] == prompts_[row])
        ++end;
      auto prepared = EngineCore::prepare(request(row, end - row), core_.model().config(), engine_options_);
      prepared->id = row;
      core_.add(std::move(prepared));
      row = end;
    }
    while (!core_.idle() && !error_) {
      if (interrupt_requested()) {
        core_.cancel_all();
      } else {
        core_.step();
      }
    }
    if (error_) fail();
    return std::move(results_);
  }

 private:
  // Of `n` rows from `row` on.
  EngineRequest request(std::size_t row, std::size_t n) {
    EngineRequest request;
    request.prompt = prompts_[row];
    request.sampling = options_.sampling;
    request.max_tokens = options_.max_tokens;
    request.ignore_eos = options_.ignore_eos;
    request.stop_tokens = options_.stop_tokens;
    request.n = static_cast<std::int64_t>(n);
    request.first_stream = row;
    request.tools = options_.tools != nullptr;
    request.on_event = [this, row](const EngineEvent& event) {
      const std::size_t of = row + static_cast<std::size_t>(event.sequence);
      if (event.kind == EngineEventKind::kToken) return take(of, event);
      if (event.kind == EngineEventKind::kFinish) finish(of, event);
      return true;
    };
    return request;
  }

  // Books one token; false when its receiver has had enough.
  bool take(std::size_t row, const EngineEvent& event) {
    Generation& result = results_[row];
    const double now = seconds_since(begin_);
    if (result.ids.empty()) {
      result.prefill_seconds = now;
    } else {
      result.decode_seconds = now - result.prefill_seconds;
    }
    result.ids.push_back(event.token.id);
    result.logprobs.push_back(event.token.logprob);
    result.forced.push_back(event.forced ? 1 : 0);
    const bool more = !on_token_ || on_token_(row, event.token.id);
    if (!more) result.reason = FinishReason::kCancelled;
    return more;
  }

  void finish(std::size_t row, const EngineEvent& event) {
    // The engine calls an end that the receiver wanted kStop.
    if (results_[row].reason != FinishReason::kCancelled) results_[row].reason = event.reason;
    if (event.reason != FinishReason::kError || error_) return;
    error_ = event.exception;
    failed_row_ = row;
  }

  [[noreturn]] void fail() const {
    try {
      std::rethrow_exception(error_);
    } catch (const NumericalError& numerical) {
      throw NumericalError(fmt::format("generating token {} of prompt {}: {}", results_[failed_row_].ids.size() + 1,
                                       failed_row_ + 1, numerical.what()));
    }
  }

  const Prompts& prompts_;
  const GenerationOptions& options_;
  const TokenCallback& on_token_;
  SteadyClock::time_point begin_ = SteadyClock::now();
  std::vector<Generation> results_;
  std::exception_ptr error_;  // the first
  std::size_t failed_row_ = 0;
  EngineOptions engine_options_;
  EngineCore core_;
};

}  // namespace

void GenerationOptions::validate() const {
  sampling.validate();
  if (max_tokens < 0) throw ConfigError(fmt::format("max_tokens: found {}, expected at least 0", max_tokens));
  if (max_running < 1) throw ConfigError(fmt::format("max_running: found {}, expected at least 1", max_running));
}

std::vector<Generation> generate(Gpt& model, const std::vector<std::vector<std::int32_t>>& prompts,
                                 const GenerationOptions& options, const TokenCallback& on_token) {
  options.validate();
  for (std::size_t r = 0; r < prompts.size(); ++r) check_prompt(prompts[r], model.config(), fmt::format("prompt {}", r + 1));
  if (prompts.empty() || options.max_tokens == 0) return std::vector<Generation>(prompts.size());
  check_room(model.device());
  const at::AutoDispatchBelowADInplaceOrView no_autograd;  // its bookkeeping of views costs as much as a small model's products
  return Generator(model, prompts, options, on_token).run();
}

}  // namespace nanochat
