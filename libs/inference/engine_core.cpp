#include "inference/internal/engine_core.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <exception>
#include <iterator>
#include <numeric>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/elapsed.h"
#include "core/errors.h"
#include "core/format.h"
#include "inference/check_prompt.h"
#include "ops/parallel.h"
#include "runtime/memory_limits.h"

namespace nanochat {
namespace {

EngineOptions complete(EngineOptions options, const Gpt& model) {
  if (options.max_batch_tokens == 0) {
    options.max_batch_tokens = std::max(default_batch_tokens(model.device().is_cuda()), options.max_running);
  }
  return options;
}

std::int64_t choose_blocks(const Gpt& model, const EngineOptions& options) {
  if (options.kv_blocks == 0) return default_kv_blocks(model, options);
  const std::int64_t context = blocks_for(model.config().sequence_len, options.block_size);
  if (options.kv_blocks >= context) return options.kv_blocks;
  throw ConfigError(fmt::format("kv_blocks is {}, but one context of {} tokens takes {} blocks of {}", options.kv_blocks,
                                model.config().sequence_len, context, options.block_size));
}

void check_request(const EngineRequest& request, const GptConfig& config, const EngineOptions& options) {
  request.sampling.validate();
  check_prompt(request.prompt, config, "the prompt", request.max_tokens && *request.max_tokens == 0);
  for (const std::int32_t id : request.stop_tokens) check_token_id(id, config, "stop_tokens");
  for (const auto& [id, bias] : request.sampling.logit_bias) check_token_id(id, config, "logit_bias");
  const auto in_range = [](std::int64_t value, std::int64_t low, std::int64_t high, const char* name) {
    if (value < low || value > high) {
      throw ConfigError(fmt::format("{}: found {}, expected {} to {}", name, value, low, high));
    }
  };
  in_range(request.n, 1, options.max_running, "n");
  in_range(request.max_tokens.value_or(0), 0, std::int64_t{1} << 40, "max_tokens");
  in_range(request.min_tokens, 0, std::int64_t{1} << 40, "min_tokens");
  in_range(request.top_logprobs, 0, config.vocab_size, "top_logprobs");
  if (request.tools && !options.make_tool) throw ConfigError("tools are asked for, but this engine has none");
  if (request.tools && request.constraint != nullptr) {
    throw ConfigError("tools cannot be used together with a constraint on the answer");
  }
}

std::int64_t limited_max_tokens(const EngineRequest& request, const GptConfig& config) {
  const std::int64_t room = config.sequence_len - static_cast<std::int64_t>(request.prompt.size());
  return std::min(request.max_tokens.value_or(room), room);
}

// The token before the next one that the model computes, or -1 at the beginning. At most the last token is still under way,
// and it has not been computed, so that the one before it is here.
std::int32_t token_before(const Sequence& sequence) {
  return sequence.computed == 0 ? -1 : sequence.tokens.at(static_cast<std::size_t>(sequence.computed) - 1);
}

// A further row takes 0.13 of a step with one row in bfloat16 and 0.2 to 0.4 in float32 (12 layers, two cores of a CPU), and
// 0.02 to 0.04 on an H200 (20 layers). With too high a value fewer tokens are drafted; with too low a value drafts of ordinary
// text cost more than they bring.
constexpr StepCosts kCpuCosts = {.row = 0.2, .wait = 0.0}, kGpuCosts = {.row = 0.03, .wait = 0.05};

}  // namespace

std::int64_t most_draws(const EngineOptions& options) {
  return options.speculative == Speculative::kNone ? options.max_running : std::max(options.max_running, kLogitRows);
}

std::int64_t default_kv_blocks(const Gpt& model, const EngineOptions& options) {
  const std::int64_t context = blocks_for(model.config().sequence_len, options.block_size);
  const std::int64_t bytes = PagedKvCache::bytes_per_block(model.config(), kv_cache_dtype(model.dtype(), options.fp8_cache),
                                                           options.block_size);
  const std::int64_t fitting = available_memory_bytes(model.device()) / 4 / bytes;
  if (fitting >= context) return std::min(fitting, context * options.max_running);
  throw OutOfMemoryError(
      fmt::format("the KV cache of one context of {} tokens takes {}, more than a quarter of the memory "
                  "that is left; use a smaller model or free memory",
                  model.config().sequence_len, human_bytes(static_cast<double>(bytes * context))));
}

EngineCore::EngineCore(Gpt& model, const EngineOptions& options)
    : model_(model), options_(complete(options, model)),
      cache_(model_.config(), kv_cache_dtype(model_.dtype(), options.fp8_cache), choose_blocks(model_, options),
             options.block_size, model_.device()),
      scheduler_(options_, cache_.blocks()) {
  if (!options.overlap.value_or(model_.device().is_cuda())) return;
  runner_ = make_device_runner(model_, cache_, options_);
  if (runner_ == nullptr) runner_ = make_host_runner(model_, cache_);
}

void EngineCore::check(const EngineRequest& request, const GptConfig& config, const EngineOptions& options) {
  check_request(request, config, options);
  const std::int64_t max_tokens = limited_max_tokens(request, config);
  if (request.constraint == nullptr || request.constraint->closing_length() <= max_tokens) return;
  const bool wanted = request.max_tokens.has_value() && *request.max_tokens == max_tokens;
  throw ConfigError(fmt::format("{} {}, but the shortest answer that fits the format takes {} tokens",
                                wanted ? "max_tokens is" : "the number of tokens that fit after the prompt is", max_tokens,
                                request.constraint->closing_length()));
}

std::unique_ptr<ActiveRequest> EngineCore::prepare(EngineRequest spec, const GptConfig& config, const EngineOptions& options) {
  check(spec, config, options);
  auto request = std::make_unique<ActiveRequest>();
  request->max_tokens = limited_max_tokens(spec, config);
  request->spec = std::move(spec);
  request->submitted = EngineClock::now();
  return request;
}

void EngineCore::warm_up() {
  cache_.commit();
  if (runner_ != nullptr) return runner_->warm_up();
  cache_.set_batch({{{0, 1, {0}}}});
  const at::Tensor id = at::empty({1, 1}, at::kInt).fill_(0);
  model_.logits(model_.forward_states(id, cache_), cache_.batch_invariant());
}

// ------------------------------------------------------------------------------------------------------------ events

bool EngineCore::emit(ActiveRequest& request, EngineEvent event) {
  event.request = request.id;
  event.usage = request.usage;
  return !request.spec.on_event || request.spec.on_event(event);
}

void EngineCore::leave_queue(ActiveRequest& request) {
  if (std::exchange(request.started, true)) return;
  request.first_step = EngineClock::now();
  request.usage.queue_seconds = seconds_between(request.submitted, request.first_step);
  request.usage.prompt_tokens = request.prompt_size();
  ++dequeued_;
  dequeued_tokens_ += request.prompt_size();
}

void EngineCore::finish_index(ActiveRequest& request, std::int32_t index, const EngineEvent& what) {
  EngineEvent event = what;
  event.kind = EngineEventKind::kFinish;
  event.sequence = index;
  emit(request, event);
  if (--request.unfinished > 0) return;
  leave_queue(request);
  request.usage.total_seconds = seconds_between(request.submitted, EngineClock::now());
  const bool failed = what.reason == FinishReason::kError, cancelled = what.reason == FinishReason::kCancelled;
  ++(failed ? totals_.failed : cancelled ? totals_.cancelled : totals_.finished);
  EngineEvent done;
  done.kind = EngineEventKind::kDone;
  done.reason = what.reason;
  done.error = what.error;
  done.exception = what.exception;
  emit(request, done);
  done_.push_back(request.id);
}

void EngineCore::finish(Sequence& sequence, FinishReason reason, std::int32_t stop_token) {
  EngineEvent event;
  event.reason = reason;
  event.stop_token = stop_token;
  finish(sequence, event);
}

void EngineCore::finish(Sequence& sequence, const EngineEvent& what) {
  if (sequence.finished) return;
  ActiveRequest& request = *sequence.request;
  const std::int64_t missing = request.spec.n - static_cast<std::int64_t>(request.sequences.size());
  scheduler_.finish(sequence);
  finish_index(request, sequence.index, what);
  // Before the prompt is through its first sequence stands for all n.
  for (std::int64_t i = 0; i < missing; ++i)
    finish_index(request, static_cast<std::int32_t>(request.spec.n - missing + i), what);
}

void EngineCore::cancel_request(ActiveRequest& request) {
  EngineEvent event;
  event.reason = FinishReason::kCancelled;
  if (request.sequences.empty()) {
    for (std::int32_t i = 0; i < request.spec.n; ++i) finish_index(request, i, event);
    return;
  }
  const std::size_t made = request.sequences.size();
  for (std::size_t i = 0; i < made; ++i) finish(*request.sequences[i], FinishReason::kCancelled);
}

void EngineCore::cancel(RequestId id, std::optional<std::int32_t> sequence) {
  ActiveRequest* request = scheduler_.find(id);
  if (request == nullptr) return;
  const bool one_of_many = sequence && request->spec.n > 1;
  if (!one_of_many) {
    cancel_request(*request);
  } else if (*sequence >= 0 && *sequence < static_cast<std::int32_t>(request->sequences.size()) &&
             !request->sequences.front()->forks()) {
    finish(*request->sequences[static_cast<std::size_t>(*sequence)], FinishReason::kCancelled);
  }
  purge();
}

void EngineCore::cancel_all() {
  for (const RequestId id : scheduler_.requests()) cancel_request(*scheduler_.find(id));
  purge();
}

void EngineCore::purge() {
  for (const RequestId id : std::exchange(done_, {})) {
    std::unique_ptr<ActiveRequest> request = scheduler_.remove(id);
    totals_.prompt_tokens += request->usage.prompt_tokens;
    totals_.cached_tokens += request->usage.cached_tokens;
    totals_.completion_tokens += request->usage.completion_tokens;
    if (!under_way_.empty())
      leaving_.emplace_back(steps_read_ + static_cast<std::int64_t>(under_way_.size()), std::move(request));
  }
}

std::int64_t EngineCore::invalidate(const std::function<bool(std::span<const std::int32_t>)>& matches) {
  return scheduler_.invalidate(matches);
}

// ------------------------------------------------------------------------------------------------------------ a step

void EngineCore::step() {
  if (!under_way_.empty() && under_way_.back().drafts) read_oldest();
  std::vector<ScheduledChunk> batch = scheduler_.schedule();
  if (options_.speculative == Speculative::kNgram) add_drafts(batch);
  if (runner_ == nullptr) {
    if (!batch.empty()) step_alone(batch);
    return;
  }
  // One step ahead: a token that a step takes from the device was drawn by the step just before it.
  const bool before = !under_way_.empty();
  if (!batch.empty()) start(batch);
  if (before) read_oldest();
  purge();
}

void EngineCore::begin_step(const std::vector<ScheduledChunk>& batch) {
  ++totals_.steps;
  std::int64_t prompt_tokens = 0;
  for (const ScheduledChunk& chunk : batch) {
    leave_queue(*chunk.sequence->request);
    if (chunk.sequence->drawn() == 0) prompt_tokens += chunk.tokens;
  }
  prompt_rate_.add(prompt_tokens, EngineClock::now());
}

void EngineCore::add_drafts(std::vector<ScheduledChunk>& batch) {
  std::vector<DraftCandidate> candidates;
  std::vector<ScheduledChunk*> chunks;
  std::int64_t rows = 0, draws = 0;
  for (ScheduledChunk& chunk : batch) {
    Sequence& sequence = *chunk.sequence;
    rows += chunk.tokens;
    if (chunk.tokens < sequence.pending()) continue;  // a part of a prompt
    draws += sequence.forks() ? sequence.request->spec.n : 1;
    if (chunk.tokens != 1 || sequence.drawn() == 0) continue;
    sequence.drafter.observe(sequence.tokens);
    if (!sequence.drafter.expects()) continue;
    // The step draws one token in any case.
    const std::int64_t most = std::min(kMostDrafted, sequence.request->max_tokens - sequence.drawn() - 1);
    candidates.push_back({&sequence.drafter, sequence.in_flight, most});
    chunks.push_back(&chunk);
  }
  const std::int64_t budget = std::min(options_.max_batch_tokens - rows, most_draws(options_) - draws);
  plan_drafts(candidates, rows, draws, budget, model_.device().is_cuda() ? kGpuCosts : kCpuCosts);
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    ScheduledChunk& chunk = *chunks[i];
    Sequence& sequence = *chunk.sequence;
    sequence.draft.clear();
    for (std::int64_t t = scheduler_.reserve_draft(chunk, candidates[i].drafted); t > 0; --t) {
      const std::int64_t place = candidates[i].skipped + static_cast<std::int64_t>(sequence.draft.size());
      sequence.draft.push_back(sequence.drafter.token(sequence.tokens, place));
    }
    if (runner_ != nullptr && sequence.constraint != nullptr) constrain_draft(sequence);
    chunk.drafted = static_cast<std::int64_t>(sequence.draft.size());
    totals_.drafted_tokens += chunk.drafted;
  }
}

