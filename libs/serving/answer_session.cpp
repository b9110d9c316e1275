#include "serving/internal/answer_session.h"

#include <algorithm>

#include "core/elapsed.h"
#include "core/log.h"
#include "serving/api_error.h"

namespace nanochat {
namespace {

ChoiceEnd end_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return ChoiceEnd::kStop;
    case FinishReason::kLength: return ChoiceEnd::kLength;
    case FinishReason::kCancelled: return ChoiceEnd::kCancelled;
    default: return ChoiceEnd::kError;
  }
}

}  // namespace

AnswerSession::AnswerSession(std::shared_ptr<ServerMetrics> metrics, std::shared_ptr<HttpExchange> exchange, AnswerPlan plan,
                             bool begun)
    : metrics_(std::move(metrics)), exchange_(std::move(exchange)), plan_(std::move(plan)), usages_(plan_.prompts.size()),
      remaining_(plan_.prompts.size()), streaming_(begun) {
  for (const AnswerPrompt& prompt : plan_.prompts) {
    for (std::int64_t i = 0; i < plan_.n; ++i) {
      Choice choice{.text = AnswerText(*plan_.served->tokenizer, plan_.stop, plan_.hide_calculator)};
      choice.prefix = prompt.echo;
      if (plan_.tool_choice != ToolChoice::kNone) choice.calls.emplace(plan_.call_beginning);
      choices_.push_back(std::move(choice));
    }
    scored_prompts_.push_back(prompt.request.prompt_logprobs ? prompt.request.prompt : std::vector<TokenId>());
  }
}

void AnswerSession::start() {
  const auto self = shared_from_this();
  try {
    for (std::size_t r = 0; r < plan_.prompts.size(); ++r) {
      EngineRequest request = std::move(plan_.prompts[r].request);
      request.on_event = [self, r](const EngineEvent& event) { return self->on_event(r, event); };
      const Submission submission = plan_.served->engine->submit(std::move(request));
      if (submission.refusal == Refusal::kQueueFull) throw ApiError::busy("too many requests are waiting; try again later");
      if (!submission) throw ApiError::unavailable("the server is shutting down");
      const std::lock_guard lock(mutex_);
      ids_.push_back(submission.id);
    }
  } catch (...) {
    cancel();
    throw;
  }
  const std::weak_ptr<AnswerSession> weak = self;
  exchange_->on_quiet([weak] {
    const auto session = weak.lock();
    if (session == nullptr || !session->plan_.stream) return;
    const std::lock_guard lock(session->mutex_);
    if (!session->error_) session->begin_stream();
  });
  exchange_->on_gone([self] { self->cancel(); });  // the exchange drops this function at its end
}

void AnswerSession::cancel() {
  std::vector<RequestId> ids;
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    ids = ids_;
  }
  for (const RequestId id : ids) plan_.served->engine->cancel(id);
  if (plan_.turn) plan_.turn->abandon();
}

void AnswerSession::abort(const ApiError& error) {
  {
    const std::lock_guard lock(mutex_);
    if (remaining_ == 0 || cancelled_) return;
    for (Choice& choice : choices_) {
      if (!choice.end) choice.end = ChoiceEnd::kCancelled;
    }
    fail(error);
    if (streaming_) exchange_->wake();
  }
  cancel();
}

AnswerOutcome AnswerSession::outcome() const {
  const std::lock_guard lock(mutex_);
  return current_outcome();
}

AnswerOutcome AnswerSession::current_outcome() const {
  AnswerOutcome outcome{total_usage(), {}};
  for (const Choice& choice : choices_) {
    if (!outcome.finish_reasons.empty()) outcome.finish_reasons += ',';
    outcome.finish_reasons += choice.end ? name_of(*choice.end) : "none";
  }
  return outcome;
}

EngineUsage AnswerSession::total_usage() const {
  EngineUsage total;
  for (const EngineUsage& usage : usages_) {
    total.prompt_tokens += usage.prompt_tokens;
    total.cached_tokens += usage.cached_tokens;
    total.completion_tokens += usage.completion_tokens;
  }
  return total;
}

// ----------------------------------------------------------------------------------------------- on the engine's thread

bool AnswerSession::on_event(std::size_t request, const EngineEvent& event) {
  const std::lock_guard lock(mutex_);
  usages_[request] = event.usage;
  if (cancelled_) return true;  // returning true lets the engine end it as cancelled at its next step
  Choice& choice = choices_[request * static_cast<std::size_t>(plan_.n) + static_cast<std::size_t>(event.sequence)];
  bool go_on = true;
  switch (event.kind) {
    case EngineEventKind::kPromptLogprobs: take_prompt(request, event); break;
    case EngineEventKind::kToken: go_on = take_token(choice, event); break;
    case EngineEventKind::kFinish:
      choice.text.finish();
      choice.end = choice.stopped ? ChoiceEnd::kStop : end_of(event.reason);
      if (event.reason == FinishReason::kError) {
        log_error("an answer failed: {}", event.error);
        fail(ApiError::internal(event.error.empty() ? "the engine failed" : event.error));
      }
      break;
    case EngineEventKind::kDone:
      --remaining_;
      if (remaining_ == 0 && !plan_.stream && !error_) respond_whole();
      break;
  }
  if (plan_.stream && !error_) begin_stream();
  if (streaming_) exchange_->wake();
  return go_on;
}

