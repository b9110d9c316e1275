#include "model/testing.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

namespace nanochat::testing {
namespace {

at::Tensor naive_norm(const at::Tensor& x, double eps) { return x * (x.pow(2).mean(-1, true) + eps).rsqrt(); }

at::Tensor naive_rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const auto halves = x.chunk(2, -1);
  return at::cat({halves[0] * cos + halves[1] * sin, halves[0] * (-sin) + halves[1] * cos}, -1);
}

}  // namespace

std::unordered_map<std::string, at::Tensor> naive_leaves(const Gpt& model) {
  std::unordered_map<std::string, at::Tensor> leaves;
  for (const Parameter& parameter : model.parameters()) {
    leaves[parameter.name] = parameter.value.clone().requires_grad_(true);
  }
  return leaves;
}

at::Tensor naive_forward(const GptConfig& config, std::unordered_map<std::string, at::Tensor>& w, const at::Tensor& ids) {
  const std::int64_t batch = ids.size(0), time = ids.size(1), d = config.head_dim();
  const at::Tensor frequency = at::pow(config.rope_base, -at::arange(0, d, 2, at::kFloat) / static_cast<double>(d));
  const at::Tensor angles = at::outer(at::arange(time, at::kFloat), frequency).view({1, time, 1, d / 2});
  const auto table = [&](const at::Tensor& t) { return config.rope_table_bf16 ? t.to(at::kBFloat16).to(at::kFloat) : t; };
  const at::Tensor cos = table(angles.cos()), sin = table(angles.sin());
  at::Tensor x = naive_norm(at::embedding(w["model.embed_tokens.weight"], ids.to(at::kLong)), config.rms_norm_eps);
  const at::Tensor hidden_from_past = at::ones({time, time}, at::kBool).triu(1);
  for (std::int64_t l = 0; l < config.n_layer; ++l) {
    const std::string prefix = "model.layers." + std::to_string(l) + ".";
    const auto project = [&](const char* name, const at::Tensor& input) { return at::matmul(input, w[prefix + name].t()); };
    const at::Tensor h = naive_norm(x, config.rms_norm_eps);
    at::Tensor q = project("self_attn.q_proj.weight", h).view({batch, time, config.n_head, d});
    at::Tensor k = project("self_attn.k_proj.weight", h).view({batch, time, config.n_kv_head, d});
    at::Tensor v = project("self_attn.v_proj.weight", h).view({batch, time, config.n_kv_head, d});
    q = naive_norm(naive_rotate(q, cos, sin), config.rms_norm_eps);
    k = naive_norm(naive_rotate(k, cos, sin), config.rms_norm_eps);
    const std::int64_t group = config.n_head / config.n_kv_head;
    k = k.repeat_interleave(group, 2);
    v = v.repeat_interleave(group, 2);
    at::Tensor scores = at::einsum("bqhd,bkhd->bhqk", {q, k}) / std::sqrt(static_cast<double>(d));
    scores = scores.masked_fill(hidden_from_past, -std::numeric_limits<double>::infinity());
    const at::Tensor y = at::einsum("bhqk,bkhd->bqhd", {scores.softmax(-1), v}).reshape({batch, time, -1});
    x = x + project("self_attn.o_proj.weight", y);
    const at::Tensor m = project("mlp.fc1.weight", naive_norm(x, config.rms_norm_eps)).relu().pow(2);
    x = x + project("mlp.fc2.weight", m);
  }
  x = naive_norm(x, config.rms_norm_eps);
  at::Tensor logits = at::matmul(x, w["lm_head.weight"].t()).narrow(-1, 0, config.vocab_size);
  if (config.softcap > 0) logits = config.softcap * at::tanh(logits / config.softcap);
  return logits;
}

at::Tensor naive_losses(const at::Tensor& logits, const at::Tensor& targets) {
  return at::cross_entropy_loss(logits.reshape({-1, logits.size(-1)}), targets.reshape({-1}).to(at::kLong), {},
                                at::Reduction::None, -1);
}

Gpt random_model(const GptConfig& config, at::ScalarType dtype, std::uint64_t seed) {
  Gpt model(config, dtype);
  model.init_weights(seed);
  auto generator = at::detail::createCPUGenerator(seed + 1);
  for (Parameter& parameter : model.parameters()) {
    if (parameter.name == "model.embed_tokens.weight") continue;
    parameter.value.normal_(0.0, 1.0 / std::sqrt(static_cast<double>(parameter.value.size(1))), generator);
  }
  model.refresh_compute();
  return model;
}

Gpt scripted_model(const GptConfig& config, const std::vector<std::int32_t>& tokens) {
  TORCH_CHECK(static_cast<std::int64_t>(tokens.size()) <= config.n_embd, "a script is at most as long as the model is wide");
  Gpt model(config, at::kFloat);
  for (Parameter& parameter : model.parameters()) parameter.value.zero_();
  at::Tensor embedding = model.parameters().front().value, head = model.parameters().back().value;
  for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
    const auto direction = static_cast<std::int64_t>(i);
    embedding[tokens[i]][direction].fill_(1.0);
    head[tokens[i + 1]][direction].fill_(1.0);
  }
  model.refresh_compute();
  return model;
}

at::Tensor random_ids(std::int64_t batch, std::int64_t time, std::int64_t vocab, std::uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randint(0, vocab, {batch, time}, generator, at::kInt);
}

}  // namespace nanochat::testing
