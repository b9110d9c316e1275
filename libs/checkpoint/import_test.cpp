#include "checkpoint/import.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>

#include "checkpoint/checkpoint.h"
#include "checkpoint/export.h"
#include "checkpoint/internal/import_config.h"
#include "checkpoint/internal/sharded_safetensors.h"
#include "checkpoint/testing.h"
#include "checkpoint/torch_file.h"
#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

// The constants of the reference, a vocabulary that needs padding.
GptConfig reference_shape() {
  GptConfig config = testing::small_config();
  config.intermediate_size = 4 * config.n_embd;
  config.rope_table_bf16 = true;
  return config;
}

// Names as the reference has them, written here once more: not through the code under test.
std::string reference_name(const std::string& name) {
  if (name == "model.embed_tokens.weight") return "transformer.wte.weight";
  if (name == "lm_head.weight") return name;
  std::string result = name;
  const auto replace = [&](const std::string& from, const std::string& to) {
    if (const std::size_t at = result.find(from); at != std::string::npos) result.replace(at, from.size(), to);
  };
  replace("model.layers.", "transformer.h.");
  replace("self_attn.q_proj", "attn.c_q");
  replace("self_attn.k_proj", "attn.c_k");
  replace("self_attn.v_proj", "attn.c_v");
  replace("self_attn.o_proj", "attn.c_proj");
  replace("mlp.fc1", "mlp.c_fc");
  replace("mlp.fc2", "mlp.c_proj");
  return result;
}

class ImportTest : public ::testing::Test {
 protected:
  void write_reference(const fs::path& folder, const std::string& prefix = "", const char* number = "000012") {
    fs::create_directories(folder);
    NamedTensors tensors;
    for (const Parameter& parameter : model_->parameters()) {
      tensors.emplace_back(prefix + reference_name(parameter.name), parameter.value);
    }
    write_torch_file(folder / ("model_" + std::string(number) + ".pt"), tensors);
    testing::write_text(folder / ("meta_" + std::string(number) + ".json"),
                        R"({"step": 12, "val_bpb": NaN, "user_config": {"run": "a \"NaN\" run"}, "model_config":
                        {"sequence_len": 32, "vocab_size": 265, "n_layer": 2, "n_head": 4, "n_kv_head": 2,
                        "n_embd": 32},
                        "loop_state": {"min_val_bpb": Infinity, "x": -Infinity}})");
  }
  void write_hugging_face(const fs::path& folder, at::ScalarType dtype = at::kFloat, std::int64_t max_bytes = 0) {
    CheckpointContents contents;
    contents.config = &model_->config();
    contents.weights = model_weights(*model_);
    save_checkpoint(folder, contents);
    for (auto& [name, tensor] : contents.weights) tensor = tensor.to(dtype);
    for (const char* name : {"training_state.json", "model.safetensors"}) fs::remove(folder / name);
    write_weights(folder, contents.weights, max_bytes);
  }
  void change_json(const fs::path& path, const std::function<void(json&)>& change) {
    json object = path.filename() == "config.json" ? json::parse(read_file(path)) : read_python_json(path);
    change(object);
    testing::write_text(path, object.dump());
  }
  ImportResult import(const fs::path& path) {
    options_.overwrite = true;
    return import_checkpoint(path, output_, options_);
  }
  std::string error_of(const fs::path& path) {
    fs::remove_all(output_);
    try {
      import(path);
    } catch (const Error& error) {
      EXPECT_FALSE(fs::exists(output_)) << "something was left behind";
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
      return error.what();
    }
    fs::remove_all(output_);
    return "no error";
  }
  void expect_same_model(at::ScalarType stored = at::kFloat) {
    const LoadedModel loaded = load_model(output_, at::kFloat);
    EXPECT_EQ(loaded.model->config(), model_->config());
    for (std::size_t i = 0; i < model_->parameters().size(); ++i) {
      const at::Tensor expected = model_->parameters()[i].value.to(stored).to(at::kFloat);
      EXPECT_TRUE(at::equal(loaded.model->parameters()[i].value, expected)) << model_->parameters()[i].name;
    }
    EXPECT_GT(verify_checkpoint(output_), 2U);
  }
  testing::TemporaryDirectory temporary_;
  std::unique_ptr<Gpt> model_ = std::make_unique<Gpt>(testing::small_model(reference_shape()));
  fs::path source_ = temporary_ / "base_checkpoints/d2", output_ = temporary_ / "imported";
  ImportOptions options_;
};

