#include <cstdlib>

#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "distributed/process_group.h"

namespace nanochat::distributed {

c10::intrusive_ptr<c10d::Backend> make_nccl_group(const c10::intrusive_ptr<c10d::Store>& store, const GroupPlace& place,
                                                  at::Device device) {
  // The watchdog of this library names the rank at fault, aborts and lets the caller end; c10d's would end the
  // process.
  ::setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0", 0);
  ::setenv("TORCH_NCCL_ENABLE_MONITORING", "0", 0);
  ::setenv("NCCL_NVLS_ENABLE", "0", 0);  // NVLink multicast hangs where a container may not map its memory
  const auto options = c10d::ProcessGroupNCCL::Options::create(/*is_high_priority_stream=*/true);
  options->timeout = place.timeout;
  const auto group = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, place.rank, place.size, options);
  group->setBoundDeviceId(device);
  group->eagerConnectSingleDevice(device);
  return group;
}

}  // namespace nanochat::distributed
