#include "evaluation/prompt_scoring.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/logsumexp.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "core/interrupt.h"
#include "inference/contiguous_kv_cache.h"
#include "model/gpt.h"

namespace nanochat {
namespace {

using Tokens = std::span<const TokenId>;

// Rows (B, longest) of unequal length, padded on the right: what stands there is never attended to, or read.
at::Tensor padded(std::span<const Tokens> rows) {
  std::size_t longest = 1;
  for (const Tokens row : rows) longest = std::max(longest, row.size());
  const at::Tensor ids = at::full({static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(longest)}, 0, at::kInt);
  TokenId* to = ids.data_ptr<TokenId>();
  for (const Tokens row : rows) {
    std::copy(row.begin(), row.end(), to);
    to += longest;
  }
  return ids;
}

// A cache that holds each prefix; some may be empty.
ContiguousKvCache prefill(Gpt& model, std::span<const Tokens> prefixes) {
  const auto rows = static_cast<std::int64_t>(prefixes.size());
  // Beyond the longest prompt there is room for padding: a row near the limit may stand beside a long remainder.
  ContiguousKvCache cache(model.config(), model.dtype(), rows, 2 * longest_prompt(model), model.device());
  std::vector<std::int64_t> lengths;
  for (const Tokens prefix : prefixes) lengths.push_back(static_cast<std::int64_t>(prefix.size()));
  if (*std::max_element(lengths.begin(), lengths.end()) == 0) return cache;
  model.forward_states(padded(prefixes), cache);
  cache.set_start(lengths);
  return cache;
}

// Indices by descending length, in groups that fill the budget: the first is the longest, so memory is known early.
std::vector<std::vector<std::size_t>> pack(const std::vector<std::int64_t>& lengths, std::int64_t budget) {
  std::vector<std::size_t> order(lengths.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return lengths[a] > lengths[b]; });
  std::vector<std::vector<std::size_t>> batches;
  for (const std::size_t index : order) {
    const bool full = batches.empty() || static_cast<std::int64_t>(batches.back().size() + 1) *
                                                 std::max<std::int64_t>(1, lengths[batches.back().front()]) >
                                             budget;
    if (full) batches.emplace_back();
    batches.back().push_back(index);
  }
  return batches;
}

// Tokens that all options begin with and that stand before anything that is scored; none when there is nothing to share.
std::size_t shared_length(const Question& question) {
  const std::vector<TokenId>& first = question.options.front().tokens;
  std::size_t length = first.size();
  bool alone = true;
  for (const PromptSpan& option : question.options) {
    TORCH_CHECK(option.start >= 1 && option.start <= option.end &&
                    option.end <= static_cast<std::int64_t>(option.tokens.size()),
                "span [", option.start, ", ", option.end, ") does not fit ", option.tokens.size(), " tokens");
    length = std::min(length, static_cast<std::size_t>(option.start - 1));
    const auto [a, b] = std::mismatch(first.begin(), first.begin() + static_cast<std::ptrdiff_t>(length), option.tokens.begin(),
                                      option.tokens.end());
    length = static_cast<std::size_t>(a - first.begin());
    alone = alone && option == question.options.front();
  }
  return alone ? 0 : length;
}

// One option of one question on its way.
struct Request {
  std::size_t question = 0, option = 0;
  std::int64_t row = 0;    // of the batch's prefixes
  Tokens remainder;        // from behind the prefix up to the last token of the span, which is only predicted
  std::int64_t first = 0;  // where in the remainder the first prediction of the span is made
  Tokens span;
};

// The options of the questions in `batch` that are not the same as an earlier one, and where the others are found.
std::vector<Request> list_requests(std::span<const Question> questions, const std::vector<std::size_t>& batch,
                                   const std::vector<std::size_t>& shared, std::vector<std::vector<std::size_t>>& same_as) {
  std::vector<Request> requests;
  for (std::size_t row = 0; row < batch.size(); ++row) {
    const std::vector<PromptSpan>& options = questions[batch[row]].options;
    const std::size_t prefix = shared[batch[row]];
    auto& same = same_as[batch[row]];
    for (std::size_t i = 0; i < options.size(); ++i) {
      const auto equal = std::find(options.begin(), options.begin() + static_cast<std::ptrdiff_t>(i), options[i]);
      same.push_back(static_cast<std::size_t>(equal - options.begin()));
      if (same[i] != i || options[i].start == options[i].end) continue;
      const Tokens tokens = options[i].tokens;
      const auto start = static_cast<std::size_t>(options[i].start), end = static_cast<std::size_t>(options[i].end);
      requests.push_back({batch[row], i, static_cast<std::int64_t>(row), tokens.subspan(prefix, end - 1 - prefix),
                          static_cast<std::int64_t>(start - 1 - prefix), tokens.subspan(start, end - start)});
    }
  }
  return requests;
}

// A token of a span: the state that predicts it, and where its score goes.
struct Prediction {
  std::int64_t row;
  TokenId token;
  SpanScore* score;
  double weight;
};

// states: (B * T, C) behind the prefixes, a request after the other.
void read_scores(Gpt& model, const at::Tensor& states, std::span<const Request> requests, std::int64_t logit_bytes,
                 std::vector<std::vector<SpanScore>>& scores) {
  const std::int64_t time = states.size(0) / static_cast<std::int64_t>(requests.size());
  std::vector<Prediction> predictions;
  for (std::size_t r = 0; r < requests.size(); ++r) {
    const Request& request = requests[r];
    SpanScore& score = scores[request.question][request.option];
    score = {};
    for (std::size_t i = 0; i < request.span.size(); ++i) {
      predictions.push_back({static_cast<std::int64_t>(r) * time + request.first + static_cast<std::int64_t>(i),
                             request.span[i], &score, 1.0 / static_cast<double>(request.span.size())});
    }
  }
  const auto most = static_cast<std::size_t>(std::max<std::int64_t>(1, logit_bytes / 4 / model.config().vocab_size));
  for (std::size_t begin = 0; begin < predictions.size(); begin += most) {
    const std::span<const Prediction> some = std::span(predictions).subspan(begin, std::min(most, predictions.size() - begin));
    const at::Tensor rows = at::empty({static_cast<std::int64_t>(some.size())}, at::kLong), targets = at::empty_like(rows);
    for (std::size_t i = 0; i < some.size(); ++i) {
      rows.data_ptr<std::int64_t>()[i] = some[i].row;
      targets.data_ptr<std::int64_t>()[i] = some[i].token;
    }
    const at::Tensor logits = model.logits(states.index_select(0, rows.to(states.device())));
    const at::Tensor chosen = at::gather(logits, 1, targets.to(logits.device()).unsqueeze(1)).squeeze(1);
    const at::Tensor losses = at::logsumexp(logits, {1}).sub_(chosen).cpu();
    const at::Tensor best = at::argmax(logits, 1).cpu();
    for (std::size_t i = 0; i < some.size(); ++i) {
      some[i].score->mean_loss += some[i].weight * static_cast<double>(losses.const_data_ptr<float>()[i]);
      some[i].score->greedy = some[i].score->greedy && best.const_data_ptr<std::int64_t>()[i] == some[i].token;
    }
  }
}

// How many of the requests from `begin` on fit a pass.
std::size_t count_for_pass(const std::vector<Request>& requests, std::size_t begin, std::int64_t prefix,
                           const ScoringOptions& options) {
  // Keys and values of a chunk may take twice what the batch's own do.
  std::int64_t longest = 0;
  std::size_t end = begin;
  for (; end < requests.size(); ++end) {
    longest = std::max(longest, static_cast<std::int64_t>(requests[end].remainder.size()));
    const auto rows = static_cast<std::int64_t>(end - begin + 1);
    if (rows * (prefix + longest) > 2 * options.batch_tokens && end > begin) break;
  }
  return end - begin;
}

}  // namespace

