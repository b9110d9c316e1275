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

namespace {

struct NaiveTable {
  at::Tensor cos, sin;
};

NaiveTable naive_table(const GptConfig& config, std::int64_t time) {
  const std::int64_t d = config.head_dim();
  const at::Tensor frequency = at::pow(config.rope_base, -at::arange(0, d, 2, at::kFloat) / static_cast<double>(d));
  const at::Tensor angles = at::outer(at::arange(time, at::kFloat), frequency).view({1, time, 1, d / 2});
  const auto table = [&](const at::Tensor& t) { return config.rope_table_bf16 ? t.to(at::kBFloat16).to(at::kFloat) : t; };
  return {table(angles.cos()), table(angles.sin())};
}

// Keys from t - window to t; a negative window: all up to t.
at::Tensor naive_hidden(std::int64_t time, std::int64_t window) {
  const at::Tensor hidden = at::ones({time, time}, at::kBool).triu(1);
  return window < 0 ? hidden : hidden.logical_or(at::ones({time, time}, at::kBool).tril(-window - 1));
}

at::Tensor naive_attention(at::Tensor q, at::Tensor k, at::Tensor v, const at::Tensor& hidden) {
  const std::int64_t group = q.size(2) / k.size(2);
  k = k.repeat_interleave(group, 2);
  v = v.repeat_interleave(group, 2);
  at::Tensor scores = at::einsum("bqhd,bkhd->bhqk", {q, k}) / std::sqrt(static_cast<double>(q.size(3)));
  scores = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity());
  return at::einsum("bhqk,bkhd->bqhd", {scores.softmax(-1), v}).reshape({q.size(0), q.size(1), -1});
}

at::Tensor naive_logits(const GptConfig& config, std::unordered_map<std::string, at::Tensor>& w, const at::Tensor& x) {
  at::Tensor logits = at::matmul(naive_norm(x, config.rms_norm_eps), w["lm_head.weight"].t()).narrow(-1, 0, config.vocab_size);
  if (config.softcap > 0) logits = config.softcap * at::tanh(logits / config.softcap);
  return logits;
}

// The reference at 92d63d4, with the numbers of that version's code as it has them: nothing here comes from layout.h.
at::Tensor naive_forward_2026(const GptConfig& config, std::unordered_map<std::string, at::Tensor>& w, const at::Tensor& ids) {
  const std::int64_t batch = ids.size(0), time = ids.size(1), d = config.head_dim(), layers = config.n_layer;
  const double eps = config.rms_norm_eps;
  const NaiveTable table = naive_table(config, time);
  const at::Tensor token = ids.to(at::kLong), n = naive_norm(at::embedding(w["model.embed_tokens.weight"], token), eps);
  at::Tensor x0 = n;
  if (time > 1) {
    const at::Tensor later = n.narrow(1, 1, time - 1);
    const at::Tensor opened = at::matmul(later.narrow(2, 0, 24), w["model.smear_gate.weight"].t()).sigmoid();
    x0 = at::cat({n.narrow(1, 0, 1), later + w["model.smear_lambda"] * opened * n.narrow(1, 0, time - 1)}, 1);
  }
  at::Tensor x = x0, halfway;
  for (std::int64_t l = 0; l < layers; ++l) {
    const std::string prefix = "model.layers." + std::to_string(l) + ".";
    const auto project = [&](const char* name, const at::Tensor& input) { return at::matmul(input, w[prefix + name].t()); };
    const at::Tensor u = w["model.resid_lambdas"][l] * x + w["model.x0_lambdas"][l] * x0, h = naive_norm(u, eps);
    const at::Tensor q = project("self_attn.q_proj.weight", h).view({batch, time, config.n_head, d});
    const at::Tensor k = project("self_attn.k_proj.weight", h).view({batch, time, config.n_kv_head, d});
    at::Tensor v = project("self_attn.v_proj.weight", h).view({batch, time, config.n_kv_head, d});
    if ((layers - 1 - l) % 2 == 0) {
      const at::Tensor gate = 3.0 * project("self_attn.ve_gate.weight", h.narrow(2, 0, 12)).sigmoid();
      const at::Tensor rows = at::embedding(w["model.value_embeds." + std::to_string(l) + ".weight"], token);
      v = v + gate.unsqueeze(3) * rows.view({batch, time, config.n_kv_head, d});
    }
    const char letter = config.window_pattern[static_cast<std::size_t>(l) % config.window_pattern.size()];
    const double quarter = std::ceil(static_cast<double>(config.sequence_len) / 4.0);
    const bool is_short = l + 1 < layers && (letter == 'S' || letter == 's');
    const auto window = is_short ? 128 * static_cast<std::int64_t>(std::ceil(quarter / 128.0)) : config.sequence_len;
    const at::Tensor y = naive_attention(naive_norm(naive_rotate(q, table.cos, table.sin), eps) * config.qk_scale,
                                         naive_norm(naive_rotate(k, table.cos, table.sin), eps) * config.qk_scale, v,
                                         naive_hidden(time, window));
    const at::Tensor u2 = u + project("self_attn.o_proj.weight", y);
    x = u2 + project("mlp.fc2.weight", project("mlp.fc1.weight", naive_norm(u2, eps)).relu().pow(2));
    if (l == layers / 2) halfway = x;
  }
  return naive_logits(config, w, x - w["model.backout_lambda"] * halfway);
}

}  // namespace

