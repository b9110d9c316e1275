#include "distributed/communicator.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include "core/log.h"
#include "core/options.h"
#include "distributed/process_group.h"
#include "distributed/store.h"
#include "distributed/watchdog.h"

namespace nanochat {

using distributed::Clock;
using distributed::Failure;
using distributed::Milliseconds;
using distributed::StoreClient;
using distributed::StoreLost;
using distributed::Verdict;
using distributed::Watchdog;
using distributed::WorkStatus;

namespace {

c10d::ReduceOp c10d_op(ReduceOp op, bool gpu) {
  if (op == ReduceOp::kMax) return c10d::ReduceOp::MAX;
  return op == ReduceOp::kMean && gpu ? c10d::ReduceOp::AVG : c10d::ReduceOp::SUM;  // Gloo has no mean: see divide()
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

std::string text_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const c10::Error& failed) {
    return first_line(failed.what_without_backtrace());
  } catch (const std::exception& failed) {
    return first_line(failed.what());
  }
}

bool is_loopback(const std::string& address) { return address.starts_with("127.") || address == "::1"; }

std::string shortened(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > 100) text = text.substr(0, 97) + "...";
  return text;
}

// "depth is 6, rank 0 has 4" for each key that differs.
std::vector<std::string> differences(const nlohmann::json& mine, const nlohmann::json& roots) {
  std::vector<std::string> found;
  const auto say = [](const nlohmann::json& object, const std::string& key) {
    return object.contains(key) ? shortened(object[key]) : std::string("nothing");
  };
  const auto compare = [&](const std::string& key) {
    const std::string here = say(mine, key), there = say(roots, key);
    if (mine.value(key, nlohmann::json()) != roots.value(key, nlohmann::json()) || mine.contains(key) != roots.contains(key)) {
      found.push_back(fmt::format("{} is {}, rank 0 has {}", key, here, there));
    }
  };
  for (const auto& [key, value] : mine.items()) compare(key);
  for (const auto& [key, value] : roots.items()) {
    if (!mine.contains(key)) compare(key);
  }
  return found;
}

}  // namespace

// --- Work

struct Work::State {
  std::vector<c10::intrusive_ptr<c10d::Work>> works;
  std::vector<c10::intrusive_ptr<c10::ivalue::Future>> futures;  // of works on the CPU
  std::function<void()> finish;                                  // what is left to do with the results
  std::shared_ptr<Failure> failure;
  Watchdog* watchdog = nullptr;
  std::uint64_t number = 0;

  // Of works on the CPU, whose futures are complete before they are.
  static WorkStatus status(const std::vector<c10::intrusive_ptr<c10::ivalue::Future>>& futures) {
    WorkStatus all = WorkStatus::kDone;
    for (const auto& future : futures) {
      if (!future->completed())
        all = WorkStatus::kPending;
      else if (future->hasError())
        return WorkStatus::kFailed;
    }
    return all;
  }
};

Work::Work() = default;
Work::~Work() = default;
Work::Work(Work&&) noexcept = default;
Work& Work::operator=(Work&&) noexcept = default;

void Work::wait() {
  const std::unique_ptr<State> state = std::move(state_);
  if (!state) return;
  state->failure->throw_if_set();
  if (state->futures.empty()) {
    for (const auto& work : state->works) work->wait();  // the current stream's wait, not the host's
  } else {
    const bool ready = state->failure->wait_until(distributed::never(),
                                                  [&] { return State::status(state->futures) != WorkStatus::kPending; });
    if (!ready) state->failure->throw_if_set();
    for (const auto& future : state->futures) {
      if (future->completed() && future->hasError()) state->watchdog->blame(state->number, text_of(future->exception_ptr()));
    }
    state->watchdog->end(state->number);
  }
  if (state->finish) state->finish();
}

// --- Communicator

void declare_distributed_options(OptionList& options, CommunicatorOptions& config) {
  options
      .add("dist_timeout", config.timeout_seconds,
           "With several processes: end all of them when one does not respond, or does not join the others, for this many "
           "seconds.")
      .at_least(1)
      .not_in_resolved();
}