// The same model with one table for embedding and head.
void tie(Gpt& model) {
  const auto value = [&](const std::string& name) {
    for (const Parameter& parameter : model.parameters()) {
      if (parameter.name == name) return parameter.value;
    }
    return at::Tensor();
  };
  at::Tensor head = value("lm_head.weight");
  head.copy_(value("model.embed_tokens.weight"));
}

TEST_F(ImportTest, CopiesATiedEmbedding) {
  tie(*model_);
  const fs::path folder = temporary_ / "tied";
  NamedTensors weights = model_weights(*model_);
  const auto write_without = [&](const std::string& name) {
    write_hugging_face(folder);
    NamedTensors kept;
    for (const auto& tensor : weights) {
      if (tensor.first != name) kept.push_back(tensor);
    }
    fs::remove(folder / "model.safetensors");
    write_weights(folder, kept, 0);
  };
  const auto set_tied = [&](const json& value) {
    change_json(folder / "config.json", [&](json& object) { object["tie_word_embeddings"] = value; });
  };
  write_without("lm_head.weight");
  EXPECT_EQ(import(folder).tied, "lm_head.weight is not in the file, so it becomes a copy of model.embed_tokens.weight");
  expect_same_model();
  set_tied(true);
  EXPECT_NE(import(folder).tied, "");
  expect_same_model();
  write_without("model.embed_tokens.weight");
  fs::remove_all(output_);  // of the import before
  EXPECT_THAT(error_of(folder), HasSubstr("model.embed_tokens.weight"));
  set_tied(true);
  EXPECT_EQ(import(folder).tied, "model.embed_tokens.weight is not in the file, so it becomes a copy of lm_head.weight");
  expect_same_model();
  write_without("");
  EXPECT_EQ(import(folder).tied, "");
  set_tied(true);
  EXPECT_EQ(import(folder).tied, "lm_head.weight equals model.embed_tokens.weight and becomes a table of its own");
  expect_same_model();
  EXPECT_EQ(json::parse(read_file(output_ / "config.json"))["tie_word_embeddings"], false);
  set_tied("yes");
  fs::remove_all(output_);
  EXPECT_THAT(error_of(folder), HasSubstr("\"tie_word_embeddings\" is neither true nor false"));
}

TEST_F(ImportTest, RefusesATiedHeadThatDiffers) {
  const fs::path folder = temporary_ / "tied";
  write_hugging_face(folder);
  change_json(folder / "config.json", [](json& object) { object["tie_word_embeddings"] = true; });
  EXPECT_THAT(error_of(folder), HasSubstr("lm_head.weight differs from model.embed_tokens.weight"));
}

TEST_F(ImportTest, CopiesTheEmbeddingOfAReferenceWithoutAHead) {
  tie(*model_);
  write_reference(source_);
  NamedTensors tensors;
  for (const Parameter& parameter : model_->parameters()) {
    if (parameter.name != "lm_head.weight") tensors.emplace_back(reference_name(parameter.name), parameter.value);
  }
  write_torch_file(source_ / "model_000012.pt", tensors);
  EXPECT_EQ(import(source_).tied, "lm_head.weight is not in the file, so it becomes a copy of transformer.wte.weight");
  expect_same_model();
}

TEST_F(ImportTest, TakesTheReferencesCheckpoints) {
  write_reference(source_);
  for (const fs::path& path : {source_, source_ / "model_000012.pt"}) {
    const ImportResult result = import(path);
    expect_same_model();
    EXPECT_EQ(result.format, "reference");
    EXPECT_EQ(result.step, 12);
    EXPECT_EQ(result.dtype, "F32");
    EXPECT_EQ(result.tokenizer, nullptr);
    EXPECT_EQ(result.assumed, (json{{"intermediate_size", 128},
                                    {"rope_base", 10000.0},
                                    {"rope_table_dtype", "bfloat16"},
                                    {"softcap", 15.0},
                                    {"rms_norm_eps", 1e-6}}));
  }
  const json state = load_model(output_, at::kFloat).training_state;
  EXPECT_EQ(state.at("step"), 12);
  EXPECT_EQ(state.at("imported").at("file"), "model_000012.pt");
}