at::Tensor naive_forward(const GptConfig& config, std::unordered_map<std::string, at::Tensor>& w, const at::Tensor& ids) {
  if (config.architecture == Architecture::kNanochat2026_07) return naive_forward_2026(config, w, ids);
  const std::int64_t batch = ids.size(0), time = ids.size(1), d = config.head_dim();
  const NaiveTable table = naive_table(config, time);
  at::Tensor x = naive_norm(at::embedding(w["model.embed_tokens.weight"], ids.to(at::kLong)), config.rms_norm_eps);
  for (std::int64_t l = 0; l < config.n_layer; ++l) {
    const std::string prefix = "model.layers." + std::to_string(l) + ".";
    const auto project = [&](const char* name, const at::Tensor& input) { return at::matmul(input, w[prefix + name].t()); };
    const at::Tensor h = naive_norm(x, config.rms_norm_eps);
    const at::Tensor q = project("self_attn.q_proj.weight", h).view({batch, time, config.n_head, d});
    const at::Tensor k = project("self_attn.k_proj.weight", h).view({batch, time, config.n_kv_head, d});
    const at::Tensor v = project("self_attn.v_proj.weight", h).view({batch, time, config.n_kv_head, d});
    const at::Tensor y = naive_attention(naive_norm(naive_rotate(q, table.cos, table.sin), config.rms_norm_eps),
                                         naive_norm(naive_rotate(k, table.cos, table.sin), config.rms_norm_eps), v,
                                         naive_hidden(time, -1));
    x = x + project("self_attn.o_proj.weight", y);
    const at::Tensor m = project("mlp.fc1.weight", naive_norm(x, config.rms_norm_eps)).relu().pow(2);
    x = x + project("mlp.fc2.weight", m);
  }
  return naive_logits(config, w, x);
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
    if (parameter.spec.role == TensorRole::kScalars) {  // away from 0 and from each other
      parameter.value.uniform_(0.3, 1.2, generator);
      continue;
    }
    parameter.value.normal_(0.0, 1.0 / std::sqrt(static_cast<double>(parameter.value.size(1))), generator);
  }
  model.refresh_compute();
  return model;
}

Gpt scripted_model(const GptConfig& config, const std::vector<std::int32_t>& tokens) {
  TORCH_CHECK(static_cast<std::int64_t>(tokens.size()) <= config.n_embd, "a script is at most as long as the model is wide");
  Gpt model(config, at::kFloat);
  for (Parameter& parameter : model.parameters()) parameter.value.zero_();
  at::Tensor embedding, head;
  for (Parameter& parameter : model.parameters()) {
    if (parameter.spec.slot == WeightSlot::kTokenEmbedding) embedding = parameter.value;
    if (parameter.spec.slot == WeightSlot::kHead) head = parameter.value;
    // The stream is its beginning and nothing else.
    if (parameter.spec.slot == WeightSlot::kResidualScale) parameter.value.fill_(1.0);
  }
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
