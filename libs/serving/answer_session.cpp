#include "serving/answer_session.h"

#include <algorithm>

#include "core/elapsed.h"
#include "core/log.h"
#include "serving/api_error.h"

namespace nanochat {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

const char* reason_text(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kCancelled: return "cancelled";
    default: return "error";
  }
}

}  // namespace

AnswerSession::AnswerSession(std::shared_ptr<const ServedModel> model, std::shared_ptr<ServerMetrics> metrics,
                             std::shared_ptr<HttpExchange> exchange, AnswerPlan plan)
    : model_(std::move(model)), metrics_(std::move(metrics)), exchange_(std::move(exchange)), plan_(std::move(plan)),
      usages_(plan_.requests.size()), remaining_(plan_.requests.size()) {
  for (std::size_t r = 0; r < plan_.requests.size(); ++r) {
    for (std::int64_t i = 0; i < plan_.fields.n; ++i) {
      Choice choice{.text = AnswerText(*model_->tokenizer, plan_.fields.stop, plan_.head.chat)};
      if (plan_.echo) choice.prefix = plan_.echo_texts[r];
      if (plan_.tool_call) choice.call.emplace();
      if (plan_.tool_call) choice.call_id = new_id("call_");
      choices_.push_back(std::move(choice));
    }
    prompts_.push_back(plan_.echo && plan_.fields.logprobs ? plan_.requests[r].prompt : std::vector<TokenId>());
  }
}

void AnswerSession::start() {
  const auto self = shared_from_this();
  try {
    for (std::size_t r = 0; r < plan_.requests.size(); ++r) {
      EngineRequest request = std::move(plan_.requests[r]);
      request.on_event = [self, r](const EngineEvent& event) { return self->on_event(r, event); };
      const Submission submission = model_->engine->submit(std::move(request));
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
    if (session == nullptr || !session->plan_.fields.stream) return;
    const std::lock_guard lock(session->mutex_);
    if (session->error_.empty()) session->begin_stream();
  });
  exchange_->on_gone([self] { self->cancel(); });  // the exchange forgets it when the request is over
}

void AnswerSession::cancel() {
  std::vector<RequestId> ids;
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    ids = ids_;
  }
  for (const RequestId id : ids) model_->engine->cancel(id);
}

AnswerOutcome AnswerSession::outcome() const {
  const std::lock_guard lock(mutex_);
  AnswerOutcome outcome{total_usage(), {}};
  for (const Choice& choice : choices_) {
    outcome.finish_reasons += (outcome.finish_reasons.empty() ? "" : ",") + (choice.finish_reason.empty() ? "none" : choice.finish_reason);
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
  if (cancelled_) return true;  // ends as a cancelled one at the engine's next step, not as one that found its end
  Choice& choice = choices_[request * static_cast<std::size_t>(plan_.fields.n) + static_cast<std::size_t>(event.sequence)];
  bool go_on = true;
  switch (event.kind) {
    case EngineEventKind::kPromptLogprobs: take_prompt(request, event); break;
    case EngineEventKind::kToken: go_on = take_token(choice, event); break;
    case EngineEventKind::kFinish:
      choice.text.finish();
      choice.finish_reason = choice.stopped ? "stop" : reason_text(event.reason);
      if (choice.call && choice.finish_reason == "stop") choice.finish_reason = "tool_calls";
      if (event.reason == FinishReason::kError) fail(event.error);
      break;
    case EngineEventKind::kDone:
      --remaining_;
      if (remaining_ == 0 && !plan_.fields.stream && error_.empty()) respond_whole();
      break;
  }
  if (plan_.fields.stream && error_.empty()) begin_stream();
  if (streaming_) exchange_->wake();
  return go_on;
}

void AnswerSession::take_prompt(std::size_t request, const EngineEvent& event) {
  std::vector<AnswerToken> tokens;
  std::size_t offset = 0;
  const std::vector<TokenId>& ids = prompts_[request];
  for (std::size_t i = 0; i < ids.size(); ++i) {
    AnswerToken one{{ids[i], 0.0}, {}, offset};
    if (i > 0 && i - 1 < event.prompt.size()) {
      one.token = event.prompt[i - 1].token;
      one.top = event.prompt[i - 1].top;
    }
    const Tokenizer& tokenizer = *model_->tokenizer;
    if (ids[i] < tokenizer.vocab_size() && !tokenizer.is_special(ids[i])) offset += tokenizer.token_bytes(ids[i]).size();
    tokens.push_back(std::move(one));
  }
  for (std::int64_t i = 0; i < plan_.fields.n; ++i) {
    choices_[request * static_cast<std::size_t>(plan_.fields.n) + static_cast<std::size_t>(i)].prefix_tokens = tokens;
  }
}

bool AnswerSession::take_token(Choice& choice, const EngineEvent& event) {
  const auto now = Clock::now();
  if (!seen_token_) metrics_->first_token(seconds_between(begin_, now));
  seen_token_ = true;
  if (choice.last_token != Clock::time_point()) metrics_->inter_token(seconds_between(choice.last_token, now));
  choice.last_token = now;
  if (choice.stopped) return false;
  const bool go_on = choice.text.push(event.token, {event.top.begin(), event.top.end()}, event.forced);
  const bool end = std::find(plan_.ends.begin(), plan_.ends.end(), event.token.id) != plan_.ends.end();
  choice.stopped = !go_on || end;
  return !choice.stopped;
}

void AnswerSession::fail(std::string message) {
  if (!error_.empty()) return;
  log_error("an answer failed: {}", message);
  error_ = message.empty() ? "the engine failed" : std::move(message);
  if (streaming_) return;  // read() tells it
  exchange_->respond(ApiError(500, "server_error", error_, {}, "internal_error").response());
}

void AnswerSession::begin_stream() {
  if (std::exchange(streaming_, true)) return;
  HttpResponse response{.content_type = "text/event-stream; charset=utf-8"};
  response.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  response.stream = shared_from_this();
  exchange_->respond(std::move(response));
}

ChoicePart AnswerSession::part_of(std::size_t index) {
  Choice& choice = choices_[index];
  ChoicePart part;
  part.index = static_cast<std::int64_t>(index);
  part.tokens = std::exchange(choice.prefix_tokens, {});
  const std::string prefix = std::exchange(choice.prefix, {});
  std::vector<AnswerToken> tokens = choice.text.take_tokens();
  for (AnswerToken& token : tokens) {
    token.offset += plan_.echo ? plan_.echo_texts[index / static_cast<std::size_t>(plan_.fields.n)].size() : 0;
    part.tokens.push_back(std::move(token));
  }
  part.text = prefix + choice.text.take_text();
  if (plan_.head.chat) part.calculations = choice.text.take_calculations();
  if (choice.call) {
    part.call = choice.call->push(std::exchange(part.text, {}));
    part.call_id = choice.call_id;
  }
  part.begins = !std::exchange(choice.begun, true);
  part.finish_reason = choice.finish_reason;
  return part;
}

Json AnswerSession::logprobs_of(const ChoicePart& part, bool with_prompt) const {
  if (!plan_.fields.logprobs) return nullptr;
  const Tokenizer& tokenizer = *model_->tokenizer;
  if (plan_.head.chat) return chat_logprobs(tokenizer, part.tokens, plan_.fields.top_logprobs);
  return completion_logprobs(tokenizer, part.tokens, plan_.fields.top_logprobs, with_prompt, 0);
}

void AnswerSession::respond_whole() {
  Json choices = Json::array();
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    const bool with_prompt = !choices_[i].prefix_tokens.empty();
    const ChoicePart part = part_of(i);
    choices.push_back(whole_choice(plan_.head, part, logprobs_of(part, with_prompt)));
  }
  Json answer = answer_json(plan_.head, false, std::move(choices));
  answer["usage"] = usage_json(total_usage());
  exchange_->respond(HttpResponse{.body = dump(answer)});
}

