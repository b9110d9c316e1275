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
#include "data/conversations/conversations.h"
#include "tasks/factory.h"

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
  log_report(report);
  return {static_cast<std::int64_t>(all->size()), [all](std::int64_t i) { return (*all)[static_cast<std::size_t>(i)]; },
          [](std::int64_t i) { return std::pair(std::size_t{0}, i); }};
}

Source from_mixture(const std::string& value, const std::string& flag) {
  const std::shared_ptr<const TaskMixture> mixture = mixture_of(value, flag);
  return {mixture->size(), [mixture](std::int64_t i) { return mixture->example(i).conversation; },
          [mixture](std::int64_t i) { return mixture->source(i); }};
}

// No conversation when neither is given.
Source open_source(const std::vector<std::string>& paths, const std::string& mixture, bool skip_bad,
                   const std::string& prefix) {
  if (!paths.empty() && !mixture.empty()) {
    throw ConfigError(fmt::format("--{0}data-dir and --{0}mixture are both given; one of them says what the data is", prefix));
  }
  if (!paths.empty()) return from_files(paths, skip_bad);
  if (!mixture.empty()) return from_mixture(mixture, fmt::format("--{}mixture", prefix));
  return {};
}

// Conversations as tokens, and which of them there is something to learn from.
struct Rendered {
  RenderedConversations all;
  std::vector<std::size_t> usable;
};

std::string number(std::size_t n) { return with_commas(static_cast<std::int64_t>(n)); }

// Why there is nothing to learn from `useless` conversations, of which `cut` were cut.
std::string why_useless(std::size_t useless, std::size_t cut, std::int64_t max_tokens) {
  std::string why;
  if (cut > 0) {
    why = fmt::format("{} after {} tokens, before there is anything to learn",
                      cut == useless ? "cut" : number(cut) + " are cut", with_commas(max_tokens));
  }
  if (cut == useless) return why;
  return fmt::format("{}{}no message of the assistant is learned (\"weight\", \"train\")", why,
                     why.empty() ? "" : fmt::format("; in {} ", number(useless - cut)));
}

Rendered render(const Source& source, const Tokenizer& tokenizer, std::int64_t max_tokens, int workers,
                ConversationPacking packing, const char* what) {
  Rendered rendered{render_conversations(tokenizer, source.count, source.at, max_tokens, workers), {}};
  const RenderedConversations& all = rendered.all;
  if (all.size() == 0) throw DataError(fmt::format("there is no conversation for {}", what));
  std::size_t cut = 0, useless_cut = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const bool useful = all.has_target(i, packing);
    if (useful) rendered.usable.push_back(i);
    if (!all.is_cut(i)) continue;
    ++cut;
    useless_cut += useful ? 0 : 1;
  }
  const std::size_t useless = all.size() - rendered.usable.size();
  if (useless == all.size()) {
    throw DataError(fmt::format("{}: nothing can be learned from any of the {} conversations: {}{}", what, number(all.size()),
                                why_useless(useless, useless_cut, max_tokens),
                                useless_cut > 0 ? "; use shorter conversations or a model with a longer context" : ""));
  }
  if (cut > 0) {
    log_warn("{}: {} of {} conversations have more than {} tokens; the rest of each is cut off", what, number(cut),
             number(all.size()), with_commas(max_tokens));
  }
  if (useless > 0) {
    log_warn("{}: {} of {} conversations are left out, because nothing can be learned from them: {}", what, number(useless),
             number(all.size()), why_useless(useless, useless_cut, max_tokens));
  }
  return rendered;
}

