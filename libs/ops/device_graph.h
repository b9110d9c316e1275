#pragma once
// A sequence of operations on a GPU, recorded once and started as a whole (a CUDA graph): what costs the host a few
// microseconds for each kernel otherwise is one launch for all.
//
//   DeviceGraph graph(device, [&] { ops::linear(x, w, y); ops::relu_squared(y, y); });
//   copy new numbers into x; graph.replay(); read y

#include <c10/core/Device.h>

#include <functional>
#include <memory>

namespace nanochat::ops {

namespace cuda {
class Graph;
}

class DeviceGraph {
 public:
  // Runs `work` twice: once as it is, so that libraries prepare what they prepare at the first call, and once to record.
  // It may enqueue work on the device's current stream and take memory of LibTorch, but wait for nothing and copy nothing
  // from or to the host. Tensors that it used must live as long as the graph.
  DeviceGraph(c10::Device device, const std::function<void()>& work);
  // Enqueues the work on the current stream; returns at once.
  void replay();

 private:
  std::shared_ptr<cuda::Graph> graph_;
};

}  // namespace nanochat::ops
