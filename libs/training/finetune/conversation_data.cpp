#include "training/finetune/conversation_data.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "core/log.h"
#include "core/options.h"
#include "core/random.h"
#include "data/conversations.h"
#include "data/tasks/factory.h"

namespace nanochat {
namespace {

// Conversations wherever they come from.
struct Source {
  std::int64_t count = 0;
  std::function<Conversation(std::int64_t)> at;  // thread-safe
  std::function<std::pair<std::size_t, std::int64_t>(std::int64_t)> row;  // equal where a mixture repeats a row
};

Source from_files(const std::vector<std::string>& paths, bool skip_bad) {
  ConversationOptions options;
  options.skip_bad = skip_bad;
  ConversationReport report;
  auto all = std::make_shared<std::vector<Conversation>>(read_conversations(paths, options, &report));
  if (const std::string skipped = report.summary(); !skipped.empty()) log_warn("{}", skipped);
  return {static_cast<std::int64_t>(all->size()), [all](std::int64_t i) { return (*all)[static_cast<std::size_t>(i)]; },
          [](std::int64_t i) { return std::pair(std::size_t{0}, i); }};
}

Source from_mixture(const std::string& value, const std::string& flag) {
  const std::shared_ptr<const TaskMixture> mixture = mixture_of(value, flag);
  return {mixture->size(), [mixture](std::int64_t i) { return mixture->example(i).conversation; },
          [mixture](std::int64_t i) { return mixture->source(i); }};
}

// No conversation when neither is given.
Source open_source(const std::vector<std::string>& paths, const std::string& mixture, bool skip_bad, const std::string& prefix) {
  if (!paths.empty() && !mixture.empty()) {
    throw ConfigError(fmt::format("--{0}data-dir and --{0}mixture are both given; one of them says what the data is", prefix));
  }
  if (!paths.empty()) return from_files(paths, skip_bad);
  if (!mixture.empty()) return from_mixture(mixture, fmt::format("--{}mixture", prefix));
  return {};
}

Source part_of(const Source& source, std::vector<std::int64_t> indices) {
  const auto count = static_cast<std::int64_t>(indices.size());
  return {count, [at = source.at, indices = std::move(indices)](std::int64_t i) { return at(indices[static_cast<std::size_t>(i)]); }, {}};
}

// The data without what is held out, and that; both in the order of the data. A row that comes more than once is on one side
// alone, and held out once.
std::pair<Source, Source> hold_out(const Source& source, double share, std::uint64_t seed) {
  std::set<std::pair<std::size_t, std::int64_t>> rows;
  std::vector<std::int64_t> order;  // the first time that each row comes
  for (std::int64_t i = 0; i < source.count; ++i) {
    if (rows.insert(source.row(i)).second) order.push_back(i);
  }
  const auto count = static_cast<std::int64_t>(order.size());
  if (count < 2) {
    throw DataError("one conversation cannot be both trained on and held out; give more, --validation-data-dir, or "
                    "--validation-share 0 to train without validation");
  }
  Rng rng(derive_seed(seed, "held-out conversations"));
  rng.shuffle(order);
  const auto wanted = std::llround(share * static_cast<double>(count));
  order.resize(static_cast<std::size_t>(std::clamp<std::int64_t>(wanted, 1, std::min(kMostHeldOut, count - 1))));
  std::sort(order.begin(), order.end());
  for (const std::int64_t i : order) rows.erase(source.row(i));
  std::vector<std::int64_t> training;
  for (std::int64_t i = 0; i < source.count; ++i) {
    if (rows.contains(source.row(i))) training.push_back(i);
  }
  return {part_of(source, std::move(training)), part_of(source, std::move(order))};
}

std::shared_ptr<const RenderedConversations> render(const Source& source, const Tokenizer& tokenizer, std::int64_t max_tokens,
                                                    int workers, const char* what) {
  auto rendered = std::make_shared<RenderedConversations>(render_conversations(tokenizer, source.count, source.at, max_tokens, workers));
  if (rendered->size() == 0) throw DataError(fmt::format("there is no conversation for {}", what));
  log_info("{}: {} conversations, {} tokens, {} of them to be learnt", what, with_commas(static_cast<std::int64_t>(rendered->size())),
           with_commas(static_cast<std::int64_t>(rendered->tokens())), with_commas(static_cast<std::int64_t>(rendered->supervised_tokens())));
  return rendered;
}

}  // namespace

void declare_conversation_data(OptionList& options, ConversationDataOptions& data) {
  // That the conversations are the same ones, the loader finds by their number and tokens when it goes on.
  options.add("data_dir", data.data_dir, "conversations to train on (messages, ShareGPT, Alpaca; .jsonl, .json, .parquet): files, folders, globs")
      .may_change();
  options.add("mixture", data.mixture, "instead of data_dir: a mixture of tasks, a JSON file or the JSON itself").may_change();
  options.add("validation_data_dir", data.validation_data_dir, "conversations to validate on; default: part of the data is held out")
      .may_change();
  options.add("validation_mixture", data.validation_mixture, "a mixture of tasks to validate on").may_change();
  options.add("validation_share", data.validation_share,
              fmt::format("share of the data held out where none is given to validate on, at most {} conversations; 0: train without validation", kMostHeldOut))
      .at_least(0)
      .at_most(0.5);
  options.add("skip_bad", data.skip_bad, "leave out rows that are no conversation, and say how many, instead of stopping");
}

ConversationData load_conversation_data(const ConversationDataOptions& options, const Tokenizer& tokenizer,
                                        std::int64_t max_tokens, std::uint64_t seed, int workers) {
  Source training = open_source(options.data_dir, options.mixture, options.skip_bad, "");
  if (!training.at) throw ConfigError("--data-dir is missing: name files of conversations, or a --mixture of tasks");
  Source validation = open_source(options.validation_data_dir, options.validation_mixture, options.skip_bad, "validation-");
  if (!validation.at && options.validation_share > 0.0) std::tie(training, validation) = hold_out(training, options.validation_share, seed);
  ConversationData data{render(training, tokenizer, max_tokens, workers, "training"), nullptr};
  if (validation.at) {
    data.validation = render(validation, tokenizer, max_tokens, workers, "validation");
  } else {
    log_info("no conversation is held out (--validation-share 0), so there is no validation score");
  }
  return data;
}

std::shared_ptr<const TaskMixture> mixture_of(const std::string& value, const std::string& flag) {
  const std::size_t first = value.find_first_not_of(" \t\r\n");
  if (first == std::string::npos || (value[first] != '{' && value[first] != '[')) return load_mixture(value);
  try {
    return make_mixture(nlohmann::json::parse(value), flag);
  } catch (const nlohmann::json::exception& error) {
    throw ConfigError(fmt::format("{}: not JSON: {}", flag, error.what()));
  }
}

}  // namespace nanochat
