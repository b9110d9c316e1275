#include "ops/cuda/lt_product.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <c10/util/Exception.h>
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdint>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "ops/cuda/tensors.h"

namespace nanochat::ops::cuda {
namespace {

// The functions of the library that LibTorch has loaded, so that the process has one cublasLt.
struct Library {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) get_heuristic = nullptr;
  decltype(&cublasLtMatmulDescCreate) create_operation = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) set_operation = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) create_layout = nullptr;
  decltype(&cublasLtMatrixLayoutSetAttribute) set_layout = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) create_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) destroy_preference = nullptr;
  bool complete = false;
};

const Library& library() {
  static const Library loaded = [] {
    Library found;
    void* handle = dlopen(("libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR)).c_str(), RTLD_NOW | RTLD_NOLOAD);
    if (handle == nullptr) return found;
    found.complete = true;
    const auto load = [&]<class Function>(Function*& function, const char* name) {
      function = reinterpret_cast<Function*>(dlsym(handle, name));
      found.complete = found.complete && function != nullptr;
    };
    load(found.create, "cublasLtCreate");
    load(found.matmul, "cublasLtMatmul");
    load(found.get_heuristic, "cublasLtMatmulAlgoGetHeuristic");
    load(found.create_operation, "cublasLtMatmulDescCreate");
    load(found.set_operation, "cublasLtMatmulDescSetAttribute");
    load(found.create_layout, "cublasLtMatrixLayoutCreate");
    load(found.set_layout, "cublasLtMatrixLayoutSetAttribute");
    load(found.create_preference, "cublasLtMatmulPreferenceCreate");
    load(found.set_preference, "cublasLtMatmulPreferenceSetAttribute");
    load(found.destroy_preference, "cublasLtMatmulPreferenceDestroy");
    return found;
  }();
  return loaded;
}

void check(cublasStatus_t status, const char* what) {
  TORCH_CHECK(status == CUBLAS_STATUS_SUCCESS, "cublasLt: ", what, " failed with status ", static_cast<int>(status));
}

// cublasLt's matrices are column-major: what lies in memory with contiguous rows is its transpose there.
struct Layout {
  std::int64_t rows = 0, columns = 0, leading = 0, batch_stride = 0;  // of the column-major matrix
  bool transposed = false;  // the operand is the transpose of that matrix
};

// Of the last two dimensions of x, read as the transpose of x: (rows, columns) of x are (columns, rows) of the operand.
std::optional<Layout> layout_of(const at::Tensor& x) {
  const std::int64_t rows = x.size(-2), columns = x.size(-1), batch_stride = x.dim() == 3 ? x.stride(0) : 0;
  if (x.stride(-1) == 1 && x.stride(-2) >= columns) return Layout{columns, rows, x.stride(-2), batch_stride, false};
  if (x.stride(-2) == 1 && x.stride(-1) >= rows) return Layout{rows, columns, x.stride(-1), batch_stride, true};
  return std::nullopt;
}

bool is_narrow(const at::Tensor& x) { return x.scalar_type() == at::kFloat8_e4m3fn || x.scalar_type() == at::kFloat8_e5m2; }

cudaDataType_t type_of(const at::Tensor& x) {
  if (x.scalar_type() == at::kFloat8_e4m3fn) return CUDA_R_8F_E4M3;
  if (x.scalar_type() == at::kFloat8_e5m2) return CUDA_R_8F_E5M2;
  return x.scalar_type() == at::kFloat ? CUDA_R_32F : CUDA_R_16BF;
}

// Of every matrix of a batch, up to 256, which is what cublasLt assumes without being told.
std::uint32_t alignment_of(const at::Tensor& x) {
  auto places = reinterpret_cast<std::uintptr_t>(x.const_data_ptr());
  if (x.dim() == 3) places |= static_cast<std::uintptr_t>(x.stride(0) * static_cast<std::int64_t>(x.element_size()));
  std::uint32_t alignment = 256;
  while (places % alignment != 0) alignment /= 2;
  return alignment;
}

// Everything that an algorithm may depend on.
std::vector<std::int64_t> key_of(const LtProduct& product, const Layout& a, const Layout& b, const Layout& result) {
  std::vector<std::int64_t> key = {product.result.device().index(), product.result.dim() == 3 ? product.result.size(0) : 1,
                                   product.addend.defined(), product.fast_accumulation,
                                   static_cast<std::int64_t>(product.algorithm)};
  for (const at::Tensor& x : {product.a, product.b, product.result}) key.push_back(static_cast<std::int64_t>(x.scalar_type()));
  for (const Layout& layout : {a, b, result}) {
    key.insert(key.end(), {layout.rows, layout.columns, layout.leading, layout.batch_stride, layout.transposed});
  }
  for (const at::Tensor& x : {product.a, product.b, product.result, product.addend}) {
    key.push_back(x.defined() ? alignment_of(x) : 0);
  }
  return key;
}

// A product of one shape: cublasLt's descriptions, and its choice of an algorithm. Never destroyed, as the process may end
// after the library has been unloaded.
struct Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t first = nullptr, second = nullptr, result = nullptr;
  std::optional<cublasLtMatmulAlgo_t> algorithm;  // none if cublasLt has none
  std::size_t workspace_bytes = 0;
};

constexpr int kMostCandidates = 16;
constexpr std::size_t kMostWorkspace = std::size_t{32} << 20;  // what NVIDIA recommends for Hopper

cublasLtMatrixLayout_t make_layout(cudaDataType_t type, const Layout& layout, std::int32_t count) {
  cublasLtMatrixLayout_t made = nullptr;
  check(library().create_layout(&made, type, static_cast<std::uint64_t>(layout.rows),
                                static_cast<std::uint64_t>(layout.columns), layout.leading),
        "the description of a matrix");
  if (count > 1) {
    check(library().set_layout(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof(count)), "the size of a batch");
    check(library().set_layout(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &layout.batch_stride,
                               sizeof(layout.batch_stride)),
          "the stride of a batch");
  }
  return made;
}

using Candidates = std::vector<cublasLtMatmulHeuristicResult_t>;

// In the order of the times that cublasLt expects.
Candidates candidates_for(cublasLtHandle_t handle, const LtProduct& product, const Plan& plan) {
  const Library& lt = library();
  cublasLtMatmulPreference_t preference = nullptr;
  check(lt.create_preference(&preference), "the description of a choice");
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    check(lt.set_preference(preference, attribute, &value, sizeof(value)), "the description of a choice");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kMostWorkspace);
  // A divided sum is added up in float32, in a fixed order.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(product.b));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(product.a));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(product.addend.defined() ? product.addend : product.result));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(product.result));
  Candidates candidates(product.algorithm == LtAlgorithm::kFirst ? 1 : kMostCandidates);
  int found = 0;
  const cublasStatus_t status = lt.get_heuristic(handle, plan.operation, plan.first, plan.second, plan.result, plan.result,
                                                 preference, static_cast<int>(candidates.size()), candidates.data(), &found);
  lt.destroy_preference(preference);
  candidates.resize(status == CUBLAS_STATUS_SUCCESS ? static_cast<std::size_t>(found) : 0);
  std::erase_if(candidates, [](const auto& candidate) { return candidate.state != CUBLAS_STATUS_SUCCESS; });
  return candidates;
}