void EngineCore::constrain_draft(Sequence& sequence) {
  sequence.draft_allowed.clear();
  const std::unique_ptr<TokenConstraint> constraint = sequence.constraint->clone();
  std::vector<std::uint64_t> allowed = allowed_tokens(*constraint, *sequence.request, sequence.generated());
  for (const std::int32_t token : sequence.draft) {
    const auto id = static_cast<std::size_t>(token);
    if ((allowed[id / 64] >> (id % 64) & 1U) == 0) break;
    const auto& stops = sequence.request->spec.stop_tokens;
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) break;
    constraint->accept(token);
    if (constraint->must_end()) break;
    const auto drafted = static_cast<std::int64_t>(sequence.draft_allowed.size()) + 1;
    allowed = allowed_tokens(*constraint, *sequence.request, sequence.generated() + drafted);
    sequence.draft_allowed.push_back(allowed);
  }
  sequence.draft.resize(sequence.draft_allowed.size());
}

void EngineCore::fail_all(const std::vector<ScheduledChunk>& batch) {
  for (const ScheduledChunk& chunk : batch) fail(*chunk.sequence, std::current_exception());
}

void EngineCore::step_alone(const std::vector<ScheduledChunk>& batch) {
  begin_step(batch);
  try {
    const at::Tensor states = forward(batch);
    std::vector<std::int64_t> rows;
    std::vector<Draw> draws = plan_draws(batch, rows);
    if (!draws.empty()) {
      const at::Tensor wanted = states.index_select(0, at::tensor(rows, at::kLong).to(states.device()));
      draw_in_rounds(std::move(draws), model_.logits(wanted, cache_.batch_invariant()).cpu());
    }
  } catch (...) {
    cache_.set_batch({});
    fail_all(batch);
  }
  purge();
}

