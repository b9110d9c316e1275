#include "inference/generator.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <numeric>
#include <optional>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "inference/contiguous_kv_cache.h"
#include "inference/tool_use.h"
#include "model/gpt.h"
#include "model/memory.h"
#include "ops/parallel.h"

namespace nanochat {
namespace {

using Clock = std::chrono::steady_clock;
using Prompts = std::vector<std::vector<std::int32_t>>;

// Tokens of prompts in one pass, which bounds its activations.
constexpr std::int64_t kPrefillTokens = 4096;

void check_prompts(const GptConfig& config, const Prompts& prompts) {
  for (std::size_t r = 0; r < prompts.size(); ++r) {
    const auto length = static_cast<std::int64_t>(prompts[r].size());
    if (length == 0) throw DataError(fmt::format("prompt {} is empty; expected at least one token", r + 1));
    if (length >= config.sequence_len) {
      throw DataError(fmt::format("prompt {} has {} tokens; the model's context of {} leaves room for at most {}",
                                  r + 1, length, config.sequence_len, config.sequence_len - 1));
    }
    for (const std::int32_t id : prompts[r]) {
      if (id >= 0 && id < config.vocab_size) continue;
      throw DataError(fmt::format("prompt {}: token id {} is outside the model's vocabulary of {}", r + 1, id,
                                  config.vocab_size));
    }
  }
}

// oneDNN, which multiplies bf16 matrices on a CPU, may crash when it finds no memory for its kernels.
void check_room(at::Device device) {
  constexpr std::int64_t kRoom = 24 << 20;
  if (!device.is_cpu() || available_memory_bytes() >= kRoom) return;
  throw OutOfMemoryError(fmt::format("less than {} of memory are left to generate with; lower --device-batch-size or raise the limit "
                                     "of memory (ulimit -v)", human_bytes(static_cast<double>(kRoom))));
}

// One prompt on its way. History is the prompt and what was drawn, stop token included.
struct Sequence {
  std::size_t row = 0;
  std::vector<std::int32_t> history;
  Sampler sampler;
  std::int64_t room = 0;  // tokens still to come
  std::optional<ToolUse> tools = {};
};

class Generator {
 public:
  Generator(Gpt& model, const Prompts& prompts, const GenerationOptions& options, const TokenCallback& on_token)
      : model_(model), prompts_(prompts), options_(options), on_token_(on_token), results_(prompts.size()),
        waiting_(prompts.size()), cache_(model.config(), model.dtype(), 0, model.config().sequence_len, model.device()) {
    // Prompts of one length go through the model together: no padding, and no row sees another's.
    std::iota(waiting_.begin(), waiting_.end(), std::size_t{0});
    std::stable_sort(waiting_.begin(), waiting_.end(),
                     [&](std::size_t a, std::size_t b) { return prompts[a].size() < prompts[b].size(); });
  }

  std::vector<Generation> run() {
    if (options_.max_tokens == 0) return std::move(results_);
    while (next_ < waiting_.size() || !active_.empty()) {
      if (interrupt_requested()) {
        cancel();
        break;
      }
      // Admitting many at a time, when half the rows are free and then all of them, keeps passes over weights few.
      const auto free = options_.max_batch - static_cast<std::int64_t>(active_.size());
      if (next_ < waiting_.size() && free > 0 && (filling_ || free >= (options_.max_batch + 1) / 2)) {
        prefill(free);
        filling_ = true;
      } else {
        decode();
        filling_ = false;
      }
    }
    return std::move(results_);
  }

 private:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }

  // Runs the next prompts of one length and draws the first token of each.
  void prefill(std::int64_t most) {
    const std::size_t length = prompts_[waiting_[next_]].size();
    const std::int64_t per_pass = std::max<std::int64_t>(1, kPrefillTokens / static_cast<std::int64_t>(length));
    std::vector<Sequence> group;
    while (next_ < waiting_.size() && static_cast<std::int64_t>(group.size()) < std::min(most, per_pass) &&
           prompts_[waiting_[next_]].size() == length) {
      group.push_back(admit(waiting_[next_++]));
    }
    const auto rows = static_cast<std::int64_t>(group.size());
    const at::Tensor ids = at::empty({rows, static_cast<std::int64_t>(length)}, at::kInt);
    std::int32_t* to = ids.data_ptr<std::int32_t>();
    for (const Sequence& sequence : group) to = std::copy(sequence.history.begin(), sequence.history.end(), to);
    ContiguousKvCache cache(model_.config(), model_.dtype(), rows, model_.config().sequence_len, model_.device());
    const at::Tensor logits = model_.forward_cache(ids, cache).cpu();
    const std::vector<bool> finished = draw(group, logits);
    drop(finished, group, cache);
    cache_.append_rows(cache);
    std::move(group.begin(), group.end(), std::back_inserter(active_));
  }

  Sequence admit(std::size_t row) const {
    SamplingOptions sampling = options_.sampling;
    if (row > 0) sampling.seed = derive_seed(sampling.seed, fmt::format("row {}", row));
    const auto context = model_.config().sequence_len - static_cast<std::int64_t>(prompts_[row].size());
    Sequence sequence{row, prompts_[row], Sampler(sampling), std::min(options_.max_tokens, context)};
    if (options_.tools != nullptr) sequence.tools.emplace(*options_.tools);
    return sequence;
  }

