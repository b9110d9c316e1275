#include "checkpoint/internal/hugging_face_files.h"

#include <algorithm>
#include <system_error>

#include "checkpoint/checkpoint_files.h"
#include "checkpoint/json_file.h"
#include "checkpoint/model_config.h"
#include "core/atomic_file.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {
namespace {

// Jinja. A system message joins the first user message, two line breaks between them; an assistant's content may be a
// list of parts, each of type text, python or python_output. Source: render_conversation in the reference's
// tokenizer.py.
constexpr const char* kChatTemplate =
    "{%- set ns = namespace(system='') -%}"
    "{{- '<|bos|>' -}}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'system' -%}"
    "{%- set ns.system = message.content + '\\n\\n' -%}"
    "{%- elif message.role == 'user' -%}"
    "{{- '<|user_start|>' + ns.system + message.content + '<|user_end|>' -}}"
    "{%- set ns.system = '' -%}"
    "{%- elif message.role == 'assistant' -%}"
    "{{- '<|assistant_start|>' -}}"
    "{%- if message.content is string -%}"
    "{{- message.content -}}"
    "{%- else -%}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'python' -%}"
    "{{- '<|python_start|>' + part.text + '<|python_end|>' -}}"
    "{%- elif part.type == 'python_output' -%}"
    "{{- '<|output_start|>' + part.text + '<|output_end|>' -}}"
    "{%- else -%}"
    "{{- part.text -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{{- '<|assistant_end|>' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant_start|>' -}}{%- endif -%}";

bool has_chat_tokens(const Tokenizer& tokenizer) {
  return std::all_of(kChatSpecialTokens.begin(), kChatSpecialTokens.end(),
                     [&](std::string_view name) { return tokenizer.special_id(name).has_value(); });
}

void write_tokenizer(const std::filesystem::path& folder, const Tokenizer& tokenizer, std::int64_t sequence_len) {
  tokenizer.save(folder);
  const std::filesystem::path config = folder / kTokenizerConfigFile;
  std::error_code ignored;
  const std::string text = std::filesystem::exists(config, ignored) ? read_file(config) : "{}";
  write_file_atomically(config, with_chat_template(text, tokenizer, sequence_len));
}

}  // namespace

nlohmann::ordered_json generation_config(const Tokenizer* tokenizer) {
  nlohmann::ordered_json result = nlohmann::ordered_json::object();
  if (tokenizer == nullptr) return result;
  const auto bos = tokenizer->find_bos();
  const auto end = tokenizer->special_id(kAssistantEnd);
  if (bos) result["bos_token_id"] = *bos;
  if (end || bos) result["eos_token_id"] = end ? *end : *bos;
  return result;
}

std::string with_chat_template(const std::string& text, const Tokenizer& tokenizer, std::int64_t sequence_len) {
  parse_json_object(text, "tokenizer_config.json");
  auto config = nlohmann::ordered_json::parse(text);  // known to be good; keeps the order
  config["model_max_length"] = sequence_len;
  if (has_chat_tokens(tokenizer)) config["chat_template"] = kChatTemplate;
  return to_json_text(config);
}

void write_hugging_face_files(const std::filesystem::path& folder, const GptConfig& config, const Tokenizer* tokenizer,
                              const std::string& dtype) {
  const nlohmann::ordered_json generation = generation_config(tokenizer);
  nlohmann::ordered_json object = to_hugging_face_config(config);
  object["dtype"] = object["torch_dtype"] = dtype;
  for (const auto& [key, value] : generation.items()) object[key] = value;
  write_file_atomically(folder / kConfigFile, to_json_text(object));
  write_file_atomically(folder / kGenerationConfigFile, to_json_text(generation));
  if (tokenizer != nullptr) write_tokenizer(folder, *tokenizer, config.sequence_len);
}

}  // namespace nanochat
