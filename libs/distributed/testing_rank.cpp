// For tests only: one rank of a run. `distributed_rank SCENARIO [ARGUMENT]`; the world is in the environment. Prints
// "RANK: line" for what the tests look at, and ends with the exit code of the error that it met.
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <nlohmann/json.hpp>

#include "core/options.h"
#include "distributed/agree.h"
#include "distributed/communicator.h"

namespace nanochat {
namespace {

std::string argument;

template <class... Args>
void say(const char* format, Args... args) {
  if constexpr (sizeof...(args) == 0) {
    std::fputs(format, stdout);
  } else {
    std::printf(format, args...);
  }
  std::printf("\n");
  std::fflush(stdout);
}

void expect(bool right, const std::string& what) {
  if (!right) throw std::logic_error("WRONG " + what);
}

void sleep_seconds(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

// What rank `rank` has: numbers of which sums over ranks are exact in every type, and no two ranks' alike.
at::Tensor numbers(int rank, std::int64_t size, at::ScalarType type, std::int64_t shift = 0) {
  return at::arange(size, at::kLong).mul(7).add(rank * 3 + shift).remainder(11).sub(5).to(type);
}

void expect_equal(const at::Tensor& found, const at::Tensor& right, const std::string& what) {
  expect(found.sizes() == right.sizes() && found.scalar_type() == right.scalar_type() && found.equal(right), what);
}

void all_reduce(Communicator& c, std::int64_t size, at::ScalarType type) {
  std::vector<at::Tensor> all;
  for (int r = 0; r < c.size(); ++r) all.push_back(numbers(r, size, type));
  const at::Tensor stacked = at::stack(all);
  at::Tensor sum = numbers(c.rank(), size, type), largest = sum.clone();
  c.all_reduce(sum).wait();
  expect_equal(sum, stacked.sum(0).to(type), "all_reduce sum");
  c.all_reduce(largest, ReduceOp::kMax).wait();
  expect_equal(largest, stacked.amax(0), "all_reduce max");
  if (!at::isFloatingType(type)) return;
  at::Tensor mean = numbers(c.rank(), size, type);
  c.all_reduce(mean, ReduceOp::kMean).wait();
  expect_equal(mean, stacked.sum(0).div(c.size()).to(type), "all_reduce mean");
}

void reduce_scatter(Communicator& c, std::int64_t size, at::ScalarType type) {
  std::vector<at::Tensor> all;
  for (int r = 0; r < c.size(); ++r) all.push_back(numbers(r, size * c.size(), type));
  const at::Tensor right = at::stack(all).sum(0).to(type).narrow(0, c.rank() * size, size);
  at::Tensor output = at::empty({size}, right.options());
  c.reduce_scatter(numbers(c.rank(), size * c.size(), type), output).wait();
  expect_equal(output, right, "reduce_scatter");
  // In place: the output is this rank's piece of the input.
  const at::Tensor whole = numbers(c.rank(), size * c.size(), type);
  at::Tensor part = whole.narrow(0, c.rank() * size, size);
  c.reduce_scatter(whole, part).wait();
  expect_equal(part, right, "reduce_scatter in place");
  if (!at::isFloatingType(type)) return;
  c.reduce_scatter(numbers(c.rank(), size * c.size(), type), output, ReduceOp::kMean).wait();
  expect_equal(output, right.div(c.size()), "reduce_scatter mean");
}

void all_gather(Communicator& c, std::int64_t size, at::ScalarType type) {
  std::vector<at::Tensor> all;
  for (int r = 0; r < c.size(); ++r) all.push_back(numbers(r, size, type));
  const at::Tensor right = at::cat(all);
  const at::Tensor output = at::zeros_like(right);
  c.all_gather(numbers(c.rank(), size, type), output).wait();
  expect_equal(output, right, "all_gather");
  at::Tensor whole = at::zeros_like(right);
  whole.narrow(0, c.rank() * size, size).copy_(numbers(c.rank(), size, type));
  c.all_gather(whole.narrow(0, c.rank() * size, size), whole).wait();
  expect_equal(whole, right, "all_gather in place");
}

// Pieces of several sizes, among them none, of which ranks own two, one or none.
void owners(Communicator& c, at::ScalarType type) {
  std::vector<OwnedTensor> mine;
  std::vector<at::Tensor> right;
  for (int i = 0; i < 6; ++i) {
    const std::int64_t size = i == 4 ? 0 : 5 + 1300 * i;
    mine.push_back({numbers(c.rank(), size, type, i), i % 2 == 0 ? c.size() - 1 : i % c.size()});
    std::vector<at::Tensor> all;
    for (int from = 0; from < c.size(); ++from) all.push_back(numbers(from, size, type, i));
    right.push_back(at::stack(all).sum(0).to(type));
  }
  c.reduce_to_owners(mine).wait();
  for (std::size_t i = 0; i < mine.size(); ++i) {
    if (mine[i].owner == c.rank())
      expect_equal(mine[i].tensor, right[i], "reduce_to_owners");
    else
      mine[i].tensor.zero_();
  }
  c.spread_from_owners(mine).wait();
  for (std::size_t i = 0; i < mine.size(); ++i) expect_equal(mine[i].tensor, right[i], "spread_from_owners");
}

void broadcast(Communicator& c, std::int64_t size, at::ScalarType type) {
  for (int root = 0; root < c.size(); ++root) {
    at::Tensor tensor = numbers(c.rank(), size, type);
    c.broadcast(tensor, root).wait();
    expect_equal(tensor, numbers(root, size, type), "broadcast");
  }
}

void collectives(Communicator& c) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kDouble, at::kLong}) {
    for (const std::int64_t size : {std::int64_t{1}, std::int64_t{3}, std::int64_t{1000}, std::int64_t{70001}}) {
      all_reduce(c, size, type);
      reduce_scatter(c, size, type);
      all_gather(c, size, type);
      broadcast(c, size, type);
    }
    owners(c, type);
  }
  at::Tensor nothing = at::empty({0});
  c.all_reduce(nothing).wait();
  c.barrier();
}