// ------------------------------------------------------------------------------------------- steps that overlap

void EngineCore::start(const std::vector<ScheduledChunk>& batch) {
  begin_step(batch);
  ops::PagedBatch paged;
  std::vector<std::int32_t> inputs, before;
  for (const ScheduledChunk& chunk : batch) {
    const Sequence& sequence = *chunk.sequence;
    const std::int64_t end = sequence.computed + chunk.tokens;
    const auto blocks = static_cast<std::ptrdiff_t>(blocks_for(end + chunk.drafted, options_.block_size));
    paged.sequences.push_back({sequence.computed, chunk.rows(), {sequence.blocks.begin(), sequence.blocks.begin() + blocks}});
    before.push_back(token_before(sequence));
    for (std::int64_t i = sequence.computed; i < end; ++i) {
      inputs.push_back(i < sequence.size() ? sequence.tokens[static_cast<std::size_t>(i)]
                                           : StepRunner::drawn(sequence.last_draw));
    }
    inputs.insert(inputs.end(), sequence.draft.begin(), sequence.draft.begin() + chunk.drafted);
  }
  try {
    runner_->forward(paged, inputs, before);
    std::int64_t row = 0;
    for (const ScheduledChunk& chunk : batch) {
      if (chunk.sequence->request->spec.prompt_logprobs) {
        report_prompt(chunk, [&](std::int64_t first, std::int64_t rows) {
          std::vector<std::int64_t> wanted(static_cast<std::size_t>(rows));
          std::iota(wanted.begin(), wanted.end(), row + first);
          const at::Tensor logits = runner_->logits(wanted);
          return logits.narrow(0, wanted.front(), rows).cpu();
        });
      }
      scheduler_.computed(*chunk.sequence, chunk.tokens);
      row += chunk.rows();
    }
    std::vector<std::int64_t> rows;
    std::vector<Draw> draws = plan_draws(batch, rows);
    if (!draws.empty()) start_draws(std::move(draws), std::move(rows));
  } catch (...) {
    fail_all(batch);
  }
}

