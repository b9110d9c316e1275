#include "checkpoint/safetensors.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <bit>
#include <set>

#include <nlohmann/json.hpp>

#include "checkpoint/internal/safetensors_dtype.h"
#include "core/atomic_file.h"

namespace nanochat {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is written as it lies in memory");

constexpr std::size_t kAlignment = 64;

}  // namespace

void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const std::pair<std::string, at::Tensor>*> order;
  std::set<std::string> names;
  for (const auto& named : tensors) {
    TORCH_CHECK(named.second.defined(), "write_safetensors: ", named.first, " is undefined");
    TORCH_CHECK(!safetensors_dtype_name(named.second.scalar_type()).empty(), "write_safetensors: ", named.first,
                " has element type ", named.second.scalar_type(), ", which the format lacks");
    TORCH_CHECK(named.first != "__metadata__" && names.insert(named.first).second, "write_safetensors: the name ", named.first,
                " is taken");
    order.push_back(&named);
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const auto* a, const auto* b) { return a->second.element_size() > b->second.element_size(); });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t offset = 0;
  for (const auto* named : order) {
    const at::Tensor& tensor = named->second;
    const std::size_t end = offset + tensor.nbytes();
    header[named->first] = {{"dtype", safetensors_dtype_name(tensor.scalar_type())},
                            {"shape", tensor.sizes().vec()},
                            {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  const std::size_t used = sizeof(std::uint64_t) + text.size();
  text.append((used + kAlignment - 1) / kAlignment * kAlignment - used, ' ');

  AtomicFile file(path);
  const std::uint64_t length = text.size();
  file.write(&length, sizeof length);
  file.write(text);
  for (const auto* named : order) {
    const at::Tensor dense = named->second.detach().cpu().contiguous();
    file.write(dense.const_data_ptr(), dense.nbytes());
  }
  file.commit();
}

}  // namespace nanochat