void texts(Communicator& c) {
  for (int root = 0; root < c.size(); ++root) {
    const std::string text = "said by " + std::to_string(root) + std::string(10000, '.');
    expect(c.share_text(c.rank() == root ? text : "not this", root) == text, "share_text");
  }
  expect(c.share_text("").empty(), "an empty text");
  // Another thread has a connection of its own, while this one calls collectives.
  const std::unique_ptr<MessageBoard> board = c.make_message_board();
  std::string heard;
  std::thread thread([&] {
    const int next = (c.rank() + 1) % c.size();
    board->post("to/" + std::to_string(next), "from " + std::to_string(c.rank()));
    heard = board->wait("to/" + std::to_string(c.rank()));
  });
  for (int i = 0; i < 20; ++i) {
    at::Tensor one = at::full({10}, 1.0);
    c.all_reduce(one).wait();
  }
  thread.join();
  expect(heard == "from " + std::to_string((c.rank() + c.size() - 1) % c.size()), "a message from " + heard);
}

// Of tensors of 1000 float32.
void traffic(Communicator& c) {
  auto expect_sent = [&, before = std::int64_t{0}](double share, const std::string& what) mutable {
    const double sent = static_cast<double>(c.bytes_sent() - before);
    before = c.bytes_sent();
    expect(std::abs(sent - share * 4000) < 8, what + " sent " + std::to_string(sent));
  };
  const double part = (c.size() - 1.0) / c.size();
  at::Tensor whole = at::zeros({1000 * c.size()}), piece = at::zeros({1000});
  expect_sent(0, "nothing");
  c.all_reduce(piece).wait();
  expect_sent(2 * part, "all_reduce");
  c.broadcast(piece).wait();
  expect_sent(part, "broadcast");
  c.reduce_scatter(whole, piece).wait();
  expect_sent(c.size() * part, "reduce_scatter");
  c.all_gather(piece, whole).wait();
  expect_sent(c.size() * part, "all_gather");
}

// A sum in bfloat16 is rounded once a rank; in float32 its order may differ from the local one's.
void rounding(Communicator& c) {
  at::Tensor exact = at::zeros({4096}, at::kDouble);
  const auto values = [](int rank) { return at::arange(4096, at::kDouble).add(1).mul(0.37 + rank).sin(); };
  for (int r = 0; r < c.size(); ++r) exact += values(r);
  constexpr double kFloatRounding = 1.2e-7,
                   kBFloat16Rounding = 1.0 / 128;  // of one sum, relative to its largest operand
  for (const auto& [type, rounding] : {std::pair{at::kFloat, kFloatRounding}, std::pair{at::kBFloat16, kBFloat16Rounding}}) {
    at::Tensor sum = values(c.rank()).to(type);
    c.all_reduce(sum).wait();
    const double error = sum.to(at::kDouble).sub(exact).abs().max().item<double>();
    expect(error <= rounding * c.size() * c.size(), "rounded sum, off by " + std::to_string(error));
    expect(error > 0, "a rounded sum that is exact is of another type");
  }
}

// Many at a time, waited for in another order than begun, with local work beneath.
void async_calls(Communicator& c) {
  std::vector<at::Tensor> tensors;
  std::vector<Work> works;
  for (int i = 0; i < 24; ++i) {
    tensors.push_back(numbers(c.rank(), 20000 + i, at::kFloat, i));
    works.push_back(c.all_reduce(tensors.back()));
  }
  at::Tensor local = at::full({64, 64}, 1.0);
  for (int i = 0; i < 20; ++i) local = local.matmul(local).div(64);
  for (std::size_t i = works.size(); i-- > 0;) works[i].wait();
  for (int i = 0; i < 24; ++i) {
    at::Tensor right = at::zeros({20000 + i});
    for (int r = 0; r < c.size(); ++r) right += numbers(r, 20000 + i, at::kFloat, i);
    expect_equal(tensors[static_cast<std::size_t>(i)], right, "asynchronous all_reduce");
  }
  expect(local.eq(1.0).all().item<bool>(), "local work");
}

