#include "inference/internal/scheduler.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

namespace nanochat {

Scheduler::Scheduler(const EngineOptions& options, std::int64_t blocks)
    : block_size_(options.block_size), max_batch_tokens_(options.max_batch_tokens), max_running_(options.max_running),
      prefix_cache_(options.prefix_cache), pool_(blocks, options.block_size, options.prefix_cache) {}

void Scheduler::add(std::unique_ptr<ActiveRequest> request) {
  request->unfinished = request->spec.n;
  waiting_.push_back(request.get());
  waiting_tokens_ += request->prompt_size();
  requests_.push_back(std::move(request));
}

std::vector<ScheduledChunk> Scheduler::schedule() {
  batch_.clear();
  std::int64_t budget = max_batch_tokens_;
  const auto scheduled = [&](const Sequence* sequence) {
    return std::any_of(batch_.begin(), batch_.end(), [&](const ScheduledChunk& chunk) { return chunk.sequence == sequence; });
  };
  const auto run = [&](bool decoding) {
    const std::vector<Sequence*> in_order = running_;  // preemption takes from the end of running_
    for (Sequence* sequence : in_order) {
      if (budget == 0) return;
      if ((sequence->pending() == 1) != decoding || sequence->blocks.empty() || !sequence->ready() || scheduled(sequence))
        continue;
      const std::int64_t tokens = std::min(budget, sequence->pending());
      if (reserve(*sequence, tokens)) add_chunk(*sequence, tokens);
      budget = max_batch_tokens_;
      for (const ScheduledChunk& chunk : batch_) budget -= chunk.tokens;
    }
  };
  run(/*decoding=*/true);
  run(/*decoding=*/false);
  const auto start = [&](Sequence& sequence) {
    running_.push_back(&sequence);
    const std::int64_t tokens = std::min(budget, sequence.pending());
    add_chunk(sequence, tokens);
    budget -= tokens;
  };
  while (budget > 0 && !preempted_.empty() && static_cast<std::int64_t>(running_.size()) < max_running_) {
    if (!preempted_.front()->ready() || !take_prefix(*preempted_.front())) return batch_;
    start(*preempted_.front());
    preempted_.pop_front();
  }
  while (budget > 0 && preempted_.empty() && !waiting_.empty() && admit(*waiting_.front())) {
    waiting_tokens_ -= waiting_.front()->prompt_size();
    start(*waiting_.front()->sequences.front());
    waiting_.pop_front();
  }
  return batch_;
}

void Scheduler::add_chunk(Sequence& sequence, std::int64_t tokens) { batch_.push_back({&sequence, tokens}); }

bool Scheduler::admit(ActiveRequest& request) {
  // The siblings of an n > 1 join when the prompt is through: their places are kept from the start.
  std::int64_t places = request.spec.n;
  for (const Sequence* sequence : running_) places += sequence->forks() ? sequence->request->spec.n : 1;
  if (places > max_running_) return false;
  if (request.sequences.empty()) {
    request.sequences.push_back(std::make_unique<Sequence>(&request, 0));
    request.sequences.front()->tokens = request.spec.prompt;
  }
  Sequence& sequence = *request.sequences.front();
  if (!take_prefix(sequence)) return false;
  request.usage.cached_tokens = sequence.computed;
  hits_ += sequence.computed / block_size_;
  misses_ += request.prompt_size() / block_size_ - sequence.computed / block_size_;
  return true;
}

bool Scheduler::take_prefix(Sequence& sequence) {
  BlockPool::Prefix prefix;
  if (prefix_cache_ && !sequence.request->spec.prompt_logprobs) {
    prefix = pool_.match(sequence.tokens, (sequence.size() - 1) / block_size_);  // one token is always computed
  }
  sequence.blocks = std::move(prefix.blocks);
  const auto matched = static_cast<std::int64_t>(sequence.blocks.size());
  if (blocks_for(sequence.size(), block_size_) - matched > pool_.available()) {
    release(sequence);
    return false;
  }
  while (static_cast<std::int64_t>(sequence.blocks.size()) < blocks_for(sequence.size(), block_size_)) {
    sequence.blocks.push_back(pool_.allocate());
  }
  sequence.computed = matched * block_size_;
  sequence.published = matched;
  sequence.name = prefix.name;
  sequence.epoch = epoch_;
  return true;
}

bool Scheduler::reserve(Sequence& sequence, std::int64_t tokens) {
  const std::int64_t needed = blocks_for(sequence.computed + tokens, block_size_);
  while (static_cast<std::int64_t>(sequence.blocks.size()) < needed) {
    const std::int32_t block = pool_.allocate();
    if (block != BlockPool::kNone) {
      sequence.blocks.push_back(block);
      continue;
    }
    Sequence& last = *running_.back();
    preempt(last);
    if (&last == &sequence) return false;
  }
  return true;
}

void Scheduler::preempt(Sequence& sequence) {
  ++preemptions_;
  std::erase_if(batch_, [&](const ScheduledChunk& chunk) { return chunk.sequence == &sequence; });
  std::erase(running_, &sequence);
  release(sequence);
  preempted_.push_front(&sequence);
}

void Scheduler::release(Sequence& sequence) {
  for (auto block = sequence.blocks.rbegin(); block != sequence.blocks.rend(); ++block) pool_.release(*block);
  sequence.blocks.clear();
  sequence.computed = 0;
  sequence.published = 0;
  sequence.name = BlockPool::kRoot;
}

std::int64_t Scheduler::reserve_draft(const ScheduledChunk& chunk, std::int64_t wanted) {
  Sequence& sequence = *chunk.sequence;
  const std::int64_t begin = sequence.computed + chunk.tokens;
  const auto room = [&] { return static_cast<std::int64_t>(sequence.blocks.size()) * block_size_ - begin; };
  while (room() < wanted) {
    const std::int32_t block = pool_.allocate();
    if (block == BlockPool::kNone) break;
    sequence.blocks.push_back(block);
  }
  return std::min(wanted, room());
}

void Scheduler::computed(Sequence& sequence, std::int64_t tokens) {
  sequence.computed += tokens;
  publish(sequence);
}

void Scheduler::publish(Sequence& sequence) {
  // What was computed before the cache was emptied may belong to other weights.
  if (!prefix_cache_ || sequence.epoch != epoch_) return;
  const std::int64_t known = std::min(sequence.computed, sequence.size());
  for (; (sequence.published + 1) * block_size_ <= known; ++sequence.published) {
    const std::span<const std::int32_t> tokens(sequence.tokens);
    sequence.name = pool_.publish(sequence.blocks[static_cast<std::size_t>(sequence.published)], sequence.name,
                                  tokens.subspan(static_cast<std::size_t>(sequence.published * block_size_),
                                                 static_cast<std::size_t>(block_size_)));
  }
}

void Scheduler::fork(Sequence& first, const std::function<void(std::int32_t, std::int32_t)>& copy) {
  ActiveRequest& request = *first.request;
  const std::int64_t full = first.computed / block_size_;
  auto place = std::find(running_.begin(), running_.end(), &first) - running_.begin();
  for (std::int32_t i = 1; i < request.spec.n; ++i) {
    request.sequences.push_back(std::make_unique<Sequence>(&request, i));
    Sequence& sibling = *request.sequences.back();
    sibling.tokens = first.tokens;
    std::int32_t own = BlockPool::kNone;
    if (full * block_size_ < first.computed && (own = pool_.allocate()) == BlockPool::kNone) {
      preempted_.push_back(&sibling);  // computed again when there is room
      continue;
    }
    sibling.blocks.assign(first.blocks.begin(), first.blocks.begin() + full);
    for (const std::int32_t block : sibling.blocks) pool_.hold(block);
    if (own != BlockPool::kNone) {
      copy(first.blocks[static_cast<std::size_t>(full)], own);
      sibling.blocks.push_back(own);
    }
    sibling.computed = first.computed;
    sibling.published = first.published;
    sibling.name = first.name;
    sibling.epoch = first.epoch;
    running_.insert(running_.begin() + ++place, &sibling);
  }
}

void Scheduler::finish(Sequence& sequence) {
  sequence.finished = true;
  publish(sequence);  // tokens may have become known since its last step
  release(sequence);
  std::erase(running_, &sequence);
  std::erase(preempted_, &sequence);
}

std::unique_ptr<ActiveRequest> Scheduler::remove(RequestId id) {
  const auto place = std::find_if(requests_.begin(), requests_.end(), [&](const auto& request) { return request->id == id; });
  TORCH_CHECK(place != requests_.end(), "scheduler: no request ", id);
  std::unique_ptr<ActiveRequest> request = std::move(*place);
  requests_.erase(place);
  if (std::erase(waiting_, request.get()) > 0) waiting_tokens_ -= request->prompt_size();
  return request;
}

ActiveRequest* Scheduler::find(RequestId id) {
  const auto place = std::find_if(requests_.begin(), requests_.end(), [&](const auto& request) { return request->id == id; });
  return place != requests_.end() ? place->get() : nullptr;
}

std::vector<RequestId> Scheduler::requests() const {
  std::vector<RequestId> ids;
  for (const auto& request : requests_) ids.push_back(request->id);
  return ids;
}

std::int64_t Scheduler::invalidate(const std::function<bool(std::span<const std::int32_t>)>& matches) {
  if (!matches) ++epoch_;
  return pool_.invalidate(matches);
}

void Scheduler::count(EngineStats& stats) const {
  stats.running = static_cast<std::int64_t>(running_.size());
  stats.queued = static_cast<std::int64_t>(waiting_.size() + preempted_.size());
  stats.queued_tokens = waiting_tokens_;
  stats.kv_blocks_used = pool_.used();
  stats.kv_blocks_cached = pool_.cached();
  stats.kv_blocks_total = pool_.total();
  stats.cache_hits = hits_;
  stats.cache_misses = misses_;
  stats.preemptions = preemptions_;
}

}  // namespace nanochat
