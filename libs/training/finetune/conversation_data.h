#pragma once
// Training and validation conversations of midtraining and SFT.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/batches/conversation_loader.h"

namespace nanochat {

class OptionList;
class TaskMixture;

struct ConversationDataOptions {
  std::vector<std::string> data_dir;             // files of conversations (data/conversations/conversations.h)
  std::string mixture;                           // instead: a mixture of tasks, a file or the JSON itself
  std::vector<std::string> validation_data_dir;  // likewise; when neither is given, part of the data is held out
  std::string validation_mixture;
  double validation_share = 0.05;                // of the data, at most kMostHeldOut; 0: none is held out
  bool skip_bad = false;
};

inline constexpr std::int64_t kMostHeldOut = 1000;

void declare_conversation_data(OptionList& options, ConversationDataOptions& data);

struct ConversationData {
  std::shared_ptr<const RenderedConversations> training, validation;  // validation: null when there is none
};

// Reads and renders conversations, truncates each to max_tokens, leaves out those without a target in `packing`, and
// holds out by the seed. Logs the numbers and warns of truncated and omitted ones. Throws ConfigError if no data or data
// in two ways is given, and DataError for files and if no conversation with a target is left for training or validation.
ConversationData load_conversation_data(const ConversationDataOptions& options, const Tokenizer& tokenizer,
                                        std::int64_t max_tokens, std::uint64_t seed, int workers,
                                        ConversationPacking packing = ConversationPacking::kBestFit);

// A mixture given as an option: a file, or JSON if it begins with { or [. `flag` is used in errors.
std::shared_ptr<const TaskMixture> mixture_of(const std::string& value, const std::string& flag);

}  // namespace nanochat
