#include "checkpoint/internal/model_tensors.h"

#include <ATen/ops/empty.h>

#include "checkpoint/internal/safetensors_dtype.h"
#include "core/errors.h"

namespace nanochat {

std::string named(const TensorSpec& tensor, Naming naming) {
  return naming == Naming::kReference ? tensor.reference_name() : tensor.name();
}

void check_model_tensors(const GptConfig& config, const TensorSource& source, Naming naming, const std::string& config_name) {
  const auto fail = [&](const std::string& what) { throw CheckpointError(source.path().string() + ": " + what); };
  std::size_t expected = 0;
  // The first tensor that is missing ends this, so an n_layer that is nonsense costs no more than the file has tensors.
  for_each_tensor(config, [&](const TensorSpec& tensor) {
    ++expected;
    const std::string name = named(tensor, naming);
    const StoredTensor& entry = source.entry(name);
    if (!c10::isFloatingType(entry.dtype)) {
      fail(name + " holds " + std::string(safetensors_dtype_name(entry.dtype)) + ", expected F32, BF16 or F16");
    }
    std::vector<std::int64_t> unpadded = tensor.shape;
    if (tensor.by_token) unpadded[0] = config.vocab_size;
    if (entry.shape != tensor.shape && entry.shape != unpadded) {
      fail(name + " has shape " + shape_text(entry.shape) + ", but " + config_name + " asks for " + shape_text(tensor.shape));
    }
  });
  if (source.entries().size() == expected) return;
  fail("holds " + std::to_string(source.entries().size()) + " tensors, but the " + std::to_string(config.n_layer) +
       " layers of " + config_name + " have " + std::to_string(expected) + "; the two do not belong together");
}

void read_model_tensor(const TensorSpec& tensor, const TensorSource& source, Naming naming, at::Tensor& target) {
  const std::string name = named(tensor, naming);
  const std::int64_t rows = source.entry(name).shape[0];
  at::Tensor stored = target.narrow(0, 0, rows);
  source.read_into(name, stored);
  if (rows < target.size(0)) target.narrow(0, rows, target.size(0) - rows).zero_();
}

NamedTensors read_model_tensors(const GptConfig& config, const TensorSource& source, Naming naming, at::ScalarType dtype) {
  NamedTensors result;
  for_each_tensor(config, [&](const TensorSpec& tensor) {
    at::Tensor values = at::empty(tensor.shape, dtype);
    read_model_tensor(tensor, source, naming, values);
    result.emplace_back(tensor.name(), values);
  });
  return result;
}

}  // namespace nanochat
