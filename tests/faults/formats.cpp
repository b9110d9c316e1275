#include "formats.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <stdexcept>

#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "checkpoint/checkpoint_files.h"
#include "checkpoint/json_file.h"
#include "checkpoint/model_config.h"
#include "checkpoint/testing.h"
#include "checkpoint/torch_file.h"
#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/sha256.h"
#include "data/shards/shard.h"
#include "inference/calculator.h"
#include "request_formats.h"
#include "tokenizer/load.h"
#include "tokenizer/testing_tokenizers.h"
#include "tokenizer/tokenizer_pickle.h"

namespace nanochat::testing {
namespace {

constexpr const char* kText = "The number after 3 is 4.\n\n  It's \xe2\x82\xac 12,000 \xf0\x9f\x8c\x8d!";

MappedFile view(const std::string& bytes) { return MappedFile::view(std::as_bytes(std::span(bytes))); }

std::string sample_safetensors() {
  const TemporaryDirectory folder;
  write_safetensors(
      folder / "a.safetensors",
      {{"w", at::arange(12, at::kFloat).view({3, 4})}, {"n", at::arange(5, at::kInt)}, {"h", at::arange(6, at::kHalf)}},
      {{"format", "pt"}});
  return read_file(folder / "a.safetensors");
}

// Everything that a file of tensors holds.
std::string read_tensors(const TensorSource& file) {
  std::string all;
  for (const auto& [name, entry] : file.entries()) {
    at::Tensor target = at::empty(entry.shape, entry.dtype);
    file.read_into(name, target);
    all += name + std::to_string(static_cast<int>(entry.dtype));
    for (const std::int64_t size : entry.shape) all += "," + std::to_string(size);
    all += sha256_hex({static_cast<const char*>(target.const_data_ptr()), target.nbytes()});
  }
  return all;
}

std::string read_safetensors(const std::string& bytes) {
  const SafetensorsFile file(view(bytes), "a.safetensors");
  for (const auto& [name, entry] : file.entries()) static_cast<void>(file.tensor(name));
  return read_tensors(file);
}

std::string sample_torch_file() {
  const TemporaryDirectory folder;
  write_torch_file(folder / "model.pt", {{"w", at::arange(12, at::kFloat).view({3, 4})}, {"h", at::arange(6, at::kHalf)}});
  return read_file(folder / "model.pt");
}

std::string read_torch_file(const std::string& bytes) { return read_tensors(TorchFile(view(bytes), "model.pt")); }

std::string sample_shard() {
  const TemporaryDirectory folder;
  ShardWriter writer(folder / "train-00000.tok", 1000, sha256_hex("tokenizer"));
  std::vector<std::int32_t> tokens;
  for (std::int32_t document = 0; document < 20; ++document) {
    tokens.assign(static_cast<std::size_t>(document) * 7 % 11, document * 49);
    writer.add(tokens, tokens.size() * 3);
  }
  writer.finish();
  return read_file(folder / "train-00000.tok");
}

std::string read_shard(const std::string& bytes) {
  const ShardReader shard(view(bytes), "train-00000.tok");
  std::string all = shard.info().tokenizer_fingerprint + std::to_string(shard.info().vocab_size);
  std::vector<std::int32_t> tokens;
  for (std::uint64_t i = 0; i < shard.info().documents; ++i) {
    tokens.clear();
    shard.document(i, tokens);
    all += sha256_hex({static_cast<const char*>(static_cast<const void*>(tokens.data())), 4 * tokens.size()});
    if (all.size() > 4096) all = sha256_hex(all);
  }
  return all;
}

// A file of a small tokenizer.
std::string file_of(const Tokenizer& tokenizer, const char* name) {
  const TemporaryDirectory folder;
  tokenizer.save(folder.path());
  return read_file(folder / name);
}

std::string read_tokenizer(const std::string& bytes, const char* name) {
  const auto tokenizer = parse_tokenizer(bytes, name);
  std::vector<TokenId> ids;
  tokenizer->encode(kText, ids);
  std::string all = tokenizer->fingerprint() + tokenizer->decode(ids);
  for (const TokenId id : ids) all += "," + std::to_string(id);
  return all;
}

// As published tokenizers have them: normalizers, several splits, added tokens.
std::string sample_tokenizer_steps() {
  auto document = nlohmann::json::parse(file_of(ByteBpeTokenizer(small_bpe_definition()), "tokenizer.json"));
  document["normalizer"] = {{"type", "Sequence"},
                            {"normalizers",
                             {{{"type", "NFKC"}},
                              {{"type", "Replace"}, {"pattern", {{"Regex", "\\s+"}}}, {"content", " "}},
                              {{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}}}}};
  document["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", "\\p{N}{1,3}|^[a-z]+$"}}}, {"behavior", "Isolated"}, {"invert", false}},
        {{"type", "Digits"}, {"individual_digits", true}},
        {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}}}};
  document["added_tokens"].push_back({{"id", 276},
                                      {"content", "number"},
                                      {"single_word", true},
                                      {"lstrip", true},
                                      {"rstrip", true},
                                      {"normalized", true},
                                      {"special", false}});
  return document.dump();
}

