#include "distributed/world.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "core/errors.h"

namespace nanochat {
namespace {

using Variables = std::map<std::string, std::string>;
using ::testing::AllOf;
using ::testing::HasSubstr;

WorldConfig read(const Variables& variables) {
  return read_world([&](const std::string& name) {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

std::string error_of(const Variables& variables) {
  try {
    read(variables);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

Variables with(Variables variables, const Variables& more) {
  for (const auto& [name, value] : more) variables[name] = value;
  return variables;
}

Variables without(Variables variables, const std::string& name) {
  variables.erase(name);
  return variables;
}

const Variables kTorchrun{
    {"RANK", "5"},           {"WORLD_SIZE", "8"}, {"LOCAL_RANK", "1"}, {"LOCAL_WORLD_SIZE", "4"}, {"MASTER_ADDR", "gpu-1"},
    {"MASTER_PORT", "29500"}};
const Variables kMpi{{"OMPI_COMM_WORLD_RANK", "1"},
                     {"OMPI_COMM_WORLD_SIZE", "2"},
                     {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                     {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                     {"PMIX_NAMESPACE", "prterun-host-4711@1"}};
const Variables kSlurm{
    {"SLURM_PROCID", "9"},    {"SLURM_NTASKS", "16"}, {"SLURM_LOCALID", "1"}, {"SLURM_NODELIST", "gpu[003-004]"},
    {"SLURM_JOB_ID", "1234"}, {"SLURM_STEP_ID", "0"}, {"SLURM_NNODES", "2"}};

TEST(World, IsOneProcessWithoutVariables) {
  EXPECT_TRUE(read({}).alone());
  EXPECT_TRUE(read({{"MASTER_ADDR", "left over"}, {"MASTER_PORT", "x"}}).alone());
  EXPECT_TRUE(read({{"RANK", ""}, {"WORLD_SIZE", ""}}).alone()) << "empty counts as unset";
}

TEST(World, ReadsTorchruns) {
  const WorldConfig world = read(with(kTorchrun,
                                      {{"TORCHELASTIC_USE_AGENT_STORE", "True"}, {"TORCHELASTIC_RESTART_COUNT", "3"}}));
  EXPECT_EQ(world.rank, 5);
  EXPECT_EQ(world.size, 8);
  EXPECT_EQ(world.local_rank, 1);
  EXPECT_EQ(world.local_size, 4);
  EXPECT_EQ(world.master_addr, "gpu-1");
  EXPECT_EQ(world.master_port, 29500);
  EXPECT_TRUE(world.launcher_has_store);
  EXPECT_EQ(world.attempt, 3);
  EXPECT_FALSE(read(kTorchrun).launcher_has_store);
  // Alone, nobody needs to be met.
  EXPECT_TRUE(read({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).alone());
}

TEST(World, NamesWhatIsMissing) {
  EXPECT_THAT(error_of(without(kTorchrun, "WORLD_SIZE")), HasSubstr("WORLD_SIZE is not"));
  EXPECT_THAT(error_of(without(kTorchrun, "RANK")), HasSubstr("RANK is not"));
  EXPECT_THAT(error_of(without(kTorchrun, "LOCAL_RANK")), HasSubstr("LOCAL_RANK is not"));
  EXPECT_THAT(error_of(without(without(kTorchrun, "MASTER_ADDR"), "MASTER_PORT")),
              HasSubstr("MASTER_ADDR, MASTER_PORT are not"));
  EXPECT_THAT(error_of({{"LOCAL_RANK", "0"}}), HasSubstr("LOCAL_RANK is set but RANK, WORLD_SIZE are not"));
  EXPECT_THAT(error_of(without(kMpi, "OMPI_COMM_WORLD_SIZE")), HasSubstr("OMPI_COMM_WORLD_SIZE is not"));
  EXPECT_THAT(error_of(without(kSlurm, "SLURM_NTASKS")), HasSubstr("SLURM_NTASKS is not"));
  EXPECT_THAT(error_of(without(kSlurm, "SLURM_LOCALID")), HasSubstr("SLURM_LOCALID is not"));
  EXPECT_THAT(error_of(without(kSlurm, "SLURM_NODELIST")), HasSubstr("SLURM_NODELIST"));
}

TEST(World, NamesWhatContradicts) {
  EXPECT_THAT(error_of(with(kTorchrun, {{"RANK", "8"}})),
              HasSubstr("RANK is 8 and WORLD_SIZE is 8: RANK must be below WORLD_SIZE"));
  EXPECT_THAT(error_of(with(kTorchrun, {{"LOCAL_RANK", "4"}})), HasSubstr("LOCAL_RANK must be below LOCAL_WORLD_SIZE"));
  EXPECT_THAT(error_of(with(kTorchrun, {{"RANK", "0"}})), HasSubstr("LOCAL_RANK must be at most RANK"));
  EXPECT_THAT(error_of(with(kTorchrun, {{"LOCAL_WORLD_SIZE", "9"}})), HasSubstr("LOCAL_WORLD_SIZE must be at most WORLD_SIZE"));
  EXPECT_THAT(error_of(with(kSlurm, {{"SLURM_PROCID", "16"}})), HasSubstr("SLURM_PROCID must be below SLURM_NTASKS"));
}

TEST(World, NamesWhatIsNoNumber) {
  for (const char* bad : {"two", "-1", "1.5", " 1", "1x", "99999999999999999999"}) {
    EXPECT_THAT(error_of(with(kTorchrun, {{"RANK", bad}})), AllOf(HasSubstr("RANK is \""), HasSubstr(bad))) << bad;
  }
  EXPECT_THAT(error_of(with(kTorchrun, {{"MASTER_PORT", "70000"}})), HasSubstr("from 1 to 65535"));
  EXPECT_THAT(error_of(with(kTorchrun, {{"WORLD_SIZE", "0"}})), HasSubstr("WORLD_SIZE is \"0\""));
}

TEST(World, ReadsOpenMpis) {
  const WorldConfig world = read(kMpi);
  EXPECT_EQ(world.rank, 1);
  EXPECT_EQ(world.size, 2);
  EXPECT_EQ(world.local_rank, 1);
  EXPECT_EQ(world.master_addr, "127.0.0.1") << "all on this machine";
  EXPECT_GT(world.master_port, 1024);
  EXPECT_LT(world.master_port, 32768) << "below the ports of outgoing connections";
  EXPECT_EQ(world.master_port,
            read(with(kMpi, {{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "0"}})).master_port);
  EXPECT_NE(world.master_port, read(with(kMpi, {{"PMIX_NAMESPACE", "prterun-host-4712@1"}})).master_port) << "another job";
  const Variables several = with(kMpi, {{"OMPI_COMM_WORLD_SIZE", "4"}});
  EXPECT_THAT(error_of(several), HasSubstr("mpirun -x MASTER_ADDR"));
  const WorldConfig told = read(with(several, {{"MASTER_ADDR", "node7"}, {"MASTER_PORT", "5000"}}));
  EXPECT_EQ(told.master_addr, "node7");
  EXPECT_EQ(told.master_port, 5000);
}

TEST(World, ReadsSlurms) {
  const WorldConfig world = read(kSlurm);
  EXPECT_EQ(world.rank, 9);
  EXPECT_EQ(world.size, 16);
  EXPECT_EQ(world.local_rank, 1);
  EXPECT_EQ(world.local_size, 0) << "not said";
  EXPECT_EQ(world.master_addr, "gpu003");
  EXPECT_NE(world.master_port, read(with(kSlurm, {{"SLURM_JOB_ID", "1235"}})).master_port);
  EXPECT_EQ(read(with(kSlurm, {{"MASTER_ADDR", "10.0.0.1"}})).master_addr, "10.0.0.1");
  EXPECT_EQ(read(with(kSlurm, {{"SLURM_NNODES", "1"}})).local_size, 16);
  // The numbers of a step go before those of its job.
  const Variables step = with(kSlurm, {{"SLURM_STEP_NUM_TASKS", "12"}, {"SLURM_STEP_NODELIST", "gpu004"}});
  EXPECT_EQ(read(step).size, 12);
  EXPECT_EQ(read(step).master_addr, "gpu004");
  // A batch script is one process, though the job has tasks.
  EXPECT_TRUE(read(without(kSlurm, "SLURM_STEP_ID")).alone());
  EXPECT_EQ(read({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "2"}, {"SLURM_LOCALID", "0"}, {"SLURM_NODELIST", "localhost"}}).size,
            2);
}

TEST(World, TakesTheInnermostLauncher) {
  EXPECT_EQ(read(with(with(kTorchrun, kMpi), kSlurm)).rank, 5);
  EXPECT_EQ(read(with(kMpi, kSlurm)).rank, 1);
}

TEST(World, FindsTheFirstHostOfASlurmList) {
  EXPECT_EQ(first_slurm_host("login"), "login");
  EXPECT_EQ(first_slurm_host("a,b,c"), "a");
  EXPECT_EQ(first_slurm_host("node[01-04,7],other"), "node01");
  EXPECT_EQ(first_slurm_host("node[7,01-04]"), "node7");
  EXPECT_EQ(first_slurm_host("rack[1-2]-node[03-08].cluster"), "rack1-node03.cluster");
  for (const char* bad : {"", ",a", "node[", "node[]", "node[a-b]", "node]"}) {
    EXPECT_THROW(first_slurm_host(bad), ConfigError) << bad;
  }
}

}  // namespace
}  // namespace nanochat