struct Communicator::Impl {
  Impl(const WorldConfig& given_world, CommunicatorOptions given)
      : world(given_world), options(std::move(given)), timeout(static_cast<std::int64_t>(options.timeout_seconds * 1e3)),
        failure(std::make_shared<Failure>()) {}

  void join() {
    const Clock::time_point deadline = Clock::now() + timeout;
    try {
      open_store(deadline);
      introduce(deadline);
      meet_all(deadline);
      start_watchdog();
      make_groups();
    } catch (const StoreLost& lost) {
      throw DistributedError(ExitCode::kOther, fmt::format("{} is gone or cannot be reached: {}", holder(), lost.what()));
    } catch (const Error& error) {
      if (watchdog && !failure->get()) fail(error.code(), error.what());
      watchdog.reset();
      if (failure->get()) linger();
      throw;
    }
  }

  // --- meeting

  void open_store(Clock::time_point deadline) {
    if (world.rank == 0 && !world.launcher_has_store) {
      // A name that means the loopback address here may mean another one elsewhere.
      const bool one_machine = world.master_addr == "localhost" || world.local_size == world.size;
      server.emplace(world.master_addr, world.master_port, !one_machine && distributed::is_host_name(world.master_addr),
                     distributed::Said{"MASTER_ADDR", "MASTER_PORT"});
    }
    store = connect(deadline);
    store->set_limit(timeout);
    store->set_give_up([known = failure] { return known->get().has_value(); });
  }

  std::unique_ptr<StoreClient> connect(Clock::time_point deadline) {
    auto client = std::make_unique<StoreClient>(world.master_addr, world.master_port, deadline,
                                                [](const std::string& text) { log_warn("{}", text); });
    client->set_prefix(fmt::format("nanochat/{}", world.attempt));
    return client;
  }

  static std::string key(const char* what, int rank) { return fmt::format("{}/{}", what, rank); }

  static std::string label_of(int rank, const std::optional<std::string>& hello) {
    if (!hello) return fmt::format("rank {}", rank);
    const nlohmann::json json = nlohmann::json::parse(*hello);
    return fmt::format("rank {} ({}, process {})", rank, json.at("host").get<std::string>(), json.at("process").get<int>());
  }
  static std::string label(StoreClient& client, int rank) { return label_of(rank, client.find(key("hello", rank))); }

  // Says who this is, and looks whether rank 0 belongs to the same run.
  void introduce(Clock::time_point deadline) {
    const nlohmann::json mine{{"host", distributed::host_name()},
                              {"process", ::getpid()},
                              {"address", store->local_address()},
                              {"build", options.build},
                              {"world size", world.size}};
    me = label_of(world.rank, mine.dump());
    if (store->add(key("join", world.rank), 1) > 1) {
      throw ConfigError(
          fmt::format("{} is the second process that is rank {} of {} at {}:{}; the first is {}: each needs a rank of "
                      "its own, and each run a MASTER_PORT of its own",
                      me, world.rank, world.size, world.master_addr, world.master_port, label(*store, world.rank)));
    }
    store->set(key("hello", world.rank), mine.dump());
    wait_for(key("hello", 0), deadline, [&] { return std::vector<int>{0}; });
    const nlohmann::json root = nlohmann::json::parse(*store->find(key("hello", 0)));
    std::vector<std::string> different;
    for (const char* name : {"world size", "build"}) {
      if (mine.at(name) != root.at(name)) {
        different.push_back(fmt::format("the {} is {}, rank 0 has {}", name, shortened(mine.at(name)),
                                        shortened(root.at(name))));
      }
    }
    if (!different.empty()) {
      end_with({ExitCode::kUsage, fmt::format("{} does not fit rank 0: {}", me, fmt::join(different, "; "))});
    }
    const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
    for (const nlohmann::json& one : {mine, root}) {
      const std::string address = one.at("address").get<std::string>();
      if (mine.at("host") != root.at("host") && is_loopback(address) && (interface == nullptr || *interface == '\0')) {
        end_with(
            {ExitCode::kUsage,
             fmt::format("MASTER_ADDR {} means {} on {}, which no other machine can reach; give it as a number, or name the "
                         "network interface by GLOO_SOCKET_IFNAME",
                         world.master_addr, address, one.at("host").get<std::string>())});
      }
    }
  }

