#include "tokenizer/load.h"

#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/format.h"
#include "core/json_input.h"
#include "tokenizer/byte_bpe.h"
#include "tokenizer/internal/hf_tokenizer_json.h"
#include "tokenizer/internal/sentencepiece_model.h"
#include "tokenizer/internal/sentencepiece_tokenizer.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/tiktoken_file.h"
#include "tokenizer/tokenizer_pickle.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> special_names(const std::string& option, bool chat_by_default) {
  if (!option.empty() && option != "nanochat" && option != "none") {
    throw ConfigError(fmt::format("special tokens \"{}\": expected nanochat or none", option));
  }
  if (option == "none" || (option.empty() && !chat_by_default)) return {};
  return {kChatSpecialTokens.begin(), kChatSpecialTokens.end()};
}

void check_nonempty(const std::string& contents, const fs::path& path) {
  if (contents.empty()) throw TokenizerError(fmt::format("{}: the file is empty", path.string()));
}

std::string read_nonempty(const fs::path& path) {
  std::string contents = read_file(path);
  check_nonempty(contents, path);
  return contents;
}

// The constructors do not know the file: it goes before what they say.
template <class Kind, class Definition>
std::shared_ptr<Tokenizer> make(Definition definition, const fs::path& path) {
  try {
    return std::make_shared<Kind>(std::move(definition));
  } catch (const TokenizerError& error) {
    throw TokenizerError(fmt::format("{}: {}", path.string(), error.what()));
  }
}

std::shared_ptr<Tokenizer> load_ranks(const fs::path& path, const std::string& contents, const TokenizerLoadOptions& options) {
  const std::string_view published = published_pattern(contents);
  ByteBpeDefinition definition;
  definition.pattern = !options.pattern.empty() ? options.pattern
                       : !published.empty()     ? std::string(published)
                                                : std::string(kNanochatPattern);
  definition.tokens = parse_tiktoken_ranks(contents, path.string());
  definition.specials = special_names(options.special, published.empty());
  try {
    definition.merges = merges_from_ranks(definition.tokens);
  } catch (const TokenizerError& error) {
    throw TokenizerError(fmt::format("{}: {}", path.string(), error.what()));
  }
  return make<ByteBpeTokenizer>(std::move(definition), path);
}

// A file that names its own split pattern takes no other.
void refuse_other_pattern(const fs::path& path, const ByteBpeDefinition& bpe, const TokenizerLoadOptions& options) {
  if (options.pattern.empty()) return;
  if (!bpe.steps.splits.empty()) {
    throw ConfigError(fmt::format("{} cuts text by {} steps of its own, so it takes no split pattern", path.string(),
                                  bpe.steps.splits.size()));
  }
  if (resolve_pattern(options.pattern) == resolve_pattern(bpe.pattern)) return;
  throw ConfigError(fmt::format("{} has a split pattern of its own, {} ({}), which is not \"{}\"", path.string(), bpe.pattern,
                                pattern_name(resolve_pattern(bpe.pattern)), options.pattern));
}

std::shared_ptr<Tokenizer> load_pickle(const fs::path& path, const std::string& contents, const TokenizerLoadOptions& options) {
  ByteBpeDefinition definition = parse_tokenizer_pickle(contents, path.string());
  refuse_other_pattern(path, definition, options);
  return make<ByteBpeTokenizer>(std::move(definition), path);
}

std::shared_ptr<Tokenizer> load_json(const fs::path& path, const std::string& contents, const TokenizerLoadOptions& options) {
  auto definition = parse_hf_json(contents, path.string());
  if (auto* sentencepiece = std::get_if<SentencePieceDefinition>(&definition)) {
    return make<SentencePieceTokenizer>(std::move(*sentencepiece), path);
  }
  auto& bpe = std::get<ByteBpeDefinition>(definition);
  refuse_other_pattern(path, bpe, options);
  return make<ByteBpeTokenizer>(std::move(bpe), path);
}

std::shared_ptr<Tokenizer> load_model(const fs::path& path, std::string contents, std::vector<std::string> specials) {
  const SentencePieceModel model = parse_sentencepiece_model(contents, path.string());
  return make<SentencePieceTokenizer>(define_sentencepiece(model, std::move(contents), std::move(specials), path.string()),
                                      path);
}

std::shared_ptr<Tokenizer> load_pair(const fs::path& model_path, const fs::path& json_path,
                                     const TokenizerLoadOptions& options) {
  const auto described = load_json(json_path, read_nonempty(json_path), options);
  const auto loaded = load_model(model_path, read_nonempty(model_path), described->special_tokens());
  if (loaded->vocab_size() != described->vocab_size()) {
    throw TokenizerError(
        fmt::format("{} has {} tokens with its special tokens, but {} beside it has {}; they must be of "
                    "one tokenizer",
                    model_path.string(), loaded->vocab_size(), json_path.string(), described->vocab_size()));
  }
  for (TokenId id = 0; id < loaded->vocab_size(); ++id) {
    if (loaded->token_bytes(id) != described->token_bytes(id)) {
      throw TokenizerError(fmt::format("{} and {} beside it differ at token {}; they must be of one tokenizer",
                                       model_path.string(), json_path.string(), id));
    }
  }
  return loaded;
}