TEST_F(ImportTest, TakesTheHighestStepAndCompiledModels) {
  write_reference(source_, "", "000100");
  write_reference(source_, "_orig_mod.", "1000000");
  testing::write_text(source_ / "model_notes.pt", "x");
  testing::write_text(source_ / "optim_9000000_rank0.pt", "x");
  EXPECT_EQ(import(source_).step, 1'000'000);
  expect_same_model();
}

TEST_F(ImportTest, TakesEmbeddingsInBfloat16AndUnpadded) {
  fs::create_directories(source_);
  write_reference(source_);
  NamedTensors tensors;
  for (const Parameter& parameter : model_->parameters()) {
    const bool table = parameter.value.size(0) == 320;
    tensors.emplace_back(reference_name(parameter.name), table ? parameter.value.narrow(0, 0, 265) : parameter.value);
  }
  tensors[0].second = tensors[0].second.to(at::kBFloat16);
  write_torch_file(source_ / "model_000012.pt", tensors);
  EXPECT_EQ(import(source_).dtype, "BF16 and F32");
  const LoadedModel loaded = load_model(output_, at::kFloat);
  const at::Tensor table = loaded.model->parameters()[0].value;
  EXPECT_TRUE(at::equal(table.narrow(0, 0, 265), tensors[0].second.to(at::kFloat)));
  EXPECT_EQ(table.narrow(0, 265, 55).abs().max().item().toFloat(), 0.0F);
}

TEST_F(ImportTest, AsksForWhatTheReferenceDoesNotSay) {
  write_reference(source_);
  const fs::path meta = source_ / "meta_000012.json";
  options_.reference = "none";
  EXPECT_THAT(error_of(source_),
              HasSubstr("meta_000012.json: does not say intermediate_size, rope_base, rope_table_dtype, softcap, "
                        "rms_norm_eps, which is not guessed; give --intermediate-size, --rope-base, "
                        "--rope-table-dtype, --softcap, --rms-norm-eps"));
  options_.given = {
      {"intermediate_size", 128}, {"rope_base", 500}, {"rope_table_dtype", "float32"}, {"softcap", 0}, {"rms_norm_eps", 1e-5}};
  EXPECT_TRUE(import(source_).assumed.empty());
  const GptConfig config = load_model(output_, at::kFloat).model->config();
  EXPECT_EQ(config.rope_base, 500.0);
  EXPECT_EQ(config.softcap, 0.0);
  EXPECT_FALSE(config.rope_table_bf16);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  fs::remove_all(output_);

  options_ = {};
  change_json(meta, [](json& object) {
    object["model_config"].erase("n_kv_head");
    object["model_config"].erase("sequence_len");
  });
  EXPECT_THAT(error_of(source_), HasSubstr("give --sequence-len, --n-kv-head"));
  options_.given = {{"sequence_len", 32}, {"n_kv_head", 2}};
  import(source_);
  expect_same_model();
  fs::remove_all(output_);
  options_.given["n_head"] = 8;
  EXPECT_THAT(error_of(source_), AllOf(HasSubstr("--n-head is 8, but"), HasSubstr("meta_000012.json says 4")));

  fs::remove(meta);
  EXPECT_THAT(error_of(source_), HasSubstr("meta_000012.json (which is absent): does not say vocab_size, n_layer, n_embd"));
  options_.given = {{"sequence_len", 32}, {"vocab_size", 265}, {"n_layer", 2}, {"n_head", 4}, {"n_kv_head", 2}, {"n_embd", 32}};
  import(source_);
  expect_same_model();
}