  void meet_all(Clock::time_point deadline) {
    if (store->add("present", 1) == world.size) store->set("all present", "yes");
    wait_for("all present", deadline, [&] {
      std::vector<int> missing;
      for (int rank = 0; rank < world.size; ++rank) {
        if (!store->find(key("hello", rank))) missing.push_back(rank);
      }
      return missing;
    });
  }

  // Before there is a watchdog.
  void wait_for(const std::string& name, Clock::time_point deadline, const std::function<std::vector<int>()>& missing) {
    while (!store->wait(name, Milliseconds(500))) {
      if (const auto verdict = store->find("verdict")) end_with(Verdict::from_text(*verdict));
      if (Clock::now() < deadline) continue;
      const std::vector<int> absent = missing();
      if (absent.empty()) continue;  // they came just now
      end_with({ExitCode::kOther,
                fmt::format("{} of {} ranks did not come to {}:{} within {:g} s: rank {}", absent.size(), world.size,
                            world.master_addr, world.master_port, options.timeout_seconds, fmt::join(absent, ", "))});
    }
  }

  [[noreturn]] void end_with(const Verdict& verdict) {
    const Verdict standing = Verdict::from_text(store->set_once("verdict", verdict.to_text()));
    failure->set(standing);
    if (standing.code == ExitCode::kUsage) throw ConfigError(standing.message);
    throw DistributedError(standing.code, standing.message);
  }

  // The store goes with its holder: what stands in it must have been read before.
  void linger() {
    if (server) std::this_thread::sleep_for(std::max(Watchdog::beat_interval(timeout) * 5 / 2, Milliseconds(600)));
  }

  std::string holder() const {
    return fmt::format("{} at {}:{}", world.launcher_has_store ? "the launcher" : "rank 0", world.master_addr,
                       world.master_port);
  }

  void start_watchdog() {
    watchdog.emplace(connect(Clock::now() + timeout), failure,
                     distributed::WatchdogOptions{
                         .rank = world.rank,
                         .size = world.size,
                         .timeout = timeout,
                         .store_holder = world.launcher_has_store ? holder() : label(*store, 0),
                         .label = [](StoreClient& client, int rank) { return label(client, rank); },
                         .abort = [groups = groups] { groups->abort(); },
                         .last_resort = options.last_resort,
                     });
  }

  void make_groups() {
    // Longer than the watchdog waits: it says more.
    const distributed::GroupPlace place{world.rank, world.size, timeout * 2};
    const auto made = std::make_shared<c10::intrusive_ptr<c10d::Backend>>();
    const auto prefixed = [&](const char* name) { return c10::make_intrusive<c10d::PrefixStore>(name, store->c10d_store()); };
    // On a thread: a rank may be lost meanwhile.
    const auto make = [&](const std::function<void()>& work, const char* name) {
      const std::uint64_t number = watchdog->begin(name);
      const auto ended = std::make_shared<std::atomic<bool>>(false);
      watchdog->watch(number, [ended] { return *ended ? WorkStatus::kDone : WorkStatus::kPending; });
      try {
        const auto lost = [known = failure] { return known->get().has_value(); };
        const auto counted = [work, ended] {
          const struct End {
            std::atomic<bool>& flag;
            ~End() { flag = true; }
          } end{*ended};
          work();
        };
        if (!distributed::bounded(timeout * 2, counted, lost)) watchdog->blame(number, "no end");
      } catch (const c10::Error& error) {
        watchdog->blame(number, first_line(error.what_without_backtrace()));
      }
    };
    make([made, prefixed_store = prefixed("gloo"), place,
          address = store->local_address()] { *made = distributed::make_gloo_group(prefixed_store, place, address); },
         "connecting over Gloo");
    groups->gloo = *made;
    if (!options.device.is_cuda()) return;
    make([made, prefixed_store = prefixed("nccl"), place,
          device = options.device] { *made = distributed::make_nccl_group(prefixed_store, place, device); },
         "connecting over NCCL");
    groups->set_nccl(*made);
  }