cublasStatus_t run(cublasLtHandle_t handle, const LtProduct& product, const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                   std::size_t workspace_bytes, const at::Tensor& to, Stream stream) {
  const at::Tensor workspace = at::empty({static_cast<std::int64_t>(workspace_bytes)}, to.options().dtype(at::kByte));
  const at::Tensor& addend = product.addend.defined() ? product.addend : to;
  const auto alpha = static_cast<float>(product.alpha);
  const float beta = product.addend.defined() ? static_cast<float>(product.beta) : 0.0F;
  return library().matmul(handle, plan.operation, &alpha, product.b.const_data_ptr(), plan.first, product.a.const_data_ptr(),
                          plan.second, &beta, addend.const_data_ptr(), plan.result, to.data_ptr(), plan.result, &algorithm,
                          workspace.data_ptr(), workspace_bytes, stream);
}

// The fastest candidate, by the shortest of a few runs of each into a tensor of its own.
const cublasLtMatmulHeuristicResult_t* fastest(cublasLtHandle_t handle, const LtProduct& product, const Plan& plan,
                                               const Candidates& candidates, Stream stream) {
  constexpr int kRuns = 4;
  const at::Tensor to = at::empty_strided(product.result.sizes(), product.result.strides(), product.result.options());
  cudaEvent_t begin = nullptr, end = nullptr;
  TORCH_CHECK(cudaEventCreate(&begin) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess, "cannot create an event");
  const cublasLtMatmulHeuristicResult_t* best = nullptr;
  float shortest = std::numeric_limits<float>::infinity();
  for (const cublasLtMatmulHeuristicResult_t& candidate : candidates) {
    for (int i = 0; i < kRuns; ++i) {
      cudaEventRecord(begin, stream);
      if (run(handle, product, plan, candidate.algo, candidate.workspaceSize, to, stream) != CUBLAS_STATUS_SUCCESS) break;
      cudaEventRecord(end, stream);
      float milliseconds = 0.0F;
      if (cudaEventSynchronize(end) != cudaSuccess || cudaEventElapsedTime(&milliseconds, begin, end) != cudaSuccess) break;
      if (milliseconds < shortest) {
        shortest = milliseconds;
        best = &candidate;
      }
    }
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return best;
}

// Scales are read from where they are at the time of each call.
void set_scales(const LtProduct& product, const Plan& plan) {
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const at::Tensor& scale) {
    const void* pointer = device_data<float>(scale);
    check(library().set_operation(plan.operation, attribute, &pointer, sizeof(pointer)), "the scale of an operand");
  };
  set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, product.scale_b);
  set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, product.scale_a);
}