void EngineCore::start_draws(std::vector<Draw> draws, std::vector<std::int64_t> rows) {
  const std::vector<std::int64_t> tokens = rows;  // of the pass
  const at::Tensor logits = runner_->logits(rows);
  std::vector<ops::SampleRow> sample_rows;
  std::deque<std::vector<std::int32_t>> lists;  // that sample_rows refer to
  for (Draw& draw : draws) {
    if (draw.drafted == 0) allow(*draw.sequence);
    ops::SampleRow& row = sample_rows.emplace_back(sample_row(*draw.sequence, draw.drafted));
    row.row = rows[static_cast<std::size_t>(draw.row)];
    if (draw.sequence->in_flight > 0) row.last_input = tokens[static_cast<std::size_t>(draw.row - draw.drafted)];
    if (draw.drafted > 0) {
      const auto draft = draw.sequence->draft.begin();
      for (std::span<const std::int32_t>* list : {&row.seen, &row.generated}) {
        std::vector<std::int32_t>& longer = lists.emplace_back(list->begin(), list->end());
        longer.insert(longer.end(), draft, draft + draw.drafted);
        *list = longer;
      }
    }
    if (draw.sequence->request->spec.top_logprobs <= ops::kMostTopLogprobs) continue;
    draw.error = std::make_exception_ptr(ConfigError(fmt::format("top_logprobs is {}, but must be at most {} on a GPU",
                                                                 draw.sequence->request->spec.top_logprobs,
                                                                 ops::kMostTopLogprobs)));
  }
  under_way_.push_back({{}, runner_->draw(logits, sample_rows)});
  for (std::size_t i = 0; i < draws.size(); ++i) {
    Sequence& sequence = *draws[i].sequence;
    draws[i].number = sequence.void_draws;
    if (draws[i].drafted > 0) {
      under_way_.back().drafts = true;
      continue;
    }
    sequence.last_draw = static_cast<std::int64_t>(i);
    ++sequence.in_flight;
  }
  under_way_.back().draws = std::move(draws);
}