  // --- collectives

  c10d::Backend& group_of(const at::Tensor& tensor) const {
    TORCH_CHECK(tensor.is_cpu() || groups->nccl, "Communicator: a tensor on ", tensor.device(), " but no group over NCCL");
    return tensor.is_cpu() ? *groups->gloo : *groups->nccl;
  }

  static void require_plain(const at::Tensor& tensor) {
    TORCH_CHECK(tensor.is_contiguous(), "Communicator: tensors must be contiguous");
  }

  using Started = std::vector<c10::intrusive_ptr<c10d::Work>>;

  // `start` calls c10d; `finish` is called by wait(). bytes: that this rank sends.
  Work begin(const char* name, bool cpu, std::int64_t bytes, const std::function<Started()>& start,
             std::function<void()> finish = nullptr) {
    failure->throw_if_set();
    sent += bytes;
    Work work;
    work.state_ = std::make_unique<Work::State>();
    Work::State& state = *work.state_;
    state.failure = failure;
    state.watchdog = &*watchdog;
    state.number = watchdog->begin(name);
    state.finish = std::move(finish);
    state.works = start();
    if (cpu) {
      for (const auto& one : state.works) {
        state.futures.push_back(one->getFuture());
        state.futures.back()->addCallback([known = failure](c10::ivalue::Future&) { known->notify(); });
      }
      watchdog->watch(state.number, [futures = state.futures] { return Work::State::status(futures); });
    } else {
      watchdog->watch(state.number, [works = state.works] {
        WorkStatus all = WorkStatus::kDone;
        for (const auto& one : works) {
          if (!one->isCompleted())
            all = WorkStatus::kPending;
          else if (one->exception())
            return WorkStatus::kFailed;
        }
        return all;
      });
    }
    return work;
  }

  // What a rank sends of these elements where each goes to, or comes from, one rank alone.
  std::int64_t share_of(const at::Tensor& tensor) const {
    return static_cast<std::int64_t>(tensor.nbytes()) * (world.size - 1) / world.size;
  }

  static void require_owned(const std::vector<OwnedTensor>& pieces, int ranks) {
    for (const OwnedTensor& piece : pieces) {
      require_plain(piece.tensor);
      TORCH_CHECK(piece.owner >= 0 && piece.owner < ranks, "Communicator: no rank ", piece.owner, " of ", ranks);
    }
  }

  using CallOne = std::function<c10::intrusive_ptr<c10d::Work>(c10d::Backend&, std::vector<at::Tensor>&, int owner)>;

  // One call for each piece; on a GPU as one launch.
  Work each(const char* name, const std::vector<OwnedTensor>& pieces, const CallOne& call,
            std::function<void()> finish = nullptr) {
    std::vector<OwnedTensor> some;
    std::int64_t bytes = 0;
    for (const OwnedTensor& piece : pieces) {
      if (piece.tensor.numel() == 0) continue;
      some.push_back(piece);
      bytes += share_of(piece.tensor);
    }
    if (some.empty()) return {};
    const bool cpu = some.front().tensor.is_cpu();
    return begin(
        name, cpu, bytes,
        [&]() -> Started {
          c10d::Backend& group = group_of(some.front().tensor);
          Started started;
          if (!cpu) group.startCoalescing();
          for (const OwnedTensor& piece : some) {
            std::vector<at::Tensor> one{piece.tensor};
            started.push_back(call(group, one, piece.owner));
          }
          if (!cpu) started = {group.endCoalescing()};
          return started;
        },
        std::move(finish));
  }