// Indices of what is trained on and of what is held out, both in the order of the data. A row that comes more than once is on
// one side alone, and held out once.
std::pair<std::vector<std::size_t>, std::vector<std::size_t>> hold_out(const Source& source,
                                                                       const std::vector<std::size_t>& usable, double share,
                                                                       std::uint64_t seed) {
  const auto row_of = [&](std::size_t i) { return source.row(static_cast<std::int64_t>(i)); };
  std::set<std::pair<std::size_t, std::int64_t>> rows;
  std::vector<std::size_t> order;  // the first time that each row comes
  for (const std::size_t i : usable) {
    if (rows.insert(row_of(i)).second) order.push_back(i);
  }
  const auto count = static_cast<std::int64_t>(order.size());
  if (count < 2) {
    throw DataError(
        "one conversation cannot be both trained on and held out; give more, --validation-data-dir, or "
        "--validation-share 0 to train without validation");
  }
  Rng rng(derive_seed(seed, "held-out conversations"));
  rng.shuffle(order);
  const auto wanted = std::llround(share * static_cast<double>(count));
  order.resize(static_cast<std::size_t>(std::clamp<std::int64_t>(wanted, 1, std::min(kMostHeldOut, count - 1))));
  std::sort(order.begin(), order.end());
  for (const std::size_t i : order) rows.erase(row_of(i));
  std::vector<std::size_t> training;
  for (const std::size_t i : usable) {
    if (rows.contains(row_of(i))) training.push_back(i);
  }
  return {std::move(training), std::move(order)};
}

std::shared_ptr<const RenderedConversations> selected(const Rendered& rendered, const std::vector<std::size_t>& indices,
                                                      const char* what) {
  auto part = std::make_shared<RenderedConversations>(rendered.all.select(indices));
  log_info("{}: {} conversations, {} tokens, {} of them to be learnt", what, number(part->size()), number(part->tokens()),
           number(part->supervised_tokens()));
  return part;
}

}  // namespace

void declare_conversation_data(OptionList& options, ConversationDataOptions& data) {
  // That the conversations are the same ones, the loader finds by their number and tokens when it goes on.
  options
      .add("data_dir", data.data_dir,
           "Conversations to train on: files, folders or globs of .jsonl, .json or .parquet with messages, ShareGPT, "
           "Alpaca, prompt and completion, and other common formats.")
      .may_change();
  options
      .add("mixture", data.mixture,
           "Train on a mixture of data sets (tasks) instead of --data-dir. Give a JSON file or JSON text, such as '[{\"task\": "
           "\"gsm8k\", \"path\": \"data/gsm8k\"}]'. docs/data.md lists the tasks and their keys.")
      .may_change();
  options
      .add("validation_data_dir", data.validation_data_dir,
           "Conversations to validate on; default: a held-out part of the training data.")
      .may_change();
  options
      .add("validation_mixture", data.validation_mixture,
           "Mixture of data sets (tasks) to validate on, in the form of --mixture.")
      .may_change();
  options
      .add("validation_share", data.validation_share,
           fmt::format("Fraction of the training data to hold out when no validation data is given, at most {} conversations; "
                       "0 trains without validation.",
                       kMostHeldOut))
      .at_least(0)
      .at_most(0.5);
  options.add("skip_bad", data.skip_bad,
              "Skip rows that are not valid conversations, and log their number. By default the first such row is an error.");
}

ConversationData load_conversation_data(const ConversationDataOptions& options, const Tokenizer& tokenizer,
                                        std::int64_t max_tokens, std::uint64_t seed, int workers, ConversationPacking packing) {
  const Source source = open_source(options.data_dir, options.mixture, options.skip_bad, "");
  if (!source.at) throw ConfigError("--data-dir is missing: name files of conversations, or a --mixture of tasks");
  const Source other = open_source(options.validation_data_dir, options.validation_mixture, options.skip_bad, "validation-");
  const Rendered data = render(source, tokenizer, max_tokens, workers, packing, "training");
  if (other.at) {
    const Rendered validation = render(other, tokenizer, max_tokens, workers, packing, "validation");
    return {selected(data, data.usable, "training"), selected(validation, validation.usable, "validation")};
  }
  if (options.validation_share == 0.0) {
    log_info("validation: none, because no conversation is held out (--validation-share 0)");
    return {selected(data, data.usable, "training"), nullptr};
  }
  const auto [training, held_out] = hold_out(source, data.usable, options.validation_share, seed);
  return {selected(data, training, "training"), selected(data, held_out, "validation")};
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
