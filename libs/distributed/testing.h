#pragma once
// For tests only: ranks of a run as processes of the program distributed_rank (testing_rank.cpp), on this machine
// over loopback.

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/testing.h"
#include "distributed/communicator.h"
#include "distributed/store.h"

namespace nanochat::testing {

struct RankResult {
  int exit_code = -1;  // 128 + N when signal N ended it
  std::string output;  // standard output and error together
  double seconds = 0;  // from its start to its end, as far as it was looked at
};

std::string rank_program();

// One rank. Ends it, by force, when destroyed.
class RankProcess {
 public:
  RankProcess(const std::vector<std::string>& arguments, const std::map<std::string, std::string>& environment);
  ~RankProcess();
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;

  void send(int signal) const;
  bool running();
  std::string output() const;  // so far
  // Until its output holds the text; false when it ended, or `seconds` went by.
  bool wait_for_output(const std::string& text, double seconds);
  RankResult wait(double at_most_seconds);  // killed then

 private:
  TemporaryDirectory folder_;
  pid_t child_ = -1;
  int status_ = 0;
  bool ended_ = false;
  distributed::Clock::time_point start_ = distributed::Clock::now(), end_;
};

struct WorldSettings {
  bool launcher_has_store = true;  // else rank 0 has it, at a port that was free a moment ago
  double timeout_seconds = 20;
  std::map<std::string, std::string> environment = {};
};

// All ranks of a run, doing one scenario of testing_rank.cpp.
class World {
 public:
  World(int size, const std::vector<std::string>& scenario, const WorldSettings& settings = {});
  RankProcess& rank(int rank) { return *ranks_.at(static_cast<std::size_t>(rank)); }
  int size() const { return static_cast<int>(ranks_.size()); }
  // All end within the time; else they are killed, and the test's expectations fail.
  std::vector<RankResult> wait(double at_most_seconds);

 private:
  std::unique_ptr<distributed::StoreServer> server_;
  std::vector<std::unique_ptr<RankProcess>> ranks_;
};

// The same for ranks that are threads of this process: where the ranks need only talk to each other, this is faster.
// Rethrows the error of the first rank that has one.
void run_ranks(int size, const std::function<void(Communicator&)>& rank);

int free_port();
bool has_nccl();  // in this build

}  // namespace nanochat::testing