  Work to_owners(const std::vector<OwnedTensor>& pieces, std::function<void()> finish) {
    return each(
        "reduce_to_owners", pieces,
        [](c10d::Backend& group, std::vector<at::Tensor>& one, int owner) {
          c10d::ReduceOptions how;
          how.reduceOp = c10d::ReduceOp::SUM;
          how.rootRank = owner;
          return group.reduce(one, how);
        },
        std::move(finish));
  }

  // What turns a sum of Gloo's into a mean.
  std::function<void()> divide(ReduceOp op, const at::Tensor& sum) const {
    if (op != ReduceOp::kMean || !sum.is_cpu()) return nullptr;
    TORCH_CHECK(sum.is_floating_point(), "Communicator: a mean of ", sum.scalar_type());
    return [sum, size = world.size] { sum.div_(size); };
  }

  void barrier() {
    failure->throw_if_set();
    const std::uint64_t number = ++barriers;
    const std::string name = fmt::format("barrier/{}", number);
    try {
      if (store->add(name, 1) == world.size) {
        if (number > 1) store->remove(fmt::format("barrier/{}/open", number - 1));  // everybody has passed it
        store->remove(name);
        store->set(name + "/open", "yes");
      }
      while (!store->wait(name + "/open", Milliseconds(1000))) failure->throw_if_set();
    } catch (const StoreLost& lost) {
      watchdog->blame(0, lost.what());
    }
  }

  void fail(ExitCode code, const std::string& why) { failure->set({code, fmt::format("{}: {}", me, why)}); }

  // Together with the others, where all is well.
  void leave() {
    if (std::uncaught_exceptions() > exceptions) fail(ExitCode::kOther, "it ended with an error, which it tells itself");
    if (!failure->get()) {
      try {
        watchdog->leave();
        barrier();
      } catch (const Error& error) {
        log_error("{}", error.what());
      }
    }
    const bool well = !failure->get();
    watchdog.reset();
    if (!well) {
      groups->abandon();
      return linger();
    }
    groups->close();
    try {
      if (server) {
        // The others' last calls go to the store.
        if (world.size > 1 && store->add("left", 1) < world.size) store->wait("all left", Milliseconds(2000));
      } else if (store->add("left", 1) == world.size) {
        store->set("all left", "yes");
      }
    } catch (const StoreLost&) {  // the holder has gone, having waited
    }
  }

  // Shared with the watchdog's thread.
  struct Groups {
    c10::intrusive_ptr<c10d::Backend> gloo, nccl;
    std::mutex mutex;
    bool aborted = false;

    void set_nccl(c10::intrusive_ptr<c10d::Backend> made) {
      const std::scoped_lock lock(mutex);
      nccl = std::move(made);
      if (aborted) nccl->abort();
    }
    void abort() {
      const std::scoped_lock lock(mutex);
      if (nccl && !std::exchange(aborted, true)) nccl->abort();
      aborted = true;
    }
    void close() {
      const std::scoped_lock lock(mutex);
      if (nccl) nccl->shutdown();
      nccl.reset();
      gloo.reset();
    }
    // After a failure their threads may wait for ranks that will not come: they end with the process.
    void abandon() {
      const std::scoped_lock lock(mutex);
      static auto* const kept = new std::vector<c10::intrusive_ptr<c10d::Backend>>;
      kept->push_back(std::move(nccl));
      kept->push_back(std::move(gloo));
    }
  };

  const WorldConfig world;
  const CommunicatorOptions options;
  const Milliseconds timeout;
  const int exceptions = std::uncaught_exceptions();
  std::shared_ptr<Failure> failure;
  std::string me;
  std::optional<distributed::StoreServer> server;
  std::unique_ptr<StoreClient> store;
  std::shared_ptr<Groups> groups = std::make_shared<Groups>();
  std::optional<Watchdog> watchdog;
  std::uint64_t barriers = 0, texts = 0;
  std::int64_t sent = 0;
};

namespace {

class StoreBoard : public MessageBoard {
 public:
  StoreBoard(std::unique_ptr<StoreClient> store, std::shared_ptr<Failure> failure)
      : store_(std::move(store)), failure_(std::move(failure)) {}