void EngineCore::read_oldest() {
  UnderWay step = std::move(under_way_.front());
  under_way_.pop_front();
  ++steps_read_;
  const auto counts = [](const Draw& draw) { return !draw.sequence->finished && draw.number == draw.sequence->void_draws; };
  try {
    std::vector<ops::SampledRow> results = step.results->read();
    for (std::size_t i = 0; i < step.draws.size(); ++i) {
      Draw& draw = step.draws[i];
      if (!counts(draw)) continue;  // the sequence ended, or a tool put tokens in its place
      if (draw.drafted == 0) --draw.sequence->in_flight;
      if (!confirm_draft(draw)) continue;
      draw.token = results[i].token;
      draw.top = std::move(results[i].top);
      if (!results[i].error.empty() && !draw.error) draw.error = std::make_exception_ptr(NumericalError(results[i].error));
      accept(draw);
    }
  } catch (...) {
    for (const Draw& draw : step.draws) {
      if (counts(draw)) fail(*draw.sequence, std::current_exception());
    }
  }
  purge();
  while (!leaving_.empty() && leaving_.front().first <= steps_read_) leaving_.pop_front();
}

at::Tensor EngineCore::forward(const std::vector<ScheduledChunk>& batch) {
  ops::PagedBatch paged;
  std::vector<std::int32_t> before;
  for (const ScheduledChunk& chunk : batch) {
    const Sequence& sequence = *chunk.sequence;
    paged.sequences.push_back({sequence.computed, chunk.rows(), sequence.blocks});
    before.push_back(token_before(sequence));
  }
  const at::Tensor ids = at::empty({paged.tokens(), 1}, at::kInt);
  std::int32_t* id = ids.data_ptr<std::int32_t>();
  for (const ScheduledChunk& chunk : batch) {
    const auto first = chunk.sequence->tokens.begin() + chunk.sequence->computed;
    id = std::copy(first, first + chunk.tokens, id);
    id = std::copy_n(chunk.sequence->draft.begin(), chunk.drafted, id);
  }
  cache_.set_batch(std::move(paged), std::move(before));
  const at::Tensor states = model_.forward_states(ids, cache_);
  std::int64_t row = 0;
  for (const ScheduledChunk& chunk : batch) {
    if (chunk.sequence->request->spec.prompt_logprobs) {
      report_prompt(chunk, [&](std::int64_t first, std::int64_t rows) {
        return model_.logits(states.narrow(0, row + first, rows), cache_.batch_invariant()).cpu();
      });
    }
    scheduler_.computed(*chunk.sequence, chunk.tokens);
    row += chunk.rows();
  }
  return states;
}

