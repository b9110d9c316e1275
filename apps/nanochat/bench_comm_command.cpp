// nanochat bench comm: times the collectives between the processes of a run.
#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>

#include <ATen/ops/ones.h>
#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "command_line.h"
#include "commands.h"
#include "core/errors.h"
#include "core/format.h"
#include "distributed/agree.h"
#include "ops/device.h"
#include "ranks.h"

namespace nanochat::cli {
namespace {

using nlohmann::ordered_json;

struct BenchCommArguments {
  std::string device = "auto";
  std::string dtype = "float32";
  std::int64_t bytes = 64 << 20;
  std::int64_t steps = 10;
  CommunicatorOptions communicator;
};

at::Device device_of(const std::string& name, int local_rank) {
  const int gpus = name == "cpu" ? 0 : ops::cuda_devices();
  if (name == "cuda" && gpus == 0) throw ConfigError("--device cuda: no usable NVIDIA GPU on this machine; use --device cpu");
  if (gpus == 0) return at::kCPU;
  if (local_rank >= gpus && gpus > 1) {
    throw ConfigError(fmt::format("local rank {} has no GPU of its own: this machine has {}", local_rank, gpus));
  }
  const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(gpus == 1 ? 0 : local_rank));
  ops::use_device(device);
  return device;
}

struct Measured {
  const char* operation;
  std::int64_t bytes;
  double seconds, sent;  // the median call, and what a rank sends in it by the ring algorithm
};

Measured measure(Communicator& communicator, const BenchCommArguments& arguments, const char* operation, std::int64_t bytes,
                 double sent, const std::function<void()>& call) {
  std::vector<double> seconds;
  for (std::int64_t step = 0; step < arguments.steps + 2; ++step) {  // two to warm up
    communicator.barrier();
    const auto start = std::chrono::steady_clock::now();
    call();
    ops::synchronize(arguments.communicator.device);
    if (step >= 2) seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  return {operation, bytes, *middle, sent};
}

std::vector<Measured> measure_all(Communicator& communicator, const BenchCommArguments& arguments) {
  const at::ScalarType dtype = arguments.dtype == "float32" ? at::kFloat : at::kBFloat16;
  const auto ranks = static_cast<std::int64_t>(communicator.size());
  const double share = static_cast<double>(ranks - 1) / static_cast<double>(ranks);
  std::vector<Measured> all{measure(communicator, arguments, "agree", 8, 0, [&] { agree(communicator, RankStatus::kFine); })};
  for (std::int64_t bytes = std::min<std::int64_t>(4096, arguments.bytes); bytes <= arguments.bytes; bytes *= 16) {
    const std::int64_t piece = std::max<std::int64_t>(1, bytes / static_cast<std::int64_t>(at::elementSize(dtype)) / ranks);
    at::Tensor whole = at::ones({piece * ranks}, at::TensorOptions(dtype).device(arguments.communicator.device));
    at::Tensor part = at::ones({piece}, whole.options());
    const double size = static_cast<double>(whole.nbytes());
    const auto add = [&](const char* operation, double sent, const std::function<void()>& call) {
      all.push_back(measure(communicator, arguments, operation, static_cast<std::int64_t>(whole.nbytes()), sent, call));
    };
    add("all_reduce", 2 * share * size, [&] { communicator.all_reduce(whole, ReduceOp::kMean).wait(); });
    add("reduce_scatter", share * size, [&] { communicator.reduce_scatter(whole, part, ReduceOp::kMean).wait(); });
    add("all_gather", share * size, [&] { communicator.all_gather(part, whole).wait(); });
    add("broadcast", size, [&] { communicator.broadcast(whole).wait(); });
  }
  return all;
}

void print(const std::vector<Measured>& all, const BenchCommArguments& arguments, int ranks, bool as_json) {
  if (as_json) {
    ordered_json results = ordered_json::array();
    for (const Measured& one : all) {
      results.push_back({{"operation", one.operation},
                         {"bytes", one.bytes},
                         {"seconds", one.seconds},
                         {"sent_bytes_per_second", one.sent / one.seconds}});
    }
    fmt::print("{}\n", ordered_json{{"ranks", ranks},
                                    {"device", arguments.communicator.device.str()},
                                    {"dtype", arguments.dtype},
                                    {"results", results}}
                           .dump());
    return;
  }
  fmt::print("{} ranks, {}, {}\n{:<16}{:>12}{:>14}{:>20}\n", ranks, arguments.communicator.device.str(), arguments.dtype,
             "operation", "bytes", "time", "sent by a rank");
  for (const Measured& one : all) {
    fmt::print("{:<16}{:>12}{:>11.3f} ms{:>18}/s\n", one.operation, human_bytes(static_cast<double>(one.bytes)),
               1e3 * one.seconds, human_bytes(one.sent / one.seconds));
  }
}

}  // namespace

void add_bench_comm(CommandLine& command_line) {
  auto arguments = std::make_shared<BenchCommArguments>();
  arguments->communicator = communicator_options("bench comm");
  Subcommand& command = command_line.add(
      "bench comm", "Measure collective operations (all-reduce and others) between the processes of a run, for several sizes.",
      "nanochat launch --nproc 2 -- bench comm --device cpu");
  command
      .option("device", arguments->device,
              "Where the tensors are: cpu uses Gloo, cuda uses NCCL with one GPU for each process; auto uses GPUs if there are "
              "any.")
      .one_of({"auto", "cpu", "cuda"});
  command.option("dtype", arguments->dtype, "Type of the tensor elements.").one_of({"float32", "bfloat16"});
  command
      .option("bytes", arguments->bytes, "Size of the largest tensor in bytes. Sizes begin at 4096 and grow by a factor of 16.")
      .at_least(4);
  command.option("steps", arguments->steps, "Number of timed calls; the median is reported.").at_least(1);
  declare_distributed_options(command.options(), arguments->communicator);
  command.run([arguments](Context& context) {
    const WorldConfig world = read_world();
    arguments->communicator.device = device_of(arguments->device, world.local_rank);
    Communicator communicator(world, arguments->communicator);
    communicator.require_same("configuration",
                              {{"dtype", arguments->dtype}, {"bytes", arguments->bytes}, {"steps", arguments->steps}});
    const std::vector<Measured> all = measure_all(communicator, *arguments);
    if (communicator.is_root()) print(all, *arguments, communicator.size(), context.json);
    return ExitCode::kOk;
  });
}

}  // namespace nanochat::cli