void agreement(Communicator& c) {
  expect(agree(c, RankStatus::kFine).status == RankStatus::kFine, "all are fine");
  const int last = c.size() - 1;
  Agreement found = agree(c, c.rank() == last ? RankStatus::kInterrupted : RankStatus::kFine);
  expect(found.status == RankStatus::kInterrupted && found.rank == last, "one is interrupted");
  // The most severe decides, and the lowest rank that has it is named.
  found = agree(c, c.rank() == 0 ? RankStatus::kEndOfData : RankStatus::kFailedSave);
  expect(found.status == RankStatus::kFailedSave && found.rank == 1, "the most severe");
  found = agree(c, RankStatus::kNonFinite);
  expect(found.status == RankStatus::kNonFinite && found.rank == 0, "all alike");
}

// Steps until something ends them; argument: what goes wrong on the rank after this one's colon, "hang:1".
void steps(Communicator& c) {
  const std::size_t colon = argument.find(':');
  const std::string what = argument.substr(0, colon);
  const bool here = colon != std::string::npos && std::stoi(argument.substr(colon + 1)) == c.rank();
  for (int step = 0;; ++step) {
    if (here && step == 20) {
      say("%d: now", c.rank());
      if (what == "hang") sleep_seconds(600);
      if (what == "exit") std::_Exit(0);
      if (what == "throw") throw DataError("the file of rank " + std::to_string(c.rank()) + " is damaged");
      if (what == "fail") c.fail(ExitCode::kCheckpoint, "no space for its part of the checkpoint");
      if (what == "return") return;
    }
    if (step == 20) say("%d: steps", c.rank());
    at::Tensor tensor = at::full({1000}, static_cast<double>(step));
    c.all_reduce(tensor).wait();
    sleep_seconds(0.005);
  }
}

// Rank 0 works alone for longer than the time-out, and the others wait for it.
void alone_for_long(Communicator& c) {
  if (c.is_root()) sleep_seconds(std::stod(argument));
  c.barrier();
  at::Tensor one = at::full({1}, 1.0);
  c.all_reduce(one).wait();
  expect(one.item<double>() == c.size(), "a sum after a long wait");
}

// Argument: the rank with another configuration.
void same_configuration(Communicator& c) {
  nlohmann::json config{{"depth", 4}, {"seed", 42}, {"data_dir", {"a", "b"}}};
  c.require_same("configuration", config);
  say("%d: the same", c.rank());
  if (std::stoi(argument) == c.rank()) config.update({{"depth", 6}, {"extra", true}});
  c.require_same("other configuration", config);
}

// A run that ends by itself; argument: seconds of work.
void work(Communicator& c) {
  say("%d: joined", c.rank());
  sleep_seconds(argument.empty() ? 0 : std::stod(argument));
  at::Tensor tensor = at::full({10}, 1.0);
  c.all_reduce(tensor).wait();
  say("%d: sum %g", c.rank(), tensor[0].item<double>());
}

int run(const std::string& scenario) {
  const std::map<std::string, std::function<void(Communicator&)>> scenarios{
      {"collectives", collectives}, {"rounding", rounding}, {"async", async_calls}, {"texts", texts},
      {"traffic", traffic},         {"agree", agreement},   {"steps", steps},       {"alone", alone_for_long},
      {"same", same_configuration}, {"work", work},         {"gpu", collectives}};
  const auto found = scenarios.find(scenario);
  if (found == scenarios.end()) throw std::logic_error("no scenario " + scenario);
  CommunicatorOptions options;
  OptionList list;
  declare_distributed_options(list, options);
  list.apply_environment();
  const WorldConfig world = read_world();
  const char* build = std::getenv("TEST_BUILD_OF_RANK_1");
  options.build = build != nullptr && world.rank == 1 ? build : "1.0 (abc)";
  if (scenario == "gpu") options.device = at::Device(at::kCUDA, static_cast<at::DeviceIndex>(world.local_rank));
  options.last_resort = [](ExitCode code, const std::string& message) {
    say("LAST RESORT %s", message.c_str());
    std::_Exit(static_cast<int>(code));
  };
  Communicator communicator(world, options);
  found->second(communicator);
  return 0;
}

}  // namespace
}  // namespace nanochat

int main(int argc, char** argv) {
  try {
    if (argc > 2) nanochat::argument = argv[2];
    const int code = nanochat::run(argc > 1 ? argv[1] : "");
    nanochat::say("done");
    return code;
  } catch (const nanochat::Error& error) {
    nanochat::say("ERROR %s", error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    nanochat::say("EXCEPTION %s", error.what());
    return 70;
  }
}