  void decode() {
    const at::Tensor ids = at::empty({static_cast<std::int64_t>(active_.size()), 1}, at::kInt);
    std::int32_t* to = ids.data_ptr<std::int32_t>();
    for (const Sequence& sequence : active_) *to++ = sequence.history.back();
    const at::Tensor logits = model_.forward_cache(ids, cache_).cpu();
    const std::vector<bool> finished = draw(active_, logits);
    drop(finished, active_, cache_);
  }

  // Draws a token for every sequence from its row of logits, or takes the one forced; true where that was the last.
  std::vector<bool> draw(std::vector<Sequence>& sequences, const at::Tensor& logits) {
    const auto vocab = static_cast<std::size_t>(logits.size(1));
    const float* row = logits.const_data_ptr<float>();
    std::vector<SampledToken> tokens(sequences.size());
    std::vector<std::exception_ptr> errors(sequences.size());
    ops::parallel_for(static_cast<std::int64_t>(sequences.size()), 1, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        try {
          const auto forced = sequences[i].tools ? sequences[i].tools->forced() : std::nullopt;
          if (forced) {
            tokens[i].id = *forced;
            continue;
          }
          tokens[i] = sequences[i].sampler.sample({row + i * vocab, vocab}, sequences[i].history);
        } catch (...) {
          errors[i] = std::current_exception();
        }
      }
    });
    std::vector<bool> finished(sequences.size());
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      if (errors[i]) fail(sequences[i], errors[i]);
      finished[i] = take(sequences[i], tokens[i]);
    }
    return finished;
  }

  [[noreturn]] void fail(const Sequence& sequence, const std::exception_ptr& error) const {
    try {
      std::rethrow_exception(error);
    } catch (const NumericalError& numerical) {
      throw NumericalError(fmt::format("generating token {} of prompt {}: {}", results_[sequence.row].ids.size() + 1,
                                       sequence.row + 1, numerical.what()));
    }
  }

  // Books one token; true when the sequence has ended.
  bool take(Sequence& sequence, const SampledToken& token) {
    Generation& result = results_[sequence.row];
    const double now = seconds();
    if (result.ids.empty()) {
      result.prefill_seconds = now;
    } else {
      result.decode_seconds = now - result.prefill_seconds;
    }
    const auto& stops = options_.stop_tokens;
    if (!options_.ignore_eos && std::find(stops.begin(), stops.end(), token.id) != stops.end()) {
      result.reason = FinishReason::kStop;
      return true;
    }
    const bool forced = sequence.tools && sequence.tools->forced();
    if (sequence.tools) sequence.tools->see(token.id);
    sequence.history.push_back(token.id);
    result.forced.push_back(forced ? 1 : 0);
    result.ids.push_back(token.id);
    result.logprobs.push_back(token.logprob);
    --sequence.room;
    if (on_token_ && !on_token_(sequence.row, token.id)) {
      result.reason = FinishReason::kCancelled;
      return true;
    }
    return sequence.room == 0;  // the reason stays kLength
  }

  // Takes finished sequences out; the last ones move into their places, which copies the least.
  static void drop(const std::vector<bool>& finished, std::vector<Sequence>& sequences, ContiguousKvCache& cache) {
    if (std::find(finished.begin(), finished.end(), true) == finished.end()) return;
    std::vector<std::int64_t> rows;
    std::size_t end = sequences.size();
    for (std::size_t i = 0; i < end; ++i) {
      while (end > i + 1 && finished[i] && finished[end - 1]) --end;
      if (!finished[i]) {
        rows.push_back(static_cast<std::int64_t>(i));
      } else if (--end > i) {
        rows.push_back(static_cast<std::int64_t>(end));
        sequences[i] = std::move(sequences[end]);
      }
    }
    sequences.erase(sequences.begin() + static_cast<std::ptrdiff_t>(rows.size()), sequences.end());
    cache.select_rows(rows);
  }

  void cancel() {
    for (const Sequence& sequence : active_) results_[sequence.row].reason = FinishReason::kCancelled;
    for (; next_ < waiting_.size(); ++next_) results_[waiting_[next_]].reason = FinishReason::kCancelled;
  }

  Gpt& model_;
  const Prompts& prompts_;
  const GenerationOptions& options_;
  const TokenCallback& on_token_;
  Clock::time_point begin_ = Clock::now();
  std::vector<Generation> results_;
  std::vector<std::size_t> waiting_;  // rows, by length of the prompt; those before next_ have been admitted
  std::size_t next_ = 0;
  bool filling_ = false;
  std::vector<Sequence> active_;      // rows of cache_, in order
  ContiguousKvCache cache_;
};

}  // namespace

void GenerationOptions::validate() const {
  sampling.validate();
  if (max_tokens < 0) throw ConfigError(fmt::format("max_tokens is {}, but must not be negative", max_tokens));
  if (max_batch < 1) throw ConfigError(fmt::format("max_batch is {}, but must be at least 1", max_batch));
}

std::vector<Generation> generate(Gpt& model, const std::vector<std::vector<std::int32_t>>& prompts,
                                 const GenerationOptions& options, const TokenCallback& on_token) {
  options.validate();
  check_prompts(model.config(), prompts);
  check_room(model.device());
  return Generator(model, prompts, options, on_token).run();
}

}  // namespace nanochat
