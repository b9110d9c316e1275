#pragma once
// A sequence of operations on a GPU that is recorded once and started with one
// launch (a CUDA graph). Otherwise each kernel costs the host a few microseconds.
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
  // Runs `work` twice: once directly, so that libraries do their initialisation, and once to record it.
  // It may enqueue work on the device's current stream and allocate memory from LibTorch. It must not
  // wait, and must not copy from or to the host. Tensors that it used must live as long as the graph.
  DeviceGraph(c10::Device device, const std::function<void()>& work);
  // Enqueues the work on the current stream; returns at once.
  void replay();

 private:
  std::shared_ptr<cuda::Graph> graph_;
};

}  // namespace nanochat::ops
