#include "ops/cast.h"

#include "ops/internal/dispatch.h"

namespace nanochat::ops {

bool cpu_has_fast_bf16() {
#if defined(__x86_64__)
  static const bool fast = __builtin_cpu_supports("avx512bf16") > 0;  // every AMX processor has it too
  return fast;
#else
  return false;
#endif
}

void copy_converting(const at::Tensor& from, at::Tensor& to) {
  TORCH_CHECK(from.numel() == to.numel(), "copy_converting: ", from.numel(), " elements into ", to.numel());
  if (from.scalar_type() == to.scalar_type() || to.is_cuda()) {
    to.copy_(from.view(to.sizes()));
    return;
  }
  const at::Tensor& narrow = from.scalar_type() == at::kFloat ? to : from;
  visit_dtype(narrow, "copy_converting", [&]<class T>(T) {
    const auto& kernels = cpu::kernels<T>();
    parallel_for(from.numel(), 1 << 15, [&](std::int64_t begin, std::int64_t end) {
      if (&narrow == &to) {
        kernels.from_float(typed<float>(from) + begin, typed<T>(to) + begin, end - begin);
      } else {
        kernels.to_float(typed<T>(from) + begin, typed<float>(to) + begin, end - begin);
      }
    });
  });
}

void accumulate(at::Tensor& sum, const at::Tensor& x) {
  TORCH_CHECK(sum.numel() == x.numel(), "accumulate: ", x.numel(), " elements into ", sum.numel());
  TORCH_CHECK(sum.scalar_type() == at::kFloat, "accumulate: expected a float32 sum, got ", sum.scalar_type());
  if (sum.is_cuda()) {
    sum.add_(x.view(sum.sizes()));
    return;
  }
  visit_dtype(x, "accumulate", [&]<class T>(T) {
    parallel_for(x.numel(), 1 << 15, [&](std::int64_t begin, std::int64_t end) {
      cpu::kernels<T>().accumulate(typed<float>(sum) + begin, typed<T>(x) + begin, end - begin);
    });
  });
}

}  // namespace nanochat::ops
