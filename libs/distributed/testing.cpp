#include "distributed/testing.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <thread>

#include "core/atomic_file.h"

namespace nanochat::testing {

using distributed::Clock;

namespace {

constexpr std::chrono::milliseconds kLook(10);

Clock::duration in_seconds(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

}  // namespace

std::string rank_program() { return NANOCHAT_RANK_PROGRAM; }

RankProcess::RankProcess(const std::vector<std::string>& arguments, const std::map<std::string, std::string>& environment) {
  std::vector<std::string> words = {rank_program()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const std::string file = folder_ / "output";
  write_text(file, "");
  child_ = ::fork();
  if (child_ < 0) throw std::runtime_error("fork failed");
  if (child_ == 0) {
    for (const auto& [name, value] : environment) ::setenv(name.c_str(), value.c_str(), 1);
    const int output = ::open(file.c_str(), O_WRONLY | O_APPEND);
    ::dup2(output, STDOUT_FILENO);
    ::dup2(output, STDERR_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
}

RankProcess::~RankProcess() {
  if (!running()) return;
  send(SIGKILL);
  ::waitpid(child_, &status_, 0);
}

void RankProcess::send(int signal) const { ::kill(child_, signal); }

bool RankProcess::running() {
  if (!ended_ && ::waitpid(child_, &status_, WNOHANG) == child_) {
    ended_ = true;
    end_ = Clock::now();
  }
  return !ended_;
}

std::string RankProcess::output() const { return read_file(folder_ / "output"); }

bool RankProcess::wait_for_output(const std::string& text, double seconds) {
  const Clock::time_point deadline = Clock::now() + in_seconds(seconds);
  while (output().find(text) == std::string::npos) {
    if (!running() || Clock::now() > deadline) return output().find(text) != std::string::npos;
    std::this_thread::sleep_for(kLook);
  }
  return true;
}

RankResult RankProcess::wait(double at_most_seconds) {
  const Clock::time_point deadline = Clock::now() + in_seconds(at_most_seconds);
  while (running() && Clock::now() < deadline) std::this_thread::sleep_for(kLook);
  if (running()) {
    send(SIGKILL);
    while (running()) std::this_thread::sleep_for(kLook);
  }
  RankResult result;
  result.exit_code = WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  result.output = output();
  result.seconds = std::chrono::duration<double>(end_ - start_).count();
  return result;
}

void run_ranks(int size, const std::function<void(Communicator&)>& rank) {
  // c10d's flight recorder belongs to the process, and takes notes of several groups without a lock (LibTorch 2.11).
  ::setenv("TORCH_FR_BUFFER_SIZE", "0", 0);
  const distributed::StoreServer server("127.0.0.1", 0, false, {"address", "port"});
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      try {
        WorldConfig world;
        world.rank = world.local_rank = r;
        world.size = world.local_size = size;
        world.master_addr = "127.0.0.1";
        world.master_port = server.port();
        world.launcher_has_store = true;
        CommunicatorOptions options;
        options.timeout_seconds = 60;
        Communicator communicator(world, options);
        rank(communicator);
      } catch (...) {
        errors[static_cast<std::size_t>(r)] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

int free_port() { return distributed::StoreServer("127.0.0.1", 0, false, {"address", "port"}).port(); }

bool has_nccl() { return NANOCHAT_HAS_NCCL; }

World::World(int size, const std::vector<std::string>& scenario, const WorldSettings& settings) {
  int port = 0;
  if (settings.launcher_has_store) {
    server_ = std::make_unique<distributed::StoreServer>("127.0.0.1", 0, false, distributed::Said{"address", "port"});
    port = server_->port();
  } else {
    port = free_port();
  }
  std::map<std::string, std::string> environment{{"WORLD_SIZE", std::to_string(size)},
                                                 {"LOCAL_WORLD_SIZE", std::to_string(size)},
                                                 {"MASTER_ADDR", "127.0.0.1"},
                                                 {"MASTER_PORT", std::to_string(port)},
                                                 {"OMP_NUM_THREADS", "1"},
                                                 {"NANOCHAT_DIST_TIMEOUT", std::to_string(settings.timeout_seconds)}};
  if (settings.launcher_has_store) environment["TORCHELASTIC_USE_AGENT_STORE"] = "True";
  for (const auto& [name, value] : settings.environment) environment[name] = value;
  for (int rank = 0; rank < size; ++rank) {
    environment["RANK"] = environment["LOCAL_RANK"] = std::to_string(rank);
    ranks_.push_back(std::make_unique<RankProcess>(scenario, environment));
  }
}

std::vector<RankResult> World::wait(double at_most_seconds) {
  const Clock::time_point deadline = Clock::now() + in_seconds(at_most_seconds);
  std::vector<RankResult> results;
  for (auto& rank : ranks_) {
    results.push_back(rank->wait(std::max(0.0, std::chrono::duration<double>(deadline - Clock::now()).count())));
  }
  return results;
}

}  // namespace nanochat::testing
