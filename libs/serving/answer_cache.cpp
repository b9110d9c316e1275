#include "serving/internal/answer_cache.h"

#include <algorithm>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/sha256.h"
#include "serving/internal/answer_session.h"

namespace nanochat {
namespace {

using nlohmann::json;

// Writes a request in the order of its keys, which schemas of answers depend on, and without the fields that do not change the
// answer. (An ordered_json would do, but needs quadratic time for many keys.)
class RequestWriter : public json::json_sax_t {
 public:
  std::string text;
  bool seeded = false;

  bool null() override { return value("n"); }
  bool boolean(bool given) override { return value(given ? "t" : "f"); }
  bool number_integer(number_integer_t given) override { return value(fmt::format("i{}", given)); }
  bool number_unsigned(number_unsigned_t given) override { return value(fmt::format("i{}", given)); }
  bool number_float(number_float_t, const string_t& given) override { return value("d" + given); }
  bool string(string_t& given) override { return value(fmt::format("s{}:{}", given.size(), given)); }
  bool binary(binary_t&) override { return true; }  // JSON has none
  bool key(string_t& given) override {
    key_ = given;
    skipping_ = skipping_ || (depth_ == 1 && (given == "stream" || given == "stream_options" || given == "user"));
    write(fmt::format("k{}:{}", given.size(), given));
    return true;
  }
  bool start_object(std::size_t) override { return begin("{"); }
  bool end_object() override { return end("}"); }
  bool start_array(std::size_t) override { return begin("["); }
  bool end_array() override { return end("]"); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  void write(std::string_view bytes) {
    if (skipping_) return;
    text.append(bytes).append(",");
  }
  bool value(std::string_view bytes) {
    write(bytes);
    if (depth_ != 1) return true;
    skipping_ = false;
    seeded = seeded || (key_ == "seed" && bytes != "n");
    return true;
  }
  bool begin(std::string_view bracket) {
    write(bracket);
    ++depth_;
    return true;
  }
  bool end(std::string_view bracket) {
    write(bracket);
    if (--depth_ == 1) skipping_ = false;
    return true;
  }

  std::string key_;
  int depth_ = 0;
  bool skipping_ = false;
};

}  // namespace

std::size_t CachedAnswer::bytes() const {
  std::size_t size = sizeof(CachedAnswer) + owner.size() + outcome.finish_reasons.size();
  for (const ChoicePart& choice : choices) {
    size += sizeof(ChoicePart) + choice.text.size() + choice.stop_string.size();
    for (const AnswerToken& token : choice.tokens) size += sizeof(AnswerToken) + token.top.size() * sizeof(SampledToken);
    for (const ToolCallPart& call : choice.calls) size += sizeof(ToolCallPart) + call.name.size() + call.arguments.size();
    for (const AnswerCalculation& one : choice.calculations) {
      size += sizeof(AnswerCalculation) + one.expression.size() + one.result.size();
    }
  }
  return size;
}

HttpResponse CachedAnswer::response(AnswerFormat& format, bool stream) const {
  std::vector<ChoicePart> parts = choices;
  for (ChoicePart& part : parts) {
    for (ToolCallPart& call : part.calls) call.id = new_id("call_");
  }
  const EngineUsage& usage = outcome.usage;
  if (!stream) return {.body = format.whole(parts, usage)};
  HttpResponse response = event_stream(nullptr);
  for (const ChoicePart& part : parts) {
    format.begin(part, usage, response.body);
    if (part.has_content()) format.delta(part, usage, response.body);
    format.finish(part, usage, response.body);
  }
  format.end(usage, response.body);
  return response;
}

std::shared_ptr<const CachedAnswer> AnswerCache::find(const std::string& key, const std::string& owner) {
  auto found = store_.find(key, owner);
  ++(found == nullptr ? misses_ : hits_);
  return found;
}

AnswerCacheStats AnswerCache::stats() { return {hits_, misses_, store_.count(), store_.bytes()}; }

std::optional<std::string> answer_key(std::string_view path, std::string_view body, const AnswerPlan& plan) {
  if (plan.turn != nullptr) return std::nullopt;  // the session has to change
  const bool greedy = std::all_of(plan.prompts.begin(), plan.prompts.end(),
                                  [](const AnswerPrompt& prompt) { return prompt.request.sampling.temperature == 0; });
  RequestWriter request;
  if (!json::sax_parse(body, &request) || (!greedy && !request.seeded)) return std::nullopt;
  const std::string& model = plan.served->id;
  return sha256_hex(fmt::format("{}\n{}:{}\n{}\n{}", path, model.size(), model, plan.served->fingerprint, request.text));
}

}  // namespace nanochat
