#include "checkpoint/internal/tied_weights.h"

#include <ATen/ops/equal.h>

#include <map>
#include <utility>
#include <vector>

#include "core/errors.h"

namespace nanochat {
namespace {

// A source with one more tensor, whose elements are those of another.
class AliasedSource final : public TensorSource {
 public:
  AliasedSource(std::unique_ptr<TensorSource> source, std::string name, std::string of)
      : source_(std::move(source)), name_(std::move(name)), of_(std::move(of)), entries_(source_->entries()) {
    entries_.emplace(name_, source_->entry(of_));
  }

  const std::filesystem::path& path() const override { return source_->path(); }
  std::vector<std::filesystem::path> files() const override { return source_->files(); }
  const std::map<std::string, StoredTensor>& entries() const override { return entries_; }
  void read_into(const std::string& name, at::Tensor& target) const override {
    source_->read_into(name == name_ ? of_ : name, target);
  }

 private:
  std::unique_ptr<TensorSource> source_;
  std::string name_, of_;
  std::map<std::string, StoredTensor> entries_;
};

}  // namespace

std::unique_ptr<TensorSource> untie_weights(std::unique_ptr<TensorSource> source, Naming naming, bool tied, std::string& note) {
  const bool reference = naming == Naming::kReference;
  std::string embedding = reference ? "transformer.wte.weight" : "model.embed_tokens.weight", head = "lm_head.weight";
  const bool has_embedding = source->contains(embedding), has_head = source->contains(head);
  if (has_embedding && has_head) {
    if (tied && !at::equal(source->tensor(embedding), source->tensor(head))) {
      throw CheckpointError(source->path().string() + ": " + head + " differs from " + embedding +
                            ", though the configuration has tie_word_embeddings true; set it to false if the head is "
                            "one of its own");
    }
    if (tied) note = head + " equals " + embedding + " and becomes a table of its own";
    return source;
  }
  if (has_embedding || (has_head && tied)) {
    if (!has_embedding) std::swap(embedding, head);
    note = head + " is not in the file, so it becomes a copy of " + embedding;
    return std::make_unique<AliasedSource>(std::move(source), head, embedding);
  }
  return source;
}

}  // namespace nanochat