// Log-probabilities of the prompt's tokens that this chunk predicts.
void EngineCore::report_prompt(const ScheduledChunk& chunk, const ChunkLogits& chunk_logits) {
  const Sequence& sequence = *chunk.sequence;
  ActiveRequest& request = *sequence.request;
  const std::int64_t end = std::min(sequence.computed + chunk.tokens, request.prompt_size() - 1);
  for (std::int64_t first = sequence.computed; first < end; first += kLogitRows) {
    const std::int64_t rows = std::min(kLogitRows, end - first);
    const at::Tensor logits = chunk_logits(first - sequence.computed, rows);
    const auto vocab = static_cast<std::size_t>(logits.size(1));
    for (std::int64_t i = 0; i < rows; ++i) {
      if (first + i != static_cast<std::int64_t>(request.prompt_logprobs.size())) continue;  // computed again after preemption
      const std::span<const float> row(logits.const_data_ptr<float>() + static_cast<std::size_t>(i) * vocab, vocab);
      const std::int32_t id = sequence.tokens[static_cast<std::size_t>(first + i + 1)];
      request.prompt_logprobs.push_back({{id, Sampler::logprob(row, id)},
                                         Sampler::most_likely(row, request.spec.top_logprobs)});
    }
  }
  const bool complete = sequence.computed + chunk.tokens >= request.prompt_size();
  if (!complete || std::exchange(request.prompt_reported, true)) return;
  EngineEvent event;
  event.kind = EngineEventKind::kPromptLogprobs;
  event.prompt = request.prompt_logprobs;
  emit(request, event);
}

std::vector<EngineCore::Draw> EngineCore::plan_draws(const std::vector<ScheduledChunk>& batch,
                                                     std::vector<std::int64_t>& rows) {
  std::vector<Draw> draws;
  std::int64_t token = 0;
  for (const ScheduledChunk& chunk : batch) {
    const std::int64_t last = token + chunk.tokens - 1;  // before the draft
    token += chunk.rows();
    Sequence& sequence = *chunk.sequence;
    ActiveRequest& request = *sequence.request;
    if (sequence.pending() > 0) continue;
    if (request.max_tokens == 0) {
      finish(sequence, FinishReason::kLength);
      continue;
    }
    std::size_t from = static_cast<std::size_t>(sequence.index), to = from + 1;
    if (sequence.generated() == 0) {
      if (request.spec.constraint != nullptr && sequence.constraint == nullptr)
        sequence.constraint = request.spec.constraint->clone();
      if (sequence.forks()) {
        scheduler_.fork(sequence, [&](std::int32_t source, std::int32_t target) { cache_.copy_block(source, target); });
        to = request.sequences.size();
      }
    }
    for (std::size_t i = from; i < to; ++i) {
      Sequence& one = *request.sequences[i];
      if (request.spec.constraint != nullptr && one.constraint == nullptr) one.constraint = request.spec.constraint->clone();
      if (request.spec.tools && one.tool == nullptr) one.tool = options_.make_tool();
      Draw draw;
      draw.sequence = &one;
      draw.row = static_cast<std::int64_t>(rows.size());
      draws.push_back(std::move(draw));
    }
    rows.push_back(last);
    for (std::int64_t drafted = 1; drafted <= chunk.drafted; ++drafted) {
      Draw draw;
      draw.sequence = &sequence;
      draw.row = static_cast<std::int64_t>(rows.size());
      draw.drafted = drafted;
      draws.push_back(std::move(draw));
      rows.push_back(last + drafted);
    }
  }
  return draws;
}

