#pragma once
// Communication between the processes (ranks) of a run, with PyTorch's c10d: Gloo for tensors on the CPU, NCCL for tensors on
// GPUs. With one process, every call is a no-op or a copy.
//
//   Communicator communicator(read_world(), {.device = device, .build = build});
//   Work work = communicator.all_reduce(gradient, ReduceOp::kMean);  // runs in the background
//   work.wait();
//
// All ranks must make the same calls in the same order, each from one thread. Tensors must be contiguous and have the same type
// on all ranks, and must not be read or written between a call and its wait(). If a rank dies, hangs or leaves, every call of
// the other ranks throws a DistributedError that names it, within the time-out. fail() has the same effect.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/errors.h"
#include "distributed/world.h"

namespace nanochat {

class OptionList;

// Another rank ended the run or cannot be reached. Every rank gets the same message.
class DistributedError : public Error {
 public:
  using Error::Error;
};

enum class ReduceOp { kSum, kMax, kMean };

// A part of a tensor that all ranks have, and the rank that owns it.
struct OwnedTensor {
  at::Tensor tensor;
  int owner = 0;
};

// A call that may still be running. Results are complete only after wait().
class Work {
 public:
  Work();  // nothing to wait for
  ~Work();
  Work(Work&&) noexcept;
  Work& operator=(Work&&) noexcept;

  // On a CPU, waits for the results. On a GPU, makes the current stream wait for them; the host does not wait.
  void wait();

 private:
  friend class Communicator;
  struct State;
  std::unique_ptr<State> state_;
};

struct CommunicatorOptions {
  at::Device device = at::kCPU;  // device of this rank; a GPU also gets an NCCL group
  double timeout_seconds = 600;  // a rank that does not respond for so long has failed
  std::string build;  // version and commit; must be equal on all ranks
  // Called on another thread if a failure is known, but the main thread has not returned for a quarter of the time-out (at most
  // 10 s). The function should print the message and end the process.
  std::function<void(ExitCode, const std::string&)> last_resort;
};
// Declares --dist-timeout.
void declare_distributed_options(OptionList& options, CommunicatorOptions& config);

// Short named texts that every rank can read. The thread that writes checkpoints uses it to agree with other ranks. For one
// thread; must not outlive the communicator.
class MessageBoard {
 public:
  virtual ~MessageBoard() = default;
  virtual void post(const std::string& name, const std::string& text) = 0;
  // Waits until a rank has posted it. Throws DistributedError if the run ends first.
  virtual std::string wait(const std::string& name) = 0;
};

class Communicator {
 public:
  Communicator();  // one process
  // Connects to the other ranks. Throws ConfigError for a wrong address, a port in use, different builds or numbers of ranks,
  // or two processes with the same rank; DistributedError if a rank does not join within the time-out.
  Communicator(const WorldConfig& world, CommunicatorOptions options);
  // Waits until all living ranks have come to this point; does not wait after a failure. During stack unwinding it calls
  // fail().
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const;
  int size() const;
  bool alone() const { return size() == 1; }
  bool is_root() const { return rank() == 0; }
  int local_rank() const;  // rank among the processes of this machine
  int local_size() const;  // number of these processes; 1 if the launcher does not set it

  // In place. Sums in bfloat16 are rounded after each rank.
  Work all_reduce(at::Tensor tensor, ReduceOp op = ReduceOp::kSum);
  // Reduces piece r of all inputs to rank r. The input has size() pieces of the size of the output. On CPUs the input is
  // overwritten.
  Work reduce_scatter(const at::Tensor& input, at::Tensor output, ReduceOp op = ReduceOp::kSum);
  // Copies the piece of each rank to all ranks. The piece may be its own part of the output.
  Work all_gather(const at::Tensor& piece, at::Tensor output);
  // In place, from `root` to all.
  Work broadcast(at::Tensor tensor, int root = 0);

  // A reduce_scatter of pieces of any size, in place: the owner of each piece gets its sum. The piece is undefined on the other
  // ranks afterwards. All ranks must pass the same pieces in the same order.
  Work reduce_to_owners(const std::vector<OwnedTensor>& pieces);
  // The corresponding all_gather: all ranks get each piece from its owner.
  Work spread_from_owners(const std::vector<OwnedTensor>& pieces);

  // Waits until all ranks call it, without a limit of time while they live. Does not wait for GPUs.
  void barrier();
  // Throws ConfigError on every rank, with the rank and the keys, if the object `mine` differs from that of rank 0.
  void require_same(const std::string& what, const nlohmann::json& mine);

  // Returns the text of rank `root` on every rank. Waits as barrier() does.
  std::string share_text(const std::string& text, int root = 0);

  // Bytes of tensors that this rank has sent so far, estimated: 2 (W-1)/W of an all_reduce and (W-1)/W of any other call.
  std::int64_t bytes_sent() const;

  // A connection for another thread of this process; null with one process.
  std::unique_ptr<MessageBoard> make_message_board();

  // Ends the run: the calls of all other ranks throw DistributedError("rank R: why").
  void fail(ExitCode code, const std::string& why);
  // Throws the error that ended the run, if there is one.
  void check() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A communicator for one process.
Communicator& alone();

}  // namespace nanochat