std::string sample_config() { return to_json_text(to_hugging_face_config(small_config())); }

std::string read_config(const std::string& bytes) {
  return to_json_text(to_hugging_face_config(from_hugging_face_config(parse_json_object(bytes, "config.json"), "config.json")));
}

std::string sample_training_state() {
  nlohmann::json state = {{"format_version", kTrainingStateVersion},
                          {"versions", {{"nanochat", "0.1.0"}, {"libtorch", "2.11.0"}}},
                          {"sha256", {{"model.safetensors", sha256_hex("weights")}, {"config.json", sha256_hex("config")}}},
                          {"stage", "pretrain"},
                          {"step", 12},
                          {"loader", {{"packing", "best-fit"}, {"epoch", 0}, {"document", 320}, {"row", 3}}},
                          {"loop", {{"smooth_loss", 2.25}, {"training_seconds", 1.5}}},
                          {"config", {{"depth", 2}, {"data_dir", {"shards"}}, {"matrix_lr", 0.02}}}};
  state["checksum"] = training_state_checksum(state);
  return to_json_text(state);
}

std::string read_training_state(const std::string& bytes) { return parse_training_state(bytes, "training_state.json").dump(); }

std::string read_expression(const std::string& bytes) {
  const auto result = calculate(bytes);
  if (!result) throw DataError("an expression without a result");
  return *result;
}

std::vector<Format> file_formats() {
  return {
      {"safetensors", sample_safetensors, read_safetensors},
      {"shard", sample_shard, read_shard, /*detects_all=*/true},
      {"tokenizer_json", [] { return file_of(ByteBpeTokenizer(small_bpe_definition()), "tokenizer.json"); },
       [](const std::string& bytes) { return read_tokenizer(bytes, "tokenizer.json"); }},
      {"tokenizer_steps_json", sample_tokenizer_steps,
       [](const std::string& bytes) { return read_tokenizer(bytes, "tokenizer.json"); }},
      {"sentencepiece_json", [] { return file_of(*small_sentencepiece(), "tokenizer.json"); },
       [](const std::string& bytes) { return read_tokenizer(bytes, "tokenizer.json"); }},
      {"tokenizer_model", [] { return file_of(*small_sentencepiece(), "tokenizer.model"); },
       [](const std::string& bytes) { return read_tokenizer(bytes, "tokenizer.model"); }},
      {"ranks", [] { return rank_file(small_ranks()); },
       [](const std::string& bytes) { return read_tokenizer(bytes, "bytes.tiktoken"); }},
      {"tokenizer_pickle", [] { return to_tokenizer_pickle(ByteBpeTokenizer(small_bpe_definition())); },
       [](const std::string& bytes) { return read_tokenizer(bytes, "tokenizer.pkl"); }},
      {"torch_file", sample_torch_file, read_torch_file},
      {"config_json", sample_config, read_config},
      {"calculator", [] { return std::string("((12.5 + 3,000) / -4 // 0.5 - 7) * 2"); }, read_expression},
      {"training_state", sample_training_state, read_training_state, /*detects_all=*/true},
  };
}

}  // namespace

const std::vector<Format>& formats() {
  static const std::vector<Format> all = [] {
    std::vector<Format> both = file_formats();
    for (Format& format : request_formats()) both.push_back(std::move(format));
    return both;
  }();
  return all;
}

const Format& format_of(const std::string& name) {
  const auto found = std::find_if(formats().begin(), formats().end(),
                                  [&](const Format& format) { return format.name == name; });
  if (found == formats().end()) throw std::out_of_range("no format " + name);
  return *found;
}

}  // namespace nanochat::testing