void AnswerSession::take_prompt(std::size_t request, const EngineEvent& event) {
  std::vector<AnswerToken> tokens;
  std::size_t offset = 0;
  const std::vector<TokenId>& ids = scored_prompts_[request];
  for (std::size_t i = 0; i < ids.size(); ++i) {
    AnswerToken one{{ids[i], 0.0}, {}, offset};
    if (i > 0 && i - 1 < event.prompt.size()) {
      one.token = event.prompt[i - 1].token;
      one.top = event.prompt[i - 1].top;
    }
    const Tokenizer& tokenizer = *plan_.served->tokenizer;
    if (ids[i] < tokenizer.vocab_size() && !tokenizer.is_special(ids[i])) offset += tokenizer.token_bytes(ids[i]).size();
    tokens.push_back(std::move(one));
  }
  for (std::int64_t i = 0; i < plan_.n; ++i) {
    choices_[request * static_cast<std::size_t>(plan_.n) + static_cast<std::size_t>(i)].prefix_tokens = tokens;
  }
}

bool AnswerSession::take_token(Choice& choice, const EngineEvent& event) {
  const auto now = Clock::now();
  if (!seen_token_) metrics_->first_token(seconds_between(exchange_->arrival(), now));
  seen_token_ = true;
  if (choice.last_token != Clock::time_point()) metrics_->inter_token(seconds_between(choice.last_token, now));
  choice.last_token = now;
  if (choice.stopped) return false;
  if (plan_.turn) plan_.turn->add_token(event.token.id);
  const bool go_on = choice.text.push(event.token, {event.top.begin(), event.top.end()}, event.forced);
  const bool end = std::find(plan_.ends.begin(), plan_.ends.end(), event.token.id) != plan_.ends.end();
  choice.stopped = !go_on || end;
  return !choice.stopped;
}

void AnswerSession::fail(const ApiError& error) {
  if (error_) return;
  error_ = error;
  if (plan_.turn) plan_.turn->abandon();
  if (!streaming_) exchange_->respond(plan_.format->failure(error));  // else read() reports it
}

void AnswerSession::begin_stream() {
  if (std::exchange(streaming_, true)) return;
  exchange_->respond(event_stream(shared_from_this()));
}

ChoicePart AnswerSession::part_of(std::size_t index) {
  Choice& choice = choices_[index];
  ChoicePart part;
  part.index = static_cast<std::int64_t>(index);
  part.tokens = std::exchange(choice.prefix_tokens, {});
  part.begins_with_prompt = !part.tokens.empty();
  std::vector<AnswerToken> tokens = choice.text.take_tokens();
  if (!plan_.logprobs) tokens.clear();
  for (AnswerToken& token : tokens) {
    token.offset += plan_.prompts[index / static_cast<std::size_t>(plan_.n)].echo.size();
    part.tokens.push_back(std::move(token));
  }
  part.text = std::exchange(choice.prefix, {}) + choice.text.take_text();
  if (plan_.hide_calculator) part.calculations = choice.text.take_calculations();
  part.tool_choice = plan_.tool_choice;
  if (choice.calls) {
    auto [text, calls] = choice.calls->push(part.text);
    part.text = std::move(text);
    part.calls = std::move(calls);
    for (ToolCallPart& call : part.calls) {
      if (!call.name.empty()) call.id = new_id("call_");
    }
    if (choice.end) part.text += choice.calls->finish();
    if (choice.end == ChoiceEnd::kStop && choice.calls->has_called()) choice.end = ChoiceEnd::kCall;
  }
  part.end = choice.end;
  if (part.end) part.stop_string = choice.text.stop_string();
  if (plan_.turn) plan_.turn->add(part);
  if (plan_.keep) choice.whole.append(part);
  return part;
}

void AnswerSession::respond_whole() {
  std::vector<ChoicePart> parts;
  for (std::size_t i = 0; i < choices_.size(); ++i) parts.push_back(part_of(i));
  if (plan_.turn) plan_.turn->commit();
  keep();
  exchange_->respond(HttpResponse{.body = plan_.format->whole(parts, total_usage())});
}

void AnswerSession::keep() {
  if (!plan_.keep) return;
  CachedAnswer answer{.outcome = current_outcome()};
  answer.outcome.cached = true;
  for (Choice& choice : choices_) {
    const bool complete = choice.end == ChoiceEnd::kStop || choice.end == ChoiceEnd::kLength || choice.end == ChoiceEnd::kCall;
    if (!complete) return;
    answer.choices.push_back(std::move(choice.whole));
  }
  plan_.keep(std::move(answer));
}

// ------------------------------------------------------------------------------------------- on the connection's thread

void AnswerSession::write_choice(std::size_t index, const EngineUsage& usage, std::string& out) {
  Choice& choice = choices_[index];
  if (choice.finish_sent) return;
  const ChoicePart part = part_of(index);
  if (!std::exchange(choice.begun, true)) plan_.format->begin(part, usage, out);
  if (part.has_content()) plan_.format->delta(part, usage, out);
  if (!part.end) return;
  plan_.format->finish(part, usage, out);
  choice.finish_sent = true;
}

bool AnswerSession::read(std::string& out) {
  const std::lock_guard lock(mutex_);
  if (error_) {
    plan_.format->fail(*error_, out);
    return false;
  }
  const EngineUsage usage = total_usage();
  for (std::size_t i = 0; i < choices_.size(); ++i) write_choice(i, usage, out);
  if (remaining_ > 0) return true;
  if (plan_.turn) plan_.turn->commit();
  keep();
  plan_.format->end(usage, out);
  return false;
}

}  // namespace nanochat
