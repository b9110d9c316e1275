#include "serving/internal/api_answers.h"

#include <ctime>
#include <optional>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "serving/api_error.h"
#include "serving/internal/anthropic_format.h"
#include "serving/internal/anthropic_request.h"
#include "serving/internal/api_request.h"
#include "serving/internal/chat_format.h"
#include "serving/internal/completion_format.h"
#include "serving/internal/responses_format.h"
#include "serving/internal/responses_request.h"

namespace nanochat {
namespace {

void check_token(const ServedModel& model, TokenId id, const char* field) {
  if (id < model.engine->vocab_size()) return;
  throw ApiError::invalid(fmt::format("{}: found token id {}, expected one below {}, the vocabulary size", field, id,
                                      model.engine->vocab_size()),
                          field);
}

// The engine would refuse this too. The error here has the code of OpenAI's API.
void check_length(const ServedModel& model, const EngineRequest& request, const std::string& field) {
  const auto length = static_cast<std::int64_t>(request.prompt.size());
  const std::int64_t context = model.engine->context_length();
  if (length == 0) throw ApiError::invalid(fmt::format("{}: found no tokens, expected at least 1", field), field);
  const std::int64_t room = request.max_tokens == 0 ? context : context - 1;
  if (length > room) {
    // LiteLLM and others know this error by the end of the message.
    throw ApiError::invalid(
        fmt::format("{}: found {} tokens, expected at most {}: this model's maximum context length is {} tokens", field, length,
                    room, context),
        field, "context_length_exceeded");
  }
}

EngineRequest engine_request(const ServedModel& model, const GenerationFields& fields, std::vector<TokenId> prompt) {
  if (const std::int64_t most = model.engine->max_choices(); fields.n > most) {
    constexpr const char* kText =
        "n: found {}, expected at most {}, the number of answers that this server generates at a time";
    throw ApiError::invalid(fmt::format(kText, fields.n, most), "n", "out_of_range");
  }
  EngineRequest request;
  request.prompt = std::move(prompt);
  request.sampling = fields.sampling;
  request.max_tokens = fields.max_tokens;
  request.min_tokens = fields.min_tokens;
  if (fields.stop_token_ids.empty() || !fields.ignore_eos) request.stop_tokens = model.stop_tokens;
  request.ignore_eos = fields.ignore_eos && fields.stop_token_ids.empty();
  request.stop_tokens.insert(request.stop_tokens.end(), fields.stop_token_ids.begin(), fields.stop_token_ids.end());
  request.n = fields.n;
  request.logprobs = fields.logprobs;
  request.top_logprobs = fields.top_logprobs;
  for (const auto& [id, bias] : fields.sampling.logit_bias) check_token(model, id, "logit_bias");
  for (const TokenId id : fields.stop_token_ids) check_token(model, id, "stop_token_ids");
  return request;
}

AnswerHead answer_head(const ServedModel& model, std::string_view id_prefix) {
  return {new_id(id_prefix), model.id, model.fingerprint, static_cast<std::int64_t>(std::time(nullptr))};
}

// The part of a plan that is the same for chats and completions. `prompts` is empty.
AnswerPlan answer_plan(GenerationFields fields, std::unique_ptr<AnswerFormat> format) {
  return {.format = std::move(format),
          .n = fields.n,
          .stream = fields.stream,
          .logprobs = fields.logprobs,
          .stop = std::move(fields.stop)};
}

// The tokens of one entry of "prompt". With `with_bos`, a text gets <|bos|> in front. Token ids do not change.
std::vector<TokenId> prompt_ids(const ServedModel& model, const std::variant<std::string, std::vector<TokenId>>& prompt,
                                bool with_bos) {
  const Tokenizer& tokenizer = *model.tokenizer;
  if (const auto* text = std::get_if<std::string>(&prompt)) {
    std::vector<TokenId> ids;
    if (with_bos) ids.push_back(tokenizer.bos_id());
    tokenizer.encode(*text, ids);
    return ids;
  }
  const auto& ids = std::get<std::vector<TokenId>>(prompt);
  for (const TokenId id : ids) check_token(model, id, "prompt");
  return ids;
}

std::string echo_text(const ServedModel& model, const std::variant<std::string, std::vector<TokenId>>& prompt) {
  if (const auto* text = std::get_if<std::string>(&prompt)) return *text;
  AnswerText text(*model.tokenizer, {}, false);
  for (const TokenId id : std::get<std::vector<TokenId>>(prompt)) text.push({id, 0.0});
  text.finish();
  return text.take_text();
}

AnswerForm form_of(const RequestedFormat& wanted) {
  switch (wanted.format) {
    case ResponseFormat::kRegex: return AnswerForm::kRegex;
    case ResponseFormat::kChoice: return AnswerForm::kChoice;
    case ResponseFormat::kGrammar: return AnswerForm::kGrammar;
    default: return wanted.schema.is_null() ? AnswerForm::kJsonObject : AnswerForm::kJsonSchema;
  }
}

// Null if the answer is text. Each prompt needs its own.
std::unique_ptr<TokenConstraint> constraint(const ServedModel& model, const RequestedFormat& wanted) {
  if (wanted.format == ResponseFormat::kText) return nullptr;
  const std::string& field = wanted.format_field;
  if (!model.make_constraint)
    throw ApiError::invalid(field + ": is not supported; this server cannot constrain answers", field, "unsupported");
  try {
    return model.make_constraint(form_of(wanted), wanted.schema);
  } catch (const ConfigError& error) {
    throw ApiError::invalid(fmt::format("{}: {}", field, error.what()), field, "unsupported_schema");
  }
}

// Whether the model may use its calculator. It cannot if the answer is constrained.
bool with_tools(const ServedModel& model, const ChatRequest& chat) {
  const bool constrained = chat.format != ResponseFormat::kText;
  if (chat.nanochat_tools.value_or(false) && !model.has_tools) {
    throw ApiError::invalid("nanochat_tools: is not supported; this model's tokenizer has no tokens for a calculator",
                            "nanochat_tools", "unsupported");
  }
  if (chat.nanochat_tools.value_or(false) && constrained) {
    throw ApiError::invalid(fmt::format("nanochat_tools: cannot be combined with {}", chat.format_field), "nanochat_tools");
  }
  return chat.nanochat_tools.value_or(model.has_tools && !constrained);
}

// Answers of another form have no calls.
ToolChoice tool_choice(const ChatRequest& chat) {
  if (chat.format == ResponseFormat::kToolCall) return ToolChoice::kRequired;
  return chat.format == ResponseFormat::kText && !chat.functions.empty() ? ToolChoice::kAuto : ToolChoice::kNone;
}

std::vector<TokenId> chat_prompt(const ServedModel& served, const ChatRequest& chat) {
  // No limit here: a conversation that is too long is an error, and is not cut as in training.
  const auto render = chat.continues() ? render_continuation : render_prompt;
  return render(*served.tokenizer, chat.conversation, INT32_MAX);
}

// The plan of a request that every protocol for chats has. Consumes the request.
AnswerPlan plan_conversation(const ServedModels::Model& model, ChatRequest chat, std::unique_ptr<AnswerFormat> format) {
  const ServedModel& served = *model;
  if (chat.continues() && chat.format != ResponseFormat::kText) {
    throw ApiError::invalid(
        fmt::format("{}: cannot be combined with a message of the assistant last, which the answer continues",
                    chat.format_field),
        chat.format_field, "unsupported");
  }
  EngineRequest request = engine_request(served, chat.fields, chat_prompt(served, chat));
  check_length(served, request, chat.conversation_field);
  request.tools = with_tools(served, chat);
  request.constraint = constraint(served, chat);
  AnswerPlan plan = answer_plan(std::move(chat.fields), std::move(format));
  plan.served = model;
  plan.tool_choice = tool_choice(chat);
  if (plan.tool_choice == ToolChoice::kRequired) plan.stop.clear();  // stop strings apply to text only
  if (plan.tool_choice != ToolChoice::kNone)
    plan.call_beginning = std::make_shared<const ByteDfa>(call_beginning(chat.functions));
  plan.hide_calculator = true;
  plan.prompts.push_back({std::move(request)});
  return plan;
}

// The session that a request names: in its body, in its header, or in both alike. Empty: none.
std::string session_of(const PlanInput& input, const std::optional<std::string>& in_body) {
  const std::string in_header(input.session_id);
  if (in_body && !in_header.empty() && *in_body != in_header) {
    throw ApiError::invalid("session_id: found another id than in the header X-Session-Id, expected only one of them",
                            "session_id");
  }
  return in_body.value_or(in_header);
}

void check_session_request(const ChatRequest& chat) {
  if (chat.fields.n > 1) throw ApiError::invalid("n: found more than one answer, expected 1 with a session", "n");
  if (chat.continues()) {
    throw ApiError::invalid("messages: found a message of the assistant last, expected one of the user with a session",
                            "messages");
  }
}

}  // namespace

AnswerPlan plan_chat(const PlanInput& input) {
  std::shared_ptr<ChatSessions::Turn> turn;
  ChatRequest chat = parse_chat_request(input.body, input.defaults,
                                        [&](const std::optional<std::string>& session_id, const nlohmann::json& messages) {
                                          const std::string id = session_of(input, session_id);
                                          if (id.empty() && !session_id) return messages;
                                          turn = input.sessions->begin(id, input.owner, messages);
                                          return turn->messages();
                                        });
  const ServedModels::Model& served = input.models.find(chat.fields.model, chat.fields.stream);
  auto format = std::make_unique<ChatFormat>(answer_head(*served, "chatcmpl-"), chat.fields, served->tokenizer);
  if (turn) check_session_request(chat);
  AnswerPlan plan = plan_conversation(served, std::move(chat), std::move(format));
  if (turn) turn->set_prompt(served->engine, plan.prompts.front().request.prompt);
  plan.turn = std::move(turn);
  return plan;
}

AnswerPlan plan_anthropic_message(const PlanInput& input) {
  ChatRequest chat = parse_anthropic_request(input.body, input.defaults);
  const ServedModels::Model& served = input.models.find(chat.fields.model, chat.fields.stream);
  auto format = std::make_unique<AnthropicFormat>(new_id("msg_"), served->id, *chat.fields.max_tokens);
  return plan_conversation(served, std::move(chat), std::move(format));
}

std::int64_t count_anthropic_tokens(const ServedModels& models, std::string_view body, const RequestDefaults& defaults) {
  const ChatRequest chat = parse_anthropic_request(body, defaults, true);
  return static_cast<std::int64_t>(chat_prompt(*models.find(chat.fields.model), chat).size());
}

AnswerPlan plan_response(const PlanInput& input) {
  ResponsesRequest chat = parse_responses_request(input.body, input.defaults, *input.responses, input.owner);
  const ServedModels::Model& served = input.models.find(chat.fields.model, chat.fields.stream);
  auto format = std::make_unique<ResponsesFormat>(answer_head(*served, "resp_"), chat, served->tokenizer, input.responses,
                                                  input.owner);
  return plan_conversation(served, std::move(chat), std::move(format));
}

AnswerPlan plan_completion(const PlanInput& input) {
  const CompletionRequest completion = parse_completion_request(input.body, input.defaults);
  const GenerationFields& fields = completion.fields;
  const ServedModels::Model& model = input.models.find(fields.model, fields.stream);
  const ServedModel& served = *model;
  AnswerPlan plan = answer_plan(fields,
                                std::make_unique<CompletionFormat>(answer_head(served, "cmpl-"), fields, served.tokenizer));
  plan.served = model;
  const bool scored = completion.echo && fields.logprobs;
  // A client that scores a text (lm-eval) expects one generated token, even if the model would stop instead.
  if (scored && !fields.ignore_eos) plan.ends = served.stop_tokens;
  if (scored) plan.ends.insert(plan.ends.end(), fields.stop_token_ids.begin(), fields.stop_token_ids.end());
  for (const auto& prompt : completion.prompts) {
    EngineRequest request = engine_request(served, fields, prompt_ids(served, prompt, completion.add_special_tokens));
    check_length(served, request, "prompt");
    request.constraint = constraint(served, completion);
    request.prompt_logprobs = scored;
    request.ignore_eos = request.ignore_eos || scored;
    plan.prompts.push_back({std::move(request), completion.echo ? echo_text(served, prompt) : std::string()});
  }
  return plan;
}

}  // namespace nanochat