  void post(const std::string& name, const std::string& text) override {
    call([&] { store_->set(key(name), text); });
  }
  std::string wait(const std::string& name) override {
    std::optional<std::string> text;
    call([&] {
      while (!store_->wait(key(name), Milliseconds(1000))) failure_->throw_if_set();
      text = store_->find(key(name));
    });
    return *text;
  }

 private:
  static std::string key(const std::string& name) { return "board/" + name; }
  template <class Action>
  void call(Action action) {
    failure_->throw_if_set();
    try {
      action();
    } catch (const StoreLost& lost) {
      failure_->throw_if_set();
      throw DistributedError(ExitCode::kOther,
                             fmt::format("the store of the run is gone or cannot be reached: {}", lost.what()));
    }
  }

  std::unique_ptr<StoreClient> store_;
  std::shared_ptr<Failure> failure_;
};

}  // namespace

Communicator& alone() {
  static Communicator communicator;
  return communicator;
}

Communicator::Communicator() = default;

Communicator::Communicator(const WorldConfig& world, CommunicatorOptions options) {
  if (world.alone()) return;
  impl_ = std::make_unique<Impl>(world, std::move(options));
  impl_->join();
}

Communicator::~Communicator() {
  if (impl_) impl_->leave();
}

int Communicator::rank() const { return impl_ ? impl_->world.rank : 0; }
int Communicator::size() const { return impl_ ? impl_->world.size : 1; }
int Communicator::local_rank() const { return impl_ ? impl_->world.local_rank : 0; }
int Communicator::local_size() const { return impl_ ? std::max(1, impl_->world.local_size) : 1; }

Work Communicator::all_reduce(at::Tensor tensor, ReduceOp op) {
  Impl::require_plain(tensor);
  if (!impl_ || tensor.numel() == 0) return {};
  return impl_->begin(
      "all_reduce", tensor.is_cpu(), 2 * impl_->share_of(tensor),
      [&]() -> Impl::Started {
        std::vector<at::Tensor> tensors{tensor};
        c10d::AllreduceOptions how;
        how.reduceOp = c10d_op(op, tensor.is_cuda());
        return {impl_->group_of(tensor).allreduce(tensors, how)};
      },
      impl_->divide(op, tensor));
}

Work Communicator::reduce_scatter(const at::Tensor& input, at::Tensor output, ReduceOp op) {
  Impl::require_plain(input);
  Impl::require_plain(output);
  TORCH_CHECK(input.numel() == output.numel() * size(), "reduce_scatter: ", input.numel(), " elements for ", size(),
              " pieces of ", output.numel());
  if (output.numel() == 0) return {};
  if (!impl_) {
    if (output.data_ptr() != input.data_ptr()) output.copy_(input.view(output.sizes()));
    return {};
  }
  if (input.is_cuda()) {
    return impl_->begin("reduce_scatter", false, impl_->share_of(input), [&]() -> Impl::Started {
      at::Tensor from = input;
      c10d::ReduceScatterOptions how;
      how.reduceOp = c10d_op(op, true);
      return {impl_->group_of(input)._reduce_scatter_base(output, from, how)};
    });
  }
  TORCH_CHECK(op != ReduceOp::kMax, "reduce_scatter: no maximum on CPUs");
  std::vector<OwnedTensor> pieces;
  for (const at::Tensor& piece : input.view({-1}).chunk(size())) pieces.push_back({piece, static_cast<int>(pieces.size())});
  const at::Tensor mine = pieces[static_cast<std::size_t>(rank())].tensor;
  return impl_->to_owners(pieces, [mine, output, divide = impl_->divide(op, output)] {
    if (output.data_ptr() != mine.data_ptr()) output.copy_(mine.view(output.sizes()));
    if (divide) divide();
  });
}