Plan make_plan(cublasLtHandle_t handle, const LtProduct& product, const Layout& a, const Layout& b, const Layout& result,
               Stream stream) {
  const Library& lt = library();
  const std::int32_t count = product.result.dim() == 3 ? static_cast<std::int32_t>(product.result.size(0)) : 1;
  Plan plan;
  check(lt.create_operation(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "the description of a product");
  // resultᵀ = bᵀ aᵀ.
  const auto set_transposed = [&](cublasLtMatmulDescAttributes_t attribute, bool transposed) {
    const cublasOperation_t operation = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    check(lt.set_operation(plan.operation, attribute, &operation, sizeof(operation)), "the transposition of an operand");
  };
  set_transposed(CUBLASLT_MATMUL_DESC_TRANSA, b.transposed);
  set_transposed(CUBLASLT_MATMUL_DESC_TRANSB, a.transposed);
  if (is_narrow(product.a)) {
    const std::int8_t fast = product.fast_accumulation ? 1 : 0;
    check(lt.set_operation(plan.operation, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof(fast)), "the kind of accumulation");
    set_scales(product, plan);
  }
  plan.first = make_layout(type_of(product.b), b, count);
  plan.second = make_layout(type_of(product.a), a, count);
  plan.result = make_layout(type_of(product.result), result, count);
  const Candidates candidates = candidates_for(handle, product, plan);
  const cublasLtMatmulHeuristicResult_t* chosen = candidates.empty() ? nullptr : &candidates.front();
  if (candidates.size() > 1) chosen = fastest(handle, product, plan, candidates, stream);
  if (chosen != nullptr) {
    plan.algorithm = chosen->algo;
    plan.workspace_bytes = chosen->workspaceSize;
  }
  return plan;
}

bool has_type_of_result(const at::Tensor& x) { return x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kFloat; }

bool has_types_of_operands(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() == at::kBFloat16 && b.scalar_type() == at::kBFloat16) return true;
  return is_narrow(a) && is_narrow(b) && !(a.scalar_type() == at::kFloat8_e5m2 && b.scalar_type() == at::kFloat8_e5m2);
}

}  // namespace

bool lt_is_loaded() { return library().complete; }

bool lt_product(const LtProduct& product) {
  const at::Tensor &a = product.a, &b = product.b, &result = product.result, &addend = product.addend;
  TORCH_CHECK(a.dim() == b.dim() && a.dim() == result.dim() && (a.dim() == 2 || a.dim() == 3) && a.size(-1) == b.size(-2) &&
                  result.size(-2) == a.size(-2) && result.size(-1) == b.size(-1) && a.size(0) == result.size(0) &&
                  (a.dim() == 2 || b.size(0) == result.size(0)),
              "lt_product: a ", a.sizes(), " and b ", b.sizes(), " do not fit a result ", result.sizes());
  TORCH_CHECK(!addend.defined() || (addend.sizes() == result.sizes() && addend.strides() == result.strides() &&
                                    addend.scalar_type() == result.scalar_type()),
              "lt_product: the addend differs from the result in its layout or type");
  if (!lt_is_loaded() || !has_types_of_operands(a, b) || !has_type_of_result(result)) return false;
  const std::optional<Layout> of_a = layout_of(a), of_b = layout_of(b), of_result = layout_of(result);
  if (!of_a || !of_b || !of_result || of_result->transposed || result.numel() == 0 || a.size(-1) == 0) return false;
  const On stream(result);
  static std::mutex mutex;  // of what follows, and of the scales of a plan until its product is on its way
  static std::map<int, cublasLtHandle_t> handles;
  static std::map<std::vector<std::int64_t>, Plan> plans;
  const std::scoped_lock lock(mutex);
  cublasLtHandle_t& handle = handles[result.device().index()];
  if (handle == nullptr) check(library().create(&handle), "the start of the library");
  const auto [found, is_new] = plans.try_emplace(key_of(product, *of_a, *of_b, *of_result));
  Plan& plan = found->second;
  if (is_new) plan = make_plan(handle, product, *of_a, *of_b, *of_result, stream);
  if (!plan.algorithm) return false;
  if (is_narrow(a)) set_scales(product, plan);
  check(run(handle, product, plan, *plan.algorithm, plan.workspace_bytes, result, stream), "a product");
  return true;
}

}  // namespace nanochat::ops::cuda