ScoringOptions default_scoring(at::Device device) {
  if (device.is_cuda()) return {.batch_tokens = 65536, .logit_bytes = std::int64_t{1} << 30};
  return {};
}

std::int64_t longest_prompt(const Gpt& model) { return 10 * model.config().sequence_len; }

std::size_t best_option(std::span<const SpanScore> scores) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < scores.size(); ++i) {
    if (scores[i].mean_loss < scores[best].mean_loss) best = i;
  }
  return best;
}

void score_questions(Gpt& model, std::span<const Question> questions, const ScoringOptions& options,
                     const std::function<void(std::size_t, const std::vector<SpanScore>&)>& done) {
  std::vector<std::size_t> shared;
  std::vector<std::int64_t> lengths;
  for (const Question& question : questions) {
    shared.push_back(shared_length(question));
    std::int64_t length = 0;
    for (const PromptSpan& option : question.options) length = std::max(length, option.end);
    lengths.push_back(length);
  }
  std::vector<std::vector<SpanScore>> scores(questions.size());
  std::vector<std::vector<std::size_t>> same_as(questions.size());
  for (const std::vector<std::size_t>& batch : pack(lengths, options.batch_tokens)) {
    if (interrupt_requested()) return;
    std::vector<Tokens> prefixes;
    std::int64_t longest = 0;
    for (const std::size_t q : batch) {
      scores[q].assign(questions[q].options.size(), {std::numeric_limits<double>::quiet_NaN(), true});
      prefixes.push_back(Tokens(questions[q].options.front().tokens).first(shared[q]));
      longest = std::max(longest, static_cast<std::int64_t>(shared[q]));
    }
    std::vector<Request> requests = list_requests(questions, batch, shared, same_as);
    // Remainders of like length beside each other: a pass is as wide as its longest.
    std::stable_sort(requests.begin(), requests.end(),
                     [](const Request& a, const Request& b) { return a.remainder.size() > b.remainder.size(); });
    const ContiguousKvCache cache = prefill(model, prefixes);
    for (std::size_t begin = 0; begin < requests.size();) {
      const std::size_t count = count_for_pass(requests, begin, longest, options);
      const std::span<const Request> pass = std::span(requests).subspan(begin, count);
      std::vector<std::int64_t> rows;
      std::vector<Tokens> remainders;
      for (const Request& request : pass) {
        rows.push_back(request.row);
        remainders.push_back(request.remainder);
      }
      const at::Tensor ids = padded(remainders);
      ContiguousKvCache copies = cache.copy_rows(rows, ids.size(1));
      read_scores(model, model.forward_states(ids, copies), pass, options.logit_bytes, scores);
      begin += count;
    }
    for (const std::size_t q : batch) {
      for (std::size_t i = 0; i < scores[q].size(); ++i) scores[q][i] = scores[q][same_as[q][i]];
      done(q, scores[q]);
    }
  }
}

void score_next_token(Gpt& model, std::span<const std::vector<TokenId>> prompts, const ScoringOptions& options,
                      const std::function<void(std::size_t, const at::Tensor&)>& done) {
  std::vector<std::int64_t> lengths;
  for (const std::vector<TokenId>& prompt : prompts) {
    TORCH_CHECK(!prompt.empty(), "a prompt without tokens");
    lengths.push_back(static_cast<std::int64_t>(prompt.size()));
  }
  for (const std::vector<std::size_t>& batch : pack(lengths, options.batch_tokens)) {
    if (interrupt_requested()) return;
    std::vector<Tokens> prefixes, last;
    for (const std::size_t p : batch) {
      prefixes.push_back(Tokens(prompts[p]).first(prompts[p].size() - 1));
      last.push_back(Tokens(prompts[p]).last(1));
    }
    ContiguousKvCache cache = prefill(model, prefixes);
    const at::Tensor logits = model.forward_cache(padded(last), cache).cpu();
    for (std::size_t row = 0; row < batch.size(); ++row) done(batch[row], logits.select(0, static_cast<std::int64_t>(row)));
  }
}

}  // namespace nanochat