std::shared_ptr<Tokenizer> parse(std::string contents, const fs::path& name, const TokenizerLoadOptions& options) {
  check_nonempty(contents, name);
  const std::string extension = name.extension().string();
  const std::size_t first = contents.find_first_not_of(" \t\r\n");
  // A protobuf message that begins with its first field, the pieces, begins with this byte.
  constexpr char kFirstPieceTag = 0x0A;
  constexpr char kPickleProtocol = '\x80';  // of every pickle since protocol 2
  if (extension == ".json" || (extension != ".model" && first != std::string::npos && contents[first] == '{')) {
    return load_json(name, contents, options);
  }
  if (extension == ".model" || (extension != ".tiktoken" && contents[0] == kFirstPieceTag)) {
    return load_model(name, std::move(contents), special_names(options.special, true));
  }
  if (extension == ".pkl" || (extension != ".tiktoken" && contents[0] == kPickleProtocol)) {
    return load_pickle(name, contents, options);
  }
  return load_ranks(name, contents, options);
}

std::shared_ptr<Tokenizer> parse_on_one_line(std::string contents, const fs::path& name, const TokenizerLoadOptions& options) {
  try {
    return parse(std::move(contents), name, options);
  } catch (const TokenizerError& error) {
    throw TokenizerError(on_one_line(error.what()));
  }
}

std::shared_ptr<Tokenizer> load_file(const fs::path& path, const TokenizerLoadOptions& options) {
  return parse_on_one_line(read_file(path), path, options);
}

std::shared_ptr<Tokenizer> load_folder(const fs::path& folder, const TokenizerLoadOptions& options) {
  const fs::path json = folder / "tokenizer.json", model = folder / "tokenizer.model";
  if (fs::exists(model) && fs::exists(json)) return load_pair(model, json, options);
  if (fs::exists(json)) return load_file(json, options);
  if (fs::exists(model)) return load_file(model, options);
  if (const fs::path pickle = folder / "tokenizer.pkl"; fs::exists(pickle)) return load_file(pickle, options);
  std::vector<fs::path> rank_files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".tiktoken") rank_files.push_back(entry.path());
  }
  if (rank_files.size() == 1) return load_file(rank_files[0], options);
  throw TokenizerError(fmt::format("{} holds no tokenizer.json, tokenizer.model or tokenizer.pkl{}", folder.string(),
                                   rank_files.empty() ? "" : " and more than one .tiktoken file; name one of them"));
}

// "bos_token" of the tokenizer_config.json beside the tokenizer: a name, or an object that has it as "content".
std::string configured_bos(const fs::path& path) {
  const fs::path config = (fs::is_directory(path) ? path : path.parent_path()) / "tokenizer_config.json";
  if (!fs::is_regular_file(config)) return {};
  const nlohmann::json object = parse_json_input(read_file(config), config.string());
  const auto bos = object.is_object() ? object.find("bos_token") : object.end();
  if (bos == object.end()) return {};
  if (bos->is_object()) {
    const auto content = bos->find("content");
    return content != bos->end() && content->is_string() ? content->get<std::string>() : std::string();
  }
  return bos->is_string() ? bos->get<std::string>() : std::string();
}

void choose_bos(Tokenizer& tokenizer, const fs::path& path, const TokenizerLoadOptions& options) {
  if (!options.bos_token.empty()) {
    try {
      tokenizer.set_bos_token(options.bos_token);
    } catch (const TokenizerError& error) {
      throw TokenizerError(fmt::format("{}: --bos-token: {}", path.string(), error.what()));
    }
    return;
  }
  const std::string name = configured_bos(path);
  if (!name.empty() && tokenizer.special_id(name)) tokenizer.set_bos_token(name);
}

}  // namespace

std::shared_ptr<const Tokenizer> load_tokenizer(const fs::path& path, const TokenizerLoadOptions& options) {
  special_names(options.special, true);  // a wrong option is an error for every kind of file
  if (!fs::exists(path)) {
    throw TokenizerError(
        fmt::format("{}: no such file or folder; expected a folder with tokenizer.json, a tokenizer.json, "
                    "a tokenizer.model, a tokenizer.pkl or a .tiktoken file",
                    path.string()));
  }
  const std::shared_ptr<Tokenizer> tokenizer = fs::is_directory(path) ? load_folder(path, options) : load_file(path, options);
  choose_bos(*tokenizer, path, options);
  return tokenizer;
}

std::shared_ptr<const Tokenizer> parse_tokenizer(std::string contents, const fs::path& name,
                                                 const TokenizerLoadOptions& options) {
  const std::shared_ptr<Tokenizer> tokenizer = parse_on_one_line(std::move(contents), name, options);
  if (!options.bos_token.empty()) tokenizer->set_bos_token(options.bos_token);
  return tokenizer;
}

}  // namespace nanochat
