// nanochat info [CHECKPOINT | RUN | SHARD]
#include <ATen/Context.h>

#include <cstdio>
#include <memory>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/model_config.h"
#include "command_line.h"
#include "commands.h"
#include "core/format.h"
#include "core/thread_pool.h"
#include "data/shards/shard.h"
#include "ops/cast.h"
#include "ops/cpu/kernels.h"
#include "runtime/precision.h"
#include "runtime/runtime.h"
#include "runtime/versions.h"
#include "tokenizer/load.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct InfoArguments {
  fs::path model;
  bool verify = false;
};

template <class... Args>
void line(std::string_view label, fmt::format_string<Args...> format, Args&&... args) {
  fmt::print("{:<16}{}\n", label, fmt::format(format, std::forward<Args>(args)...));
}

void print(const ordered_json& report) {
  fmt::print("{}\n", report.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
}

// What `--dtype auto` goes by on the CPU, with every thread; `unit`: of the rates.
ordered_json precision_report(const PrecisionRates& rates, const char* unit) {
  return {
      {"float32", rates.float32}, {"bfloat16", rates.bfloat16}, {"unit", unit}, {"choice", dtype_name(faster_dtype(rates))}};
}

std::string precision_text(const PrecisionRates& rates, const char* unit) {
  constexpr double kBillion = 1e9;
  return fmt::format("{} with --dtype auto: {:.3g} {} in float32, {:.3g} in bfloat16, as measured",
                     dtype_name(faster_dtype(rates)), rates.float32 / kBillion, unit, rates.bfloat16 / kBillion);
}

ExitCode describe_program(const Context& context) {
  const int threads = available_threads();
  const bool fast_bf16 = ops::cpu_has_fast_bf16(), cuda = at::hasCUDA();
  const PrecisionRates training = precision_rates(Workload::kTraining, threads);
  const PrecisionRates decoding = precision_rates(Workload::kDecoding, threads);
  if (context.json) {
    print({{"version", program_version()},
           {"libtorch", libtorch_version()},
           {"cpu_kernels", ops::cpu::kernel_level()},
           {"cpu_fast_bf16", fast_bf16},
           {"threads", threads},
           {"cuda", cuda},
           {"precision",
            {{"training", precision_report(training, "floating-point operations per second")},
             {"decoding", precision_report(decoding, "weights per second")},
             {"cache", precision_cache_folder().string()}}}});
    return ExitCode::kOk;
  }
  line("nanochat", "{}", program_version());
  line("LibTorch", "{}", libtorch_version());
  line("CPU kernels", "{}", ops::cpu::kernel_level());
  line("bfloat16", "{}",
       fast_bf16 ? "the processor multiplies it (AVX512-BF16)" : "emulated: the processor does not multiply it");
  line("threads", "{}", threads);
  line("training", "{}", precision_text(training, "GFLOP/s"));
  line("decoding", "{}", precision_text(decoding, "billion weights/s"));
  line("CUDA", "{}", cuda ? "available" : "not available: this build, or this machine, computes on the CPU");
  return ExitCode::kOk;
}

ExitCode describe_shard(const InfoArguments& arguments, const Context& context) {
  const ShardReader shard(arguments.model);
  const ShardInfo& info = shard.info();
  if (arguments.verify) shard.verify();
  if (context.json) {
    ordered_json report = {{"kind", "shard"},
                           {"path", arguments.model.string()},
                           {"version", info.version},
                           {"documents", info.documents},
                           {"tokens", info.tokens},
                           {"text_bytes", info.text_bytes},
                           {"bytes_per_token", info.bytes_per_token},
                           {"vocab_size", info.vocab_size},
                           {"tokenizer_fingerprint", info.tokenizer_fingerprint}};
    if (arguments.verify) report["verified"] = true;
    print(report);
    return ExitCode::kOk;
  }
  line("token shard", "{}", arguments.model.string());
  line("documents", "{}", with_commas(static_cast<std::int64_t>(info.documents)));
  line("tokens", "{}, {} bytes each", with_commas(static_cast<std::int64_t>(info.tokens)), info.bytes_per_token);
  line("text", "{}", human_bytes(static_cast<double>(info.text_bytes)));
  line("vocabulary", "{}", with_commas(static_cast<std::int64_t>(info.vocab_size)));
  line("fingerprint", "{}", info.tokenizer_fingerprint);
  if (arguments.verify) line("verified", "the checksum is right");
  return ExitCode::kOk;
}

ordered_json checkpoint_report(const CheckpointSummary& summary, const Tokenizer* tokenizer) {
  ordered_json report = {{"kind", "checkpoint"},
                         {"path", summary.folder.string()},
                         {"weights", summary.weights.filename().string()},
                         {"weights_dtype", summary.dtype},
                         {"weights_bytes", summary.weight_bytes},
                         {"parameters", summary.config.parameter_count()},
                         {"flops_per_token", summary.config.flops_per_token()},
                         {"config", to_hugging_face_config(summary.config)},
                         {"optimizer", summary.has_optimizer},
                         {"training_state", summary.training_state},
                         {"tokenizer", nullptr}};
  if (tokenizer != nullptr) {
    report["tokenizer"] = {
        {"type", tokenizer->type()}, {"vocab_size", tokenizer->vocab_size()}, {"fingerprint", tokenizer->fingerprint()}};
  }
  return report;
}

// A string without its quotation marks, anything else as JSON.
std::string plain(const nlohmann::json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

std::string training_text(const nlohmann::json& state) {
  if (!state.is_object()) return "no training state";
  std::string text;
  const auto add = [&](const nlohmann::json& object, const char* key, const std::string& label) {
    if (object.is_object() && object.contains(key)) text += (text.empty() ? "" : ", ") + label + " " + plain(object.at(key));
  };
  add(state, "stage", "stage");
  add(state, "step", "step");
  if (state.contains("versions")) add(state.at("versions"), "nanochat", "written by nanochat");
  return text.empty() ? "nothing known" : text;
}

ExitCode describe_model(const InfoArguments& arguments, const Context& context) {
  const CheckpointSummary summary = describe_checkpoint(arguments.model);
  const std::shared_ptr<const Tokenizer> tokenizer = summary.has_tokenizer ? load_tokenizer(summary.folder) : nullptr;
  const std::size_t verified = arguments.verify ? verify_checkpoint(arguments.model) : 0;
  if (context.json) {
    ordered_json report = checkpoint_report(summary, tokenizer.get());
    if (arguments.verify) report["verified_files"] = verified;
    print(report);
    return ExitCode::kOk;
  }
  const GptConfig& config = summary.config;
  line("checkpoint", "{}", summary.folder.string());
  line("model", "{} layers, width {}, {} heads of {} ({} for keys and values), MLP {}", config.n_layer, config.n_embd,
       config.n_head, config.head_dim(), config.n_kv_head, config.intermediate_size);
  line("vocabulary", "{} tokens, tables of {}", with_commas(config.vocab_size), with_commas(config.padded_vocab_size()));
  line("context", "{} tokens, RoPE base {}, tables in {}", with_commas(config.sequence_len), config.rope_base,
       config.rope_table_bf16 ? "bfloat16" : "float32");
  line("logits", "{}", config.softcap > 0 ? fmt::format("soft-capped at {}", config.softcap) : "not capped");
  line("parameters", "{}", with_commas(config.parameter_count()));
  line("FLOPs per token", "{:.3e}, forward and backward", config.flops_per_token());
  line("weights", "{}, {}, {}", summary.weights.filename().string(), summary.dtype,
       human_bytes(static_cast<double>(summary.weight_bytes)));
  line("training", "{}", training_text(summary.training_state));
  line("optimizer", "{}", summary.has_optimizer ? "saved: training can resume" : "not saved");
  if (tokenizer != nullptr) {
    line("tokenizer", "{}, {} tokens, {}", tokenizer->type(), with_commas(tokenizer->vocab_size()), tokenizer->fingerprint());
  } else {
    line("tokenizer", "none in this folder");
  }
  if (arguments.verify) {
    line("verified", "{}",
         verified > 0 ? fmt::format("{} files have the SHA-256 that was stored", verified)
                      : std::string("no SHA-256 is stored to compare with"));
  }
  return ExitCode::kOk;
}

}  // namespace

void add_info(CommandLine& command_line) {
  auto arguments = std::make_shared<InfoArguments>();
  Subcommand& command = command_line.add("info",
                                         "Describe a checkpoint or a token shard; without an argument, describe this build "
                                         "and machine.",
                                         "nanochat info runs/quickstart --verify");
  command.option("model", &arguments->model,
                 "A checkpoint, a run (its latest checkpoint) or a .tok shard; empty describes the program.");
  command.option("verify", &arguments->verify, "Read every file and compare it with the stored checksums.");
  command.positional("model");
  command.run([arguments](Context& context) {
    if (arguments->model.empty()) return describe_program(context);
    if (arguments->model.extension() == ".tok") return describe_shard(*arguments, context);
    return describe_model(*arguments, context);
  });
}

}  // namespace nanochat::cli
