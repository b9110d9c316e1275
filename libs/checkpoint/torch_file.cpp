#include "checkpoint/torch_file.h"

#include <c10/util/Exception.h>

#include <array>
#include <limits>
#include <set>
#include <string_view>

#include "checkpoint/internal/safetensors_dtype.h"
#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/format.h"
#include "core/pickle.h"

namespace nanochat {
namespace {

using Value = Pickle::Value;

constexpr std::string_view kCompiledPrefix = "_orig_mod.";

struct StorageClass {
  std::string_view name;
  at::ScalarType dtype;
};
constexpr std::array<StorageClass, 4> kStorageClasses = {{{"FloatStorage", at::kFloat},
                                                          {"BFloat16Storage", at::kBFloat16},
                                                          {"HalfStorage", at::kHalf},
                                                          {"DoubleStorage", at::kDouble}}};

[[noreturn]] void fail(const std::string& what) { throw DataError(what); }  // the constructor adds the file

// "NAME/" of the archive: torch.save puts all entries into one folder.
std::string folder_of(const ZipFile& archive) {
  constexpr std::string_view kPickleFile = "/data.pkl";
  std::string folder;
  for (const auto& [name, entry] : archive.entries()) {
    if (!name.ends_with(kPickleFile) || name.find('/') != name.size() - kPickleFile.size()) continue;
    if (!folder.empty()) fail("has more than one data.pkl");
    folder = name.substr(0, name.size() - kPickleFile.size() + 1);
  }
  if (folder.empty()) fail("has no data.pkl; torch.save did not write it");
  return folder;
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::int64_t size_of(const Value& value) {
  const std::int64_t size = value.integer();
  if (size < 0) fail("has a negative size");
  return size;
}

// Arguments of torch._utils._rebuild_tensor_v2: storage, offset, sizes, strides, requires_grad, hooks.
class TensorReader {
 public:
  TensorReader(const ZipFile& archive, const std::string& folder, std::set<std::string>& verified)
      : archive_(archive), folder_(folder), verified_(verified) {}

  StoredTensor read(Value value) const {
    if (value.kind() == Pickle::Kind::kObject && value.callable().is_global("torch._utils", "_rebuild_parameter")) {
      value = value.arguments().item(0);
    }
    if (value.kind() != Pickle::Kind::kObject) fail(std::string("is ") + value.kind_name() + ", expected a tensor");
    if (!value.callable().is_global("torch._utils", "_rebuild_tensor_v2")) {
      fail("is made by " + value.callable().global_name() + ", expected a dense tensor");
    }
    const Value arguments = value.arguments();
    StoredTensor tensor;
    std::int64_t elements = 0;
    const ZipFile::Entry storage = read_storage(arguments.item(0).persistent_id(), tensor.dtype, elements);
    const std::int64_t offset = size_of(arguments.item(1));
    const std::int64_t count = read_shape(arguments.item(2), arguments.item(3), tensor.shape);
    if (offset > elements || count > elements - offset) {
      fail("needs " + std::to_string(count) + " elements from " + std::to_string(offset) + " on, but its storage has " +
           std::to_string(elements));
    }
    const std::size_t width = c10::elementSize(tensor.dtype);
    tensor.begin = storage.begin + static_cast<std::size_t>(offset) * width;
    tensor.end = tensor.begin + static_cast<std::size_t>(count) * width;
    return tensor;
  }

 private:
  // ("storage", class, key, device, elements)
  ZipFile::Entry read_storage(const Value& id, at::ScalarType& dtype, std::int64_t& elements) const {
    if (id.item(0).string() != "storage") fail("refers to something else than a storage");
    const Value type = id.item(1);
    const StorageClass* known = nullptr;
    for (const StorageClass& candidate : kStorageClasses) {
      if (type.is_global("torch", candidate.name)) known = &candidate;
    }
    if (known == nullptr) {
      fail("has elements of " + type.global_name() + ", expected float16, bfloat16, float32 or float64");
    }
    dtype = known->dtype;
    elements = size_of(id.item(4));
    const std::string name = folder_ + "data/" + std::string(id.item(2).string());
    const auto entry = archive_.entries().find(name);
    if (entry == archive_.entries().end()) {
      fail("its storage " + replace_invalid_utf8(name.substr(0, 100)) + " is missing");
    }
    const std::size_t bytes = entry->second.end - entry->second.begin, width = c10::elementSize(dtype);
    if (bytes % width != 0 || bytes / width != static_cast<std::uint64_t>(elements)) {
      fail("claims " + std::to_string(elements) + " elements of " + std::to_string(width) + " bytes, but " + name + " has " +
           std::to_string(bytes) + " bytes");
    }
    if (verified_.insert(name).second) archive_.read(name);
    return entry->second;
  }

  // Returns the number of elements.
  static std::int64_t read_shape(const Value& sizes, const Value& strides, std::vector<std::int64_t>& shape) {
    constexpr std::size_t kMaxDimensions = 64;
    if (sizes.size() != strides.size() || sizes.size() > kMaxDimensions) fail("has sizes and strides that do not fit");
    for (std::size_t i = 0; i < sizes.size(); ++i) shape.push_back(size_of(sizes.item(i)));
    std::int64_t count = 1;
    bool dense = true;
    for (std::size_t i = shape.size(); i-- > 0;) {
      dense = dense && (shape[i] == 1 || strides.item(i).integer() == count);
      if (__builtin_mul_overflow(count, shape[i], &count)) fail("has a shape of too many elements, " + shape_text(shape));
    }
    if (!dense && count > 0) fail("is not stored row by row; save a contiguous tensor");
    return count;
  }

  const ZipFile& archive_;
  const std::string& folder_;
  std::set<std::string>& verified_;
};

std::map<std::string, StoredTensor> read_dictionary(const ZipFile& archive) {
  const std::string folder = folder_of(archive);
  if (archive.entries().contains(folder + "byteorder") && text_of(archive.read(folder + "byteorder")) != "little") {
    fail("was saved on a big-endian machine, which is not supported");
  }
  const Pickle pickle(text_of(archive.read(folder + "data.pkl")));
  const Value root = pickle.root();
  const bool ordered = root.kind() == Pickle::Kind::kObject && root.callable().is_global("collections", "OrderedDict") &&
                       root.arguments().size() == 0;
  if (root.kind() != Pickle::Kind::kDict && !ordered) {
    fail(std::string("holds ") + (root.kind() == Pickle::Kind::kObject ? root.callable().global_name() : root.kind_name()) +
         ", expected a dictionary of tensors");
  }
  std::map<std::string, StoredTensor> entries;
  std::set<std::string> verified;
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < root.size(); ++i) {
    std::string_view name = root.key(i).string();
    if (name.starts_with(kCompiledPrefix)) name.remove_prefix(kCompiledPrefix.size());
    try {
      const auto [entry, is_new] = entries.emplace(name, TensorReader(archive, folder, verified).read(root.value(i)));
      if (!is_new) fail("is there twice");
      bytes += entry->second.end - entry->second.begin;
      if (bytes > archive.size()) fail("shares its elements with other tensors, which is not supported");
    } catch (const DataError& error) {
      fail(replace_invalid_utf8(name.substr(0, 100)) + ": " + error.what());
    }
  }
  return entries;
}

}  // namespace

TorchFile::TorchFile(const std::filesystem::path& path) : TorchFile(ZipFile(path)) {}

TorchFile::TorchFile(MappedFile file, std::filesystem::path name) : TorchFile(ZipFile(std::move(file), std::move(name))) {}

TorchFile::TorchFile(ZipFile archive) : archive_(std::move(archive)) {
  try {
    entries_ = read_dictionary(archive_);
  } catch (const DataError& error) {
    throw CheckpointError(archive_.path().string() + ": " + on_one_line(error.what()));
  }
}

void TorchFile::read_into(const std::string& name, at::Tensor& target) const {
  const StoredTensor& found = entry(name);
  // The constructor has compared the entry; its bytes are taken without doing so again.
  copy_elements(found, archive_.bytes().data() + found.begin, path(), name, target);
}

void write_torch_file(const std::filesystem::path& path, const NamedTensors& tensors) {
  AtomicFile file(path);
  ZipWriter archive(file);
  const std::string folder = path.stem().string() + "/";
  PickleWriter pickle(2);
  pickle.global("collections", "OrderedDict");
  pickle.empty_tuple();
  pickle.reduce();
  pickle.mark();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& [name, tensor] = tensors[i];
    const StorageClass* known = nullptr;
    for (const StorageClass& candidate : kStorageClasses) {
      if (candidate.dtype == tensor.scalar_type()) known = &candidate;
    }
    TORCH_CHECK(known != nullptr, "write_torch_file: ", name, " has element type ", tensor.scalar_type());
    pickle.string(name);
    pickle.global("torch._utils", "_rebuild_tensor_v2");
    pickle.mark();
    pickle.mark();
    pickle.string("storage");
    pickle.global("torch", known->name);
    pickle.string(std::to_string(i));
    pickle.string("cpu");
    pickle.integer(tensor.numel());
    pickle.tuple();
    pickle.persistent_id();
    pickle.integer(0);
    pickle.mark();
    for (const std::int64_t size : tensor.sizes()) pickle.integer(size);
    pickle.tuple();
    pickle.mark();
    std::int64_t stride = tensor.numel();
    for (const std::int64_t size : tensor.sizes()) pickle.integer(stride = size > 0 ? stride / size : 1);
    pickle.tuple();
    pickle.boolean(false);
    pickle.global("collections", "OrderedDict");
    pickle.empty_tuple();
    pickle.reduce();
    pickle.tuple();
    pickle.reduce();
  }
  pickle.set_items();
  archive.add(folder + "data.pkl", pickle.finish());
  archive.add(folder + "byteorder", "little");
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor dense = tensors[i].second.detach().cpu().contiguous();
    archive.add(folder + "data/" + std::to_string(i), dense.const_data_ptr(), dense.nbytes());
  }
  archive.add(folder + "version", "3\n");
  archive.finish();
  file.commit();
}

}  // namespace nanochat