// ------------------------------------------------------------------------------------------- on the connection's thread

void AnswerSession::write_event(std::string_view choice, std::string& out, bool last) {
  if (event_head_.empty()) {
    event_head_ = "data: " + dump(answer_json(plan_.head, true, Json::array()));
    event_head_.resize(event_head_.size() - 2);  // all but the end of the choices, "]}"
  }
  const GenerationFields& fields = plan_.fields;
  out.append(event_head_).append(choice);
  if (fields.continuous_usage || last) {
    out.append(R"(],"usage":)").append(dump(usage_json(total_usage()))).append("}\n\n");
  } else {
    out.append(fields.include_usage ? "],\"usage\":null}\n\n" : "]}\n\n");
  }
}

void AnswerSession::write_choice(std::size_t index, std::string& out) {
  Choice& choice = choices_[index];
  const bool with_prompt = !choice.prefix_tokens.empty();
  ChoicePart part = part_of(index);
  const std::string reason = std::exchange(part.finish_reason, {});
  if (plan_.head.chat && part.begins) {
    ChoicePart begin{.index = part.index, .begins = true};
    if (part.call) begin.call.emplace();
    write_event(dump(chunk_choice(plan_.head, begin, nullptr)), out);
  }
  part.begins = false;
  const bool calls = part.call && !part.call->empty();
  if (!part.text.empty() || calls || !part.calculations.empty() || (plan_.fields.logprobs && !part.tokens.empty())) {
    const bool text_alone = !part.call && !plan_.fields.logprobs && part.calculations.empty();
    write_event(text_alone ? text_chunk_choice(plan_.head, part.index, part.text)
                           : dump(chunk_choice(plan_.head, part, logprobs_of(part, with_prompt))), out);
  }
  if (reason.empty() || std::exchange(choice.finish_sent, true)) return;
  write_event(dump(chunk_choice(plan_.head, {.index = part.index, .finish_reason = reason}, nullptr)), out);
}

bool AnswerSession::read(std::string& out) {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < choices_.size() && error_.empty(); ++i) write_choice(i, out);
  if (!error_.empty()) {
    out += "data: " + ApiError(500, "server_error", error_, {}, "internal_error").json() + "\n\ndata: [DONE]\n\n";
    return false;
  }
  if (remaining_ > 0) return true;
  if (plan_.fields.include_usage) write_event({}, out, true);
  out += "data: [DONE]\n\n";
  return false;
}

}  // namespace nanochat