Work Communicator::all_gather(const at::Tensor& piece, at::Tensor output) {
  Impl::require_plain(piece);
  Impl::require_plain(output);
  TORCH_CHECK(output.numel() == piece.numel() * size(), "all_gather: ", size(), " pieces of ", piece.numel(), " elements for ",
              output.numel());
  if (piece.numel() == 0) return {};
  if (!impl_) {
    if (output.data_ptr() != piece.data_ptr()) output.copy_(piece.view(output.sizes()));
    return {};
  }
  return impl_->begin("all_gather", piece.is_cpu(), impl_->share_of(output), [&]() -> Impl::Started {
    at::Tensor from = piece;
    return {impl_->group_of(piece)._allgather_base(output, from)};
  });
}

Work Communicator::reduce_to_owners(const std::vector<OwnedTensor>& pieces) {
  Impl::require_owned(pieces, size());
  return impl_ ? impl_->to_owners(pieces, nullptr) : Work();
}

Work Communicator::spread_from_owners(const std::vector<OwnedTensor>& pieces) {
  Impl::require_owned(pieces, size());
  if (!impl_) return {};
  return impl_->each("spread_from_owners", pieces, [](c10d::Backend& group, std::vector<at::Tensor>& one, int owner) {
    c10d::BroadcastOptions how;
    how.rootRank = owner;
    return group.broadcast(one, how);
  });
}

Work Communicator::broadcast(at::Tensor tensor, int root) {
  Impl::require_plain(tensor);
  TORCH_CHECK(root >= 0 && root < size(), "broadcast: no rank ", root, " of ", size());
  if (!impl_ || tensor.numel() == 0) return {};
  return impl_->begin("broadcast", tensor.is_cpu(), impl_->share_of(tensor), [&]() -> Impl::Started {
    std::vector<at::Tensor> tensors{tensor};
    c10d::BroadcastOptions how;
    how.rootRank = root;
    return {impl_->group_of(tensor).broadcast(tensors, how)};
  });
}

void Communicator::barrier() {
  if (impl_) impl_->barrier();
}

void Communicator::require_same(const std::string& what, const nlohmann::json& mine) {
  if (!impl_) return;
  try {
    if (is_root()) {
      impl_->store->set("same/" + what, mine.dump());
    } else {
      while (!impl_->store->wait("same/" + what, Milliseconds(1000))) impl_->failure->throw_if_set();
      const auto different = differences(mine, nlohmann::json::parse(*impl_->store->find("same/" + what)));
      if (!different.empty()) {
        impl_->end_with({ExitCode::kUsage,
                         fmt::format("{} has another {} than rank 0: {}", impl_->me, what, fmt::join(different, "; "))});
      }
    }
  } catch (const StoreLost& lost) {
    impl_->watchdog->blame(0, lost.what());
  }
  impl_->barrier();
}

std::string Communicator::share_text(const std::string& text, int root) {
  TORCH_CHECK(root >= 0 && root < size(), "share_text: no rank ", root, " of ", size());
  if (!impl_) return text;
  const std::string name = fmt::format("text/{}", ++impl_->texts);
  std::string shared = text;
  try {
    if (rank() == root) {
      impl_->store->set(name, text);
    } else {
      while (!impl_->store->wait(name, Milliseconds(1000))) impl_->failure->throw_if_set();
      shared = *impl_->store->find(name);
    }
  } catch (const StoreLost& lost) {
    impl_->watchdog->blame(0, lost.what());
  }
  barrier();
  if (rank() == root) impl_->store->remove(name);
  return shared;
}

std::int64_t Communicator::bytes_sent() const { return impl_ ? impl_->sent : 0; }

std::unique_ptr<MessageBoard> Communicator::make_message_board() {
  if (!impl_) return nullptr;
  auto client = impl_->connect(Clock::now() + impl_->timeout);
  client->set_limit(impl_->timeout);
  client->set_give_up([known = impl_->failure] { return known->get().has_value(); });
  return std::make_unique<StoreBoard>(std::move(client), impl_->failure);
}

void Communicator::fail(ExitCode code, const std::string& why) {
  if (impl_) impl_->fail(code, why);
}

void Communicator::check() const {
  if (impl_) impl_->failure->throw_if_set();
}

}  // namespace nanochat
