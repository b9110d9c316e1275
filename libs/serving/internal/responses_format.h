#pragma once
// Writes the answers of POST /v1/responses: an object with output items, each a message or the call of a function. Events of a
// stream have names and sequence numbers:
//
//   response.created, response.in_progress
//   for each item: response.output_item.added
//     for text: response.content_part.added, response.output_text.delta ..., response.output_text.done,
//     response.content_part.done
//     for a call: response.function_call_arguments.delta ..., response.function_call_arguments.done
//     response.output_item.done
//   response.completed; response.incomplete if the answer ended because of its length; response.failed after an error
//
// A response that ends is put into the store, if the request wants it. Results of the calculator are not listed.

#include <memory>

#include "serving/internal/answer_format.h"
#include "serving/internal/openai_format.h"
#include "serving/internal/response_store.h"
#include "serving/internal/responses_request.h"

namespace nanochat {

class ResponsesFormat final : public AnswerFormat {
 public:
  // `store` may be null.
  ResponsesFormat(AnswerHead head, const ResponsesRequest& request, std::shared_ptr<const Tokenizer> tokenizer,
                  std::shared_ptr<ResponseStore> store, std::string owner);

  std::string whole(std::span<const ChoicePart> choices, const EngineUsage& usage) override;
  void begin(const ChoicePart& part, const EngineUsage& usage, std::string& out) override;
  void delta(const ChoicePart& part, const EngineUsage& usage, std::string& out) override;
  void finish(const ChoicePart& part, const EngineUsage& usage, std::string& out) override;
  void end(const EngineUsage& usage, std::string& out) override;
  void fail(const ApiError& error, std::string& out) override;
  HttpResponse failure(const ApiError& error) const override;

 private:
  using Json = nlohmann::ordered_json;
  struct Item {
    std::string id = {};
    std::string text = {};  // of a message
    Json logprobs = Json::array();
    std::optional<ToolCallPart> call = {};  // nullopt: a message
  };
  Item& add_message();
  Item& add_call(const ToolCallPart& call);  // without its arguments
  void add_text(Item& message, const ChoicePart& part) const;
  static Json item_json(const Item& item, std::string_view status);
  static Json text_part(const Item& message);
  Json output() const;  // the output items of an answer that has ended
  const char* status() const;
  Json response(std::string_view status, Json output, const EngineUsage* usage, const ApiError* error = nullptr) const;
  void keep(const std::string& body) const;
  void event(const char* name, Json fields, std::string& out);
  void create(std::string& out);
  void open_item(std::string& out);  // writes the events of the last item of output_
  void close_item(std::string_view status, std::string& out);
  Json of_item() const;  // {"item_id", "output_index"} of the last item

  const AnswerHead head_;
  const std::shared_ptr<const Tokenizer> tokenizer_;
  const std::shared_ptr<ResponseStore> store_;
  const std::string owner_;
  const Json settings_;
  const std::int64_t top_logprobs_;
  nlohmann::json items_;  // of the conversation, for the store
  std::string beginning_;  // the last message of the conversation, if the answer continues it
  std::vector<Item> output_;
  bool open_ = false;  // the last item may get more content
  std::optional<ChoiceEnd> end_;
  bool created_ = false;
  std::int64_t sequence_number_ = 0;
};

// The only event of a stream for which there is no response object.
std::string response_error_event(const ApiError& error);

}  // namespace nanochat