bool EngineCore::confirm_draft(const Draw& draw) {
  Sequence& sequence = *draw.sequence;
  if (draw.drafted == 0) {
    sequence.draft_drawn = 0;
    return true;
  }
  const std::int32_t drafted = sequence.draft[static_cast<std::size_t>(draw.drafted) - 1];
  // More than one pending token: a tool put some in.
  if (sequence.finished || sequence.draft_drawn + 1 != draw.drafted || sequence.pending() != 1 ||
      sequence.tokens.back() != drafted) {
    return false;
  }
  sequence.draft_drawn = draw.drafted;
  ++totals_.accepted_tokens;
  scheduler_.computed(sequence, 1);
  return true;
}

void EngineCore::draw_in_rounds(std::vector<Draw> draws, const at::Tensor& logits) {
  std::vector<Draw> round;
  for (std::int64_t drafted = 0; !draws.empty(); ++drafted) {
    const auto later = std::stable_partition(draws.begin(), draws.end(),
                                             [&](const Draw& one) { return one.drafted == drafted; });
    round.assign(std::make_move_iterator(draws.begin()), std::make_move_iterator(later));
    draws.erase(draws.begin(), later);
    std::erase_if(round, [&](const Draw& one) { return !confirm_draft(one); });
    draw(round, logits);
    for (const Draw& drawn : round) accept(drawn);
  }
}

void EngineCore::draw(std::vector<Draw>& draws, const at::Tensor& logits) const {
  const auto vocab = static_cast<std::size_t>(logits.size(1));
  const float* data = logits.const_data_ptr<float>();
  // Sequences of a request may share their constraint's tables: those of one are prepared one after the other.
  for (const Draw& one : draws) allow(*one.sequence);
  ops::parallel_for(static_cast<std::int64_t>(draws.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      draw_one(draws[i], {data + static_cast<std::size_t>(draws[i].row) * vocab, vocab});
    }
  });
}

std::vector<std::uint64_t> EngineCore::allowed_tokens(TokenConstraint& constraint, const ActiveRequest& request,
                                                      std::int64_t generated) {
  const std::span<const std::uint64_t> tokens = constraint.allowed(request.max_tokens - generated);
  std::vector<std::uint64_t> allowed(tokens.begin(), tokens.end());
  if (!constraint.may_end() || request.spec.ignore_eos) return allowed;
  for (const std::int32_t stop : request.spec.stop_tokens) {
    allowed[static_cast<std::size_t>(stop) / 64] |= std::uint64_t{1} << (stop % 64);
  }
  return allowed;
}

void EngineCore::allow(Sequence& sequence) {
  if (sequence.constraint == nullptr) return;
  sequence.allowed = allowed_tokens(*sequence.constraint, *sequence.request, sequence.generated());
}

DrawContext EngineCore::context_of(const Sequence& sequence, std::int64_t drafted) {
  const EngineRequest& spec = sequence.request->spec;
  const std::span<const std::int32_t> tokens(sequence.tokens);
  DrawContext context;
  context.seen = tokens;
  context.generated = tokens.subspan(spec.prompt.size());
  if (sequence.constraint != nullptr) {
    context.allowed = drafted == 0 ? sequence.allowed : sequence.draft_allowed[static_cast<std::size_t>(drafted) - 1];
  }
  if (sequence.drawn() + drafted < spec.min_tokens && !spec.ignore_eos) context.forbidden = spec.stop_tokens;
  context.logprob = spec.logprobs;
  context.uniform = uniform_at(spec.sampling.seed, spec.first_stream + static_cast<std::uint64_t>(sequence.index),
                               static_cast<std::uint64_t>(sequence.size() + sequence.in_flight + drafted));
  return context;
}