TEST_F(ImportTest, RefusesModelsOfOtherVersions) {
  write_reference(source_);
  const fs::path meta = source_ / "meta_000012.json";
  const std::string original = read_file(meta);
  const auto with = [&](const std::function<void(json&)>& change) {
    testing::write_text(meta, original);
    change_json(meta, change);
    return error_of(source_);
  };
  EXPECT_THAT(with([](json& object) { object["model_config"]["window_pattern"] = "SSSL"; }),
              HasSubstr("has the key \"window_pattern\", which models of the reference at d314e96 do not"));
  EXPECT_THAT(with([](json& object) { object["model_config"]["n_layer"] = 3; }),
              HasSubstr("tensor transformer.h.2.attn.c_q.weight is missing"));
  EXPECT_THAT(with([](json& object) { object["model_config"]["n_layer"] = 1; }),
              HasSubstr("holds 14 tensors, but the 1 layers"));
  EXPECT_THAT(with([](json& object) { object["model_config"]["n_layer"] = 16'777'216; }), HasSubstr("is missing"));
  EXPECT_THAT(with([](json& object) { object["model_config"]["n_kv_head"] = 4; }),
              HasSubstr("transformer.h.0.attn.c_k.weight has shape (16, 32), but meta_000012.json asks for (32, 32)"));
  EXPECT_THAT(with([](json& object) { object["model_config"]["n_embd"] = "32"; }), HasSubstr("n_embd is \"32\""));
  EXPECT_THAT(with([](json& object) { object["model_config"]["n_head"] = 3; }), HasSubstr("not a multiple of n_head 3"));
  EXPECT_THAT(with([](json& object) { object["model_config"] = 3; }), HasSubstr("\"model_config\" is 3, expected an object"));
  testing::write_text(meta, "{");
  EXPECT_THAT(error_of(source_), HasSubstr("meta_000012.json: not valid JSON"));
  options_.reference = "1.0";
  testing::write_text(meta, original);
  EXPECT_THAT(error_of(source_), HasSubstr("reference \"1.0\": expected d314e96, 92d63d4 or none"));
  options_.reference = "92d63d4";
  EXPECT_THAT(error_of(source_), HasSubstr("are those of d314e96"));
}

// What the reference at 92d63d4 saved, imported, exported and imported again.
TEST_F(ImportTest, TakesTheNewestArchitectureAndGivesItBack) {
  NANOCHAT_SHARED_OR_SKIP(fixture, "parity/head_l4_d128");
  const ImportResult result = import(fixture / "model_000040.pt");
  EXPECT_EQ(result.reference, "92d63d4");
  EXPECT_EQ(result.step, 40);
  GptConfig expected = GptConfig::from_depth(2, 300, 256, Architecture::kNanochat2026_07);
  expected.n_layer = 4;
  expected.n_head = 4;
  expected.n_kv_head = 2;
  expected.window_pattern = "SSL";
  EXPECT_EQ(result.config, expected);
  const TorchFile original(fixture / "model_000040.pt");
  const auto same = [&](const fs::path& checkpoint) {
    const LoadedModel loaded = load_model(checkpoint, at::kFloat);
    ASSERT_EQ(loaded.model->parameters().size(), original.entries().size());
    for (const Parameter& parameter : loaded.model->parameters()) {
      EXPECT_TRUE(at::equal(parameter.value, original.tensor(parameter.spec.reference_name()))) << parameter.name;
    }
  };
  same(output_);
  export_reference(output_, temporary_ / "exported");
  const TorchFile exported(temporary_ / "exported/model_000040.pt");
  for (const auto& [name, entry] : original.entries()) {
    EXPECT_TRUE(at::equal(exported.tensor(name), original.tensor(name))) << name;
  }
  const json meta = json::parse(read_file(temporary_ / "exported/meta_000040.json"));
  EXPECT_EQ(meta.at("model_config"), json::parse(read_file(fixture / "meta_000040.json")).at("model_config"));
  import_checkpoint(temporary_ / "exported", temporary_ / "again", {});
  same(temporary_ / "again");
  EXPECT_THROW(export_hugging_face(output_, temporary_ / "hf"), CheckpointError) << "transformers has no such class";
}

TEST_F(ImportTest, FindsTheTokenizerAndComparesIt) {
  write_reference(source_);
  const auto tokenizer = testing::byte_tokenizer(temporary_.path());
  // Where the reference keeps it: base_checkpoints/ and tokenizer/ are neighbours.
  fs::create_directories(temporary_ / "tokenizer");
  tokenizer->save(temporary_ / "tokenizer");
  EXPECT_EQ(import(source_).tokenizer_at, temporary_ / "tokenizer");
  EXPECT_EQ(load_model(output_, at::kFloat).tokenizer->fingerprint(), tokenizer->fingerprint());
  options_.tokenizer = temporary_ / "bytes.tiktoken";
  EXPECT_EQ(import(source_).tokenizer->fingerprint(), tokenizer->fingerprint());
  fs::remove_all(output_);
  options_.tokenizer_options.special = "none";
  EXPECT_THAT(error_of(source_), HasSubstr("bytes.tiktoken: this tokenizer has 256 tokens, but the model 265"));
  options_.tokenizer = temporary_ / "absent";
  EXPECT_THAT(error_of(source_), HasSubstr("absent: no such file"));
}

