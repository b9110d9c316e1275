#pragma once
// Communication between the processes of a run, over PyTorch's c10d: Gloo for tensors on the CPU, NCCL for those on a
// GPU. Alone, every call is a no-op or a copy.
//
//   Communicator communicator(read_world(), {.device = device, .build = build});
//   Work work = communicator.all_reduce(gradient, ReduceOp::kMean);  // goes on beneath what follows
//   work.wait();
//
// All ranks make the same calls in the same order, from one thread each. Tensors are contiguous, of one type on all
// ranks, and are neither read nor written between a call and its wait(). A rank that dies, hangs or leaves ends every
// call of the others with one DistributedError that names it, within the time-out; so does what fail() says.

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

// Another rank ended the run, or cannot be reached. The same message on every rank.
class DistributedError : public Error {
 public:
  using Error::Error;
};

enum class ReduceOp { kSum, kMax, kMean };

// A tensor that all ranks have, and the one that it belongs to.
struct OwnedTensor {
  at::Tensor tensor;
  int owner = 0;
};

// A call that may still go on. One whose wait() was never called may leave results unwritten.
class Work {
 public:
  Work();  // nothing to wait for
  ~Work();
  Work(Work&&) noexcept;
  Work& operator=(Work&&) noexcept;

  // On a CPU until the results are there; on a GPU the current stream waits, and the host does not.
  void wait();

 private:
  friend class Communicator;
  struct State;
  std::unique_ptr<State> state_;
};

struct CommunicatorOptions {
  at::Device device = at::kCPU;  // this rank's; a GPU also gets a group over NCCL
  double timeout_seconds = 600;  // after which a rank that is not heard of has failed
  std::string build;             // version and commit: must be the same on all ranks
  // Called on another thread when a failure is known but the caller has not come back from what it was doing for a
  // quarter of the time-out (10 s at most): the one way left is to print the message and end the process.
  std::function<void(ExitCode, const std::string&)> last_resort;
};
// --dist-timeout.
void declare_distributed_options(OptionList& options, CommunicatorOptions& config);

// Short texts by name that every rank can read, for a thread that has work of its own to agree on, such as the one that
// writes checkpoints. For one thread; must not outlive the communicator.
class MessageBoard {
 public:
  virtual ~MessageBoard() = default;
  virtual void post(const std::string& name, const std::string& text) = 0;
  // Until someone has posted it. Throws DistributedError when the run ends before.
  virtual std::string wait(const std::string& name) = 0;
};

class Communicator {
 public:
  Communicator();  // alone
  // Meets the other ranks. Throws ConfigError for a wrong address, a taken port, another build or number of ranks,
  // two processes of one rank; DistributedError when a rank does not come within the time-out.
  Communicator(const WorldConfig& world, CommunicatorOptions options);
  // Waits until all ranks have come to this point, as long as they are alive; not after a failure. While an exception
  // is on its way it is fail() instead.
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const;
  int size() const;
  bool alone() const { return size() == 1; }
  bool is_root() const { return rank() == 0; }
  int local_rank() const;  // among the processes of this machine
  int local_size() const;  // their number; 1 where the launcher does not say

  // In place. Sums in bfloat16 are rounded after each rank.
  Work all_reduce(at::Tensor tensor, ReduceOp op = ReduceOp::kSum);
  // Piece r of all ranks' inputs, reduced, goes to rank r. The input is size() pieces of the output's size. On CPUs the
  // input is overwritten.
  Work reduce_scatter(const at::Tensor& input, at::Tensor output, ReduceOp op = ReduceOp::kSum);
  // The other way round: rank r's piece goes to all. The piece may be a part of the output, at its place.
  Work all_gather(const at::Tensor& piece, at::Tensor output);
  // In place, from `root` to all.
  Work broadcast(at::Tensor tensor, int root = 0);

  // A reduce_scatter of pieces of any size, in place: the sum of each piece goes to its owner. What the other ranks have
  // of it is undefined afterwards. All ranks name the same pieces in the same order.
  Work reduce_to_owners(const std::vector<OwnedTensor>& pieces);
  // The all_gather that undoes it: each piece of its owner goes to all.
  Work spread_from_owners(const std::vector<OwnedTensor>& pieces);

  // Until all ranks are here: hours, if one of them works alone and is alive. Not on the GPU.
  void barrier();
  // Throws ConfigError, on every rank, when the object `mine` differs from rank 0's: names the rank and the keys.
  void require_same(const std::string& what, const nlohmann::json& mine);

  // A text of rank `root`, on every rank. Waits as barrier() does.
  std::string share_text(const std::string& text, int root = 0);

  // Bytes of tensors that this rank has sent so far, by formula: 2 (W-1)/W of an all_reduce, (W-1)/W of any other.
  std::int64_t bytes_sent() const;

  // A connection for another thread of this process; null when alone.
  std::unique_ptr<MessageBoard> make_message_board();

  // Ends the run: the others' calls throw DistributedError("rank R: why").
  void fail(ExitCode code, const std::string& why);
  // Throws what ended the run, if anything did.
  void check() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// That of a process without others.
Communicator& alone();

}  // namespace nanochat