// What the device's sampler takes for what draw_one() does.
ops::SampleRow EngineCore::sample_row(const Sequence& sequence, std::int64_t drafted) {
  const EngineRequest& spec = sequence.request->spec;
  const DrawContext context = context_of(sequence, drafted);
  ops::SampleRow row = spec.sampling.row();
  row.seen = context.seen;
  row.generated = context.generated;
  row.allowed = context.allowed;
  row.forbidden = context.forbidden;
  row.uniform = context.uniform;
  row.logprob = context.logprob;
  row.top_logprobs = std::min(spec.top_logprobs, ops::kMostTopLogprobs);
  return row;
}

void EngineCore::draw_one(Draw& draw, std::span<const float> logits) const {
  Sequence& sequence = *draw.sequence;
  const EngineRequest& spec = sequence.request->spec;
  try {
    draw.token = sequence.sampler.sample(logits, context_of(sequence));
    if (spec.top_logprobs > 0) draw.top = Sampler::most_likely(logits, spec.top_logprobs);
  } catch (...) {
    draw.error = std::current_exception();
  }
}

void EngineCore::accept(const Draw& draw) {
  Sequence& sequence = *draw.sequence;
  if (sequence.finished) return;
  if (draw.error) return fail(sequence, draw.error, fmt::format("generating token {}: ", sequence.generated() + 1));
  const EngineRequest& spec = sequence.request->spec;
  const auto& stops = spec.stop_tokens;
  if (!spec.ignore_eos && std::find(stops.begin(), stops.end(), draw.token.id) != stops.end()) {
    return finish(sequence, FinishReason::kStop, draw.token.id);
  }
  if (sequence.constraint != nullptr) sequence.constraint->accept(draw.token.id);
  EngineEvent event;
  event.token = draw.token;
  event.top = draw.top;
  if (!append(sequence, event)) return finish(sequence, FinishReason::kStop);
  if (sequence.constraint != nullptr && sequence.constraint->must_end()) return finish(sequence, FinishReason::kStop);
  if (end_if_full(sequence) || sequence.tool == nullptr) return;
  force(sequence, sequence.tool->accept(draw.token.id));
}

void EngineCore::force(Sequence& sequence, const std::vector<std::int32_t>& tokens) {
  if (tokens.empty()) return;
  // The draw that is under way is of what would have come in their place.
  ++sequence.void_draws;
  sequence.in_flight = 0;
  for (const std::int32_t token : tokens) {
    EngineEvent event;
    event.token.id = token;
    event.forced = true;
    if (!append(sequence, event)) return finish(sequence, FinishReason::kStop);
    if (end_if_full(sequence)) return;
  }
}

bool EngineCore::append(Sequence& sequence, const EngineEvent& what) {
  ActiveRequest& request = *sequence.request;
  const EngineClock::time_point now = EngineClock::now();
  sequence.tokens.push_back(what.token.id);
  completion_rate_.add(1, now);
  if (request.usage.completion_tokens++ == 0) request.usage.first_token_seconds = seconds_between(request.submitted, now);
  EngineEvent event = what;
  event.kind = EngineEventKind::kToken;
  event.sequence = sequence.index;
  return emit(request, event);
}

bool EngineCore::end_if_full(Sequence& sequence) {
  if (sequence.generated() < sequence.request->max_tokens) return false;
  const bool whole = sequence.constraint != nullptr && sequence.constraint->may_end();
  finish(sequence, whole ? FinishReason::kStop : FinishReason::kLength);
  return true;
}

void EngineCore::fail(Sequence& sequence, const std::exception_ptr& error, const std::string& doing) {
  EngineEvent event;
  event.reason = FinishReason::kError;
  event.exception = error;
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& known) {
    const std::string what = known.what();  // LibTorch's go on with a trace of calls
    event.error = doing + what.substr(0, what.find('\n'));
  } catch (...) {
    event.error = doing + "an unknown exception";
  }
  finish(sequence, event);
}

EngineStats EngineCore::stats() const {
  EngineStats stats = totals_;
  scheduler_.count(stats);
  const EngineClock::time_point now = EngineClock::now();
  stats.prompt_tokens_per_second = prompt_rate_.per_second(now);
  stats.completion_tokens_per_second = completion_rate_.per_second(now);
  return stats;
}

}  // namespace nanochat