TEST_F(ImportTest, TakesHuggingFaceFolders) {
  model_ = std::make_unique<Gpt>(testing::small_model());  // not the reference's constants
  write_hugging_face(source_);
  EXPECT_EQ(import(source_).format, "huggingface");
  expect_same_model();
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf, at::kDouble}) {
    fs::remove_all(source_);
    write_hugging_face(source_, dtype, 10'000);
    ASSERT_TRUE(fs::exists(source_ / "model.safetensors.index.json"));
    import(source_);
    expect_same_model(dtype);
  }
  import(source_ / "model.safetensors.index.json");
  expect_same_model(at::kDouble);
  EXPECT_TRUE(options_.given.empty());
}

TEST_F(ImportTest, AsksForWhatAConfigurationLacks) {
  write_hugging_face(source_);
  const fs::path config = source_ / "config.json";
  const std::string original = read_file(config);
  change_json(config, [](json& object) {
    for (const char* key : {"rope_theta", "rope_parameters", "rms_norm_eps", "final_logit_softcapping",
                            "max_position_embeddings", "vocab_size", "unpadded_vocab_size", "rope_table_dtype"}) {
      object.erase(key);
    }
  });
  EXPECT_THAT(error_of(source_), HasSubstr("config.json: does not say sequence_len, rms_norm_eps, softcap, rope_base, "
                                           "vocab_size, which is not guessed; give --sequence-len, --rms-norm-eps, "
                                           "--softcap, --rope-base, --vocab-size"));
  options_.given = {{"sequence_len", 32}, {"rms_norm_eps", 1e-6}, {"softcap", 15},
                    {"rope_base", 10000}, {"vocab_size", 265},    {"rope_table_dtype", "bfloat16"}};
  import(source_);
  expect_same_model();
  fs::remove_all(output_);

  testing::write_text(config, original);
  import(source_);  // all of it is what the file says
  expect_same_model();
  fs::remove_all(output_);
  options_.given = {{"rope_base", 20000}};
  EXPECT_THAT(error_of(source_), AllOf(HasSubstr("--rope-base is 20000, but"), HasSubstr("config.json says 10000")));
  // null is a value: no cap.
  options_.given = {};
  change_json(config, [](json& object) { object["final_logit_softcapping"] = nullptr; });
  import(source_);
  EXPECT_EQ(load_model(output_, at::kFloat).model->config().softcap, 0.0);
}

TEST_F(ImportTest, SaysWhatIsNotThere) {
  EXPECT_THAT(error_of(temporary_ / "absent"), HasSubstr("absent: no such file or folder"));
  EXPECT_THAT(error_of(temporary_.path()), HasSubstr("holds neither model.safetensors"));
  testing::write_text(temporary_ / "model.txt", "x");
  EXPECT_THAT(error_of(temporary_ / "model.txt"), HasSubstr("is a file, expected"));
}

TEST_F(ImportTest, ReplacesOnlyWhenTold) {
  write_reference(source_);
  fs::create_directories(output_);
  import_checkpoint(source_, output_, {});  // an empty folder is no loss
  EXPECT_THROW(import_checkpoint(source_, output_, {}), ConfigError);
  ImportOptions options;
  options.overwrite = true;
  import_checkpoint(source_, output_, options);
}

TEST(ImportFixture, GivesTheReferencesLogitsBitForBit) {
  NANOCHAT_SHARED_OR_SKIP(fixture, "parity/gqa_l4_d128");
  const testing::TemporaryDirectory folder;
  const ImportResult result = import_checkpoint(fixture / "model_000040.pt", folder / "imported", {});
  EXPECT_EQ(result.step, 40);
  const LoadedModel imported = load_model(folder / "imported", at::kFloat);
  const LoadedModel expected = load_model(fixture / "final.safetensors", at::kFloat);
  EXPECT_EQ(imported.model->config(), expected.model->config());
  const at::Tensor ids = SafetensorsFile(fixture / "final_logits.safetensors").tensor("ids");
  const at::Tensor logits = imported.model->forward(ids);
  EXPECT_TRUE(at::equal(logits, expected.model->forward(ids)));
  const at::Tensor stored = SafetensorsFile(fixture / "final_logits.safetensors").tensor("logits");
  constexpr double kLogitTolerance = 2e-4;
  EXPECT_LE(logits.sub(stored).abs().max().item().toDouble(), kLogitTolerance);
}

}  // namespace
}  // namespace nanochat
