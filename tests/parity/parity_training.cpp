// parity_training FOLDER DEVICE DTYPE OUTPUT.json: trains nanochat-2026-07 as FOLDER says; DTYPE is float32, bfloat16, or fp8,
// which is bfloat16 with products in 8 bits. A tool of training_parity.py, not of users.
//   FOLDER/config.json, init.safetensors     as in the fixtures (reference_fixture.h)
//   FOLDER/batches.safetensors               `batches` int32 (steps, B, T + 1), `validation` int32 (batches, B, T + 1)
//   FOLDER/training.json                     `hyperparameters` and `schedule`, as in a fixture's expected.json
// Writes the loss of each step before its update, the mean loss of the validation rows after the last, and the time taken.

#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "core/elapsed.h"
#include "model/gpt.h"
#include "ops/device.h"
#include "reference_fixture.h"

namespace nanochat::parity {
namespace {

nlohmann::json train(const std::filesystem::path& folder, at::Device device, at::ScalarType dtype, bool fp8) {
  ops::use_device(device);
  GptConfig config = fixture_config(folder);
  config.rope_table_bf16 = dtype == at::kBFloat16;  // the reference's has the type that it computes in
  Gpt model(config, dtype, device);
  {
    const SafetensorsFile init(folder / "init.safetensors");
    for (Parameter& parameter : model.parameters()) parameter.value.copy_(init.tensor(parameter.spec.reference_name()));
  }
  model.refresh_compute();
  model.set_fp8(fp8);
  const nlohmann::json plan = read_json(folder / "training.json");
  const nlohmann::json &hyper = plan.at("hyperparameters"), &schedule = plan.at("schedule");
  Optimizer optimizer(model.parameters(), model.config().n_embd, fixture_options(hyper, dtype));
  const LearningRateSchedule rates = fixture_rates(schedule);
  const NorMuonSchedule muon = fixture_muon(schedule, hyper);
  const SafetensorsFile rows(folder / "batches.safetensors");
  const at::Tensor batches = rows.tensor("batches"), validation = rows.tensor("validation");
  std::vector<double> losses;
  const auto start = SteadyClock::now();
  for (std::int64_t step = 0; step < batches.size(0); ++step) {
    const Batch batch = batch_of(batches, step);
    model.zero_grad();
    losses.push_back(model.forward_backward(batch.ids, batch.targets, mean_scale(batch)).mean(at::kDouble).item<double>());
    optimizer.step(rates.multiplier(step), muon.momentum(step), 1.0, muon.decay(step));
  }
  const double seconds = seconds_since(start);
  double total = 0.0;
  for (std::int64_t i = 0; i < validation.size(0); ++i) {
    const Batch batch = batch_of(validation, i);
    total += model.token_losses(batch.ids, batch.targets).mean(at::kDouble).item<double>();
  }
  return {{"losses", losses}, {"validation_loss", total / static_cast<double>(validation.size(0))}, {"seconds", seconds}};
}

}  // namespace
}  // namespace nanochat::parity

int main(int argc, char** argv) {
  const std::string dtype = argc == 5 ? argv[3] : "";
  if (dtype != "float32" && dtype != "bfloat16" && dtype != "fp8") {
    std::cerr << "usage: parity_training FOLDER DEVICE float32|bfloat16|fp8 OUTPUT.json\n";
    return 2;
  }
  try {
    std::ofstream(argv[4]) << nanochat::parity::train(argv[1], at::Device(argv[2]),
                                                      dtype == "float32" ? at::kFloat : at::kBFloat16, dtype == "fp8")
                           << "\n";
  } catch (const std::exception& error) {
    std::cerr << "parity_training: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
