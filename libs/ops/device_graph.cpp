#include "ops/device_graph.h"

#include "ops/cuda/backend.h"

namespace nanochat::ops {

DeviceGraph::DeviceGraph(c10::Device device, const std::function<void()>& work) : graph_(cuda::record(device, work)) {}

void DeviceGraph::replay() { cuda::replay(*graph_); }

}  // namespace nanochat::ops
