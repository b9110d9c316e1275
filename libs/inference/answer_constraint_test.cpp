#include "inference/answer_constraint.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "core/random.h"
#include "inference/engine.h"
#include "inference/testing_engine.h"
#include "inference/testing_vocabulary.h"
#include "model/gpt.h"
#include "model/testing.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Json = nlohmann::ordered_json;

// Every byte, and pieces that cross the borders of JSON's own parts.
std::vector<std::string> vocabulary() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (const char* piece : {"{\"",       "\":",   "\": ",  "\", \"", "\"}",   "\"]",     "}}",      "]}",       "[]",
                            "{}",        "[[",    "[{",    "},{",    "true",  "false",   "null",    "tru",      "10",
                            "2.5",       "-1",    "e5",    "\\n",    "\\u00", "\\ud83d", "name",    "\"name\"", "age",
                            "\"age\": ", "ab",    "abc",   " the",   "the ",  "  ",      "\n  ",    "\xc3\xa9", "\xf0\x9f",
                            "\x98\x80",  "value", "items", "red",    "green", "blue",    "\"a\":1", ",\"b\":",  "\"kind\""}) {
    tokens.emplace_back(piece);
  }
  tokens.emplace_back();  // a special token
  return tokens;
}

const std::vector<std::string>& schemas() {
  static const std::vector<std::string> all = {
      R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"}},"required":["name","age"]})",
      R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"}},"required":[]})",
      R"({"type":"array","items":{"type":"number"}})",
      R"({"type":"array","items":{"type":"string","maxLength":5},"minItems":2,"maxItems":4})",
      R"({"enum":["red","green","blue"]})",
      R"({"type":"object","properties":{"color":{"enum":["red",null,3]},"on":{"type":"boolean"}},"required":["color","on"]})",
      R"({"type":"integer","minimum":-40,"maximum":1234})",
      R"({"type":"number"})",
      R"({"type":"string","minLength":3,"maxLength":12})",
      R"({"type":["string","null"]})",
      R"({"type":"boolean"})",
      R"({"const":{"kind":"x","items":[1,2]}})",
      R"({"anyOf":[{"type":"integer"},{"type":"object","properties":{"value":{"type":"string"}},"required":["value"]},{"type":"null"}]})",
      R"({"type":"object","properties":{"a":{"type":"object","properties":{"b":{"type":"object","properties":{"c":{"type":"array","items":{"type":"boolean"}}},"required":["c"]}},"required":["b"]}},"required":["a"]})",
      R"({"$ref":"#/$defs/tree","$defs":{"tree":{"type":"object","properties":{"value":{"type":"integer"},"items":{"type":"array","items":{"$ref":"#/$defs/tree"}}},"required":["value"]}}})",
      R"({"type":"object","additionalProperties":{"type":"array","items":{"type":"null"}}})",
      R"({"type":"object"})",
      R"({"type":"array","items":{"anyOf":[{"type":"string"},{"type":"array","items":{"type":"integer"}}]},"minItems":1})",
      R"({"type":"object","properties":{"x y":{"type":"number"},"\"q\"":{"type":"string"},"é":{"type":"null"}},"required":["é"]})",
      R"({})",
  };
  return all;
}

// Whether a value fits, for the keywords of the schemas above; written apart from the grammar.
bool fits(const Json& value, const Json& schema, const Json& root) {
  if (schema.contains("$ref")) return fits(value, root[Json::json_pointer(schema["$ref"].get<std::string>().substr(1))], root);
  if (schema.contains("const")) return Json::parse(schema["const"].dump()) == value;
  if (schema.contains("enum")) return std::find(schema["enum"].begin(), schema["enum"].end(), value) != schema["enum"].end();
  if (schema.contains("anyOf")) {
    return std::any_of(schema["anyOf"].begin(), schema["anyOf"].end(), [&](const Json& one) { return fits(value, one, root); });
  }
  if (schema.contains("type")) {
    const Json types = schema["type"].is_array() ? schema["type"] : Json::array({schema["type"]});
    const bool typed = std::any_of(types.begin(), types.end(), [&](const Json& type) {
      return (type == "object" && value.is_object()) || (type == "array" && value.is_array()) ||
             (type == "string" && value.is_string()) || (type == "integer" && value.is_number_integer()) ||
             (type == "number" && value.is_number()) || (type == "boolean" && value.is_boolean()) ||
             (type == "null" && value.is_null());
    });
    if (!typed) return false;
  }
  if (value.is_string()) {
    std::int64_t length = 0;
    for (const char c : value.get<std::string>()) length += (static_cast<unsigned char>(c) & 0xc0U) != 0x80U;
    return length >= schema.value("minLength", std::int64_t{0}) && length <= schema.value("maxLength", std::int64_t{1} << 40);
  }
  if (value.is_number_integer()) {
    return value.get<std::int64_t>() >= schema.value("minimum", -(std::int64_t{1} << 60)) &&
           value.get<std::int64_t>() <= schema.value("maximum", std::int64_t{1} << 60);
  }
  if (value.is_array()) {
    const auto size = static_cast<std::int64_t>(value.size());
    if (size < schema.value("minItems", std::int64_t{0}) || size > schema.value("maxItems", std::int64_t{1} << 40))
      return false;
    return !schema.contains("items") ||
           std::all_of(value.begin(), value.end(), [&](const Json& item) { return fits(item, schema["items"], root); });
  }
  if (!value.is_object()) return true;
  for (const Json& name : schema.value("required", Json::array())) {
    if (!value.contains(name.get<std::string>())) return false;
  }
  for (const auto& [name, item] : value.items()) {
    if (schema.contains("properties")) {
      if (!schema["properties"].contains(name) || !fits(item, schema["properties"][name], root)) return false;
    } else if (schema.contains("additionalProperties") && !fits(item, schema["additionalProperties"], root)) {
      return false;
    }
  }
  return true;
}

std::unique_ptr<Gpt> random_gpt(std::int64_t vocab) {
  at::set_num_threads(1);  // products this small do not gain by more
  GptConfig config;
  config.n_layer = 1;
  config.n_head = config.n_kv_head = 2;
  config.n_embd = 32;
  config.intermediate_size = 32;
  config.vocab_size = vocab;
  config.sequence_len = 256;
  return std::make_unique<Gpt>(testing::random_model(config, at::kFloat, 5));
}

TEST(AnswerConstraint, AThousandAnswersOfARandomModelParseAndFit) {
  const std::vector<std::string> tokens = vocabulary();
  const auto trie = testing::trie_of(tokens);
  const auto stop = static_cast<std::int32_t>(tokens.size() - 1);
  EngineOptions options;
  options.max_running = 10;
  Engine engine(random_gpt(static_cast<std::int64_t>(tokens.size())), options);
  engine.start();
  Rng rng(3);
  int answers = 0, at_the_limit = 0, by_stop_token = 0;
  ASSERT_EQ(schemas().size(), 20U);
  for (const std::string& text : schemas()) {
    const Json schema = Json::parse(text);
    for (int batch = 0; batch < 5; ++batch) {
      EngineRequest request;
      request.prompt = {static_cast<std::int32_t>(rng.below(256)), static_cast<std::int32_t>(rng.below(256))};
      request.sampling.temperature = 1.0;
      request.sampling.seed = rng.next();
      request.stop_tokens = {stop};
      request.n = 10;
      request.constraint = answer_constraint(AnswerForm::kJsonSchema, schema, trie);
      // From hardly enough to plenty.
      request.max_tokens = request.constraint->closing_length() + static_cast<std::int64_t>(rng.below(batch < 3 ? 12 : 150));
      testing::Receiver receiver(10);
      request.on_event = receiver.callback();
      const std::int64_t limit = *request.max_tokens;
      ASSERT_TRUE(engine.submit(std::move(request)));
      for (const auto& sequence : receiver.wait().sequences) {
        std::string answer;
        for (const std::int32_t id : sequence.ids) answer += tokens[static_cast<std::size_t>(id)];
        ASSERT_TRUE(Json::accept(answer)) << text << "\n" << answer;
        ASSERT_TRUE(fits(Json::parse(answer), schema, schema)) << text << "\n" << answer;
        ASSERT_EQ(sequence.reason, FinishReason::kStop);
        ++answers;
        at_the_limit += static_cast<std::int64_t>(sequence.ids.size()) == limit;
        by_stop_token += sequence.stop_token == stop;
      }
    }
  }
  EXPECT_EQ(answers, 1000);
  EXPECT_GT(at_the_limit, 100);  // the promise to end in time was put to the test
  EXPECT_GT(by_stop_token, 0);
}

TEST(AnswerConstraint, AnyObjectClosesInTime) {
  const std::vector<std::string> tokens = vocabulary();
  const auto trie = testing::trie_of(tokens);
  Rng rng(9);
  for (int i = 0; i < 300; ++i) {
    const auto constraint = answer_constraint(AnswerForm::kJsonObject, nullptr, trie);
    std::string answer;
    for (std::int64_t room = 1 + static_cast<std::int64_t>(rng.below(60)); room > 0 && !constraint->must_end(); --room) {
      ASSERT_LE(constraint->closing_length(), room);
      const auto allowed = constraint->allowed(room);
      const std::vector<std::int32_t> choices = testing::allowed_ids(allowed, tokens.size());
      ASSERT_FALSE(choices.empty()) << answer;
      const std::int32_t token = rng.choose(choices);
      constraint->accept(token);
      answer += tokens[static_cast<std::size_t>(token)];
    }
    EXPECT_TRUE(constraint->may_end());
    EXPECT_TRUE(Json::accept(answer) && Json::parse(answer).is_object()) << answer;
  }
}

TEST(AnswerConstraint, KnowsTheShortestAnswerInTokens) {
  const auto trie = testing::trie_of(vocabulary());
  EXPECT_EQ(answer_constraint(AnswerForm::kJsonObject, nullptr, trie)->closing_length(), 1);  // "{}" is one token
  EXPECT_EQ(answer_constraint(AnswerForm::kJsonSchema, Json::parse(R"({"enum":["red","green"]})"), trie)->closing_length(),
            3);  // " red "
  EXPECT_EQ(answer_constraint(AnswerForm::kJsonSchema, Json::parse(R"({"type":"boolean"})"), trie)->closing_length(), 1);
  const auto person = answer_constraint(AnswerForm::kJsonSchema, Json::parse(schemas()[0]), trie);
  EXPECT_EQ(person->closing_length(), 11);  // {" name ": " " , " age ": 0 }
  EXPECT_FALSE(person->may_end());
}

TEST(AnswerConstraint, ALimitBelowTheShortestAnswerIsRefused) {
  const std::vector<std::string> tokens = vocabulary();
  Engine engine(random_gpt(static_cast<std::int64_t>(tokens.size())), EngineOptions());
  const auto submit = [&](std::int64_t max_tokens, std::int64_t prompt_tokens = 1) {
    EngineRequest request;
    request.prompt.assign(static_cast<std::size_t>(prompt_tokens), 1);
    request.max_tokens = max_tokens;
    request.constraint = answer_constraint(AnswerForm::kJsonSchema, Json::parse(R"({"enum":["red","green"]})"),
                                           testing::trie_of(tokens));
    return engine.submit(std::move(request));
  };
  EXPECT_THAT([&] { submit(2); }, ThrowsMessage<ConfigError>(HasSubstr(
                                      "max_tokens is 2, but the shortest answer that fits the format takes 3 tokens")));
  EXPECT_THAT([&] { submit(100, engine.context_length() - 2); },
              ThrowsMessage<ConfigError>(HasSubstr("the number of tokens that fit after the prompt is 2, but the shortest")));
  EXPECT_TRUE(submit(3));
}

TEST(AnswerConstraint, ClonesGoTheirOwnWays) {
  const auto trie = testing::trie_of(vocabulary());
  const auto first = answer_constraint(AnswerForm::kJsonSchema, Json::parse(R"({"type":["boolean","null"]})"), trie);
  const auto second = first->clone();
  first->accept('t');
  EXPECT_EQ(first->closing_length(), 3);
  EXPECT_EQ(second->closing_length(), 1);
}

TEST(AnswerConstraint, RefusesWhatTheVocabularyCannotSpell) {
  const std::vector<std::string> tokens = {"a", "b", "\""};
  EXPECT_NO_THROW(answer_constraint(AnswerForm::kJsonSchema, Json::parse(R"({"type":"string"})"), testing::trie_of(tokens)));
  EXPECT_THAT([&] { answer_constraint(AnswerForm::kJsonObject, nullptr, testing::trie_of(tokens)); },
              ThrowsMessage<ConfigError>(HasSubstr("cannot spell")));
}

TEST(AnswerConstraint, RefusesWhatTakesTooLongToWrite) {
  const auto trie = testing::trie_of(vocabulary());
  const auto constraint = [&](const char* schema) {
    return answer_constraint(AnswerForm::kJsonSchema, Json::parse(schema), trie);
  };
  EXPECT_THAT(
      [&] {
        constraint(R"({"type":"array","minItems":4096,"items":{"type":"array","minItems":4096,"items":{"type":"null"}}})");
      },
      ThrowsMessage<ConfigError>(
          HasSubstr("the shortest value that fits it has 83,894,273 bytes; at most 32,768 are supported")));
  // What is only possible and not needed costs nothing.
  const auto possible = constraint(
      R"({"anyOf":[{"type":"array","minItems":4096,"items":{"type":"array","minItems":4096}},{"type":"null"}]})");
  EXPECT_EQ(possible->closing_length(), 1);
  EXPECT_GT(std::popcount(possible->allowed(100)[0]) + std::popcount(possible->allowed(100)[1]), 0);
}

TEST(AnswerConstraint, WritesOtherForms) {
  const auto trie = testing::trie_of(vocabulary());
  const auto spelled = [&](AnswerForm form, const Json& value, std::string_view text) {
    const auto constraint = answer_constraint(form, value, trie);
    for (const char c : text) {
      const auto byte = static_cast<std::size_t>(static_cast<unsigned char>(c));
      if ((constraint->allowed(100)[byte / 64] >> (byte % 64) & 1U) == 0) return false;
      constraint->accept(static_cast<std::int32_t>(byte));
    }
    return constraint->may_end();
  };
  EXPECT_TRUE(spelled(AnswerForm::kRegex, "a+b", "aab"));
  EXPECT_FALSE(spelled(AnswerForm::kRegex, "a+b", "aa"));
  EXPECT_TRUE(spelled(AnswerForm::kChoice, {"no", "no way"}, "no way"));
  EXPECT_FALSE(spelled(AnswerForm::kChoice, {"no", "no way"}, "now"));
  EXPECT_TRUE(spelled(AnswerForm::kGrammar, "root ::= \"(\" root \")\" | \"x\"", "((x))"));
  EXPECT_TRUE(spelled(AnswerForm::kJsonObject, nullptr, "{}"));
  EXPECT_THAT([&] { answer_constraint(AnswerForm::kRegex, "a^b", trie); },
              ThrowsMessage<ConfigError>(HasSubstr("regular expression: no finite value fits it")));
}

// A schema that came before is not compiled again: the second request has its tables, and a state of its own.
TEST(AnswerConstraint, TheCacheKeepsTables) {
  std::vector<std::string> tokens = vocabulary();
  for (int i = 0; i < 3000; ++i) tokens.push_back("word" + std::to_string(i));  // masks of many tokens are kept
  ConstraintCache cache(testing::trie_of(tokens));
  const Json schema = Json::parse(R"({"type":"string"})");
  const auto after_quote = [&] {
    auto constraint = cache.make(AnswerForm::kJsonSchema, schema);
    constraint->accept('"');
    return constraint;
  };
  const auto first = after_quote();
  const auto allowed = first->allowed(100);
  const auto second = after_quote();
  EXPECT_EQ(second->allowed(100).data(), allowed.data());
  second->accept('"');
  EXPECT_TRUE(second->must_end());
  EXPECT_FALSE(first->may_end());
  for (int i = 0; i < 20; ++i) cache.make(AnswerForm::kChoice, {std::to_string(i)});  // more than it keeps
  EXPECT_NE(after_quote()->allowed(100).data(), allowed.data());
  EXPECT_EQ(first->allowed(100).data(), allowed.data());  // tables in use stay
  EXPECT_THROW(cache.make(AnswerForm::kGrammar, "root ::= other"), ConfigError);
}

// Sequences of several threads may share tables.
TEST(AnswerConstraint, ThreadsShareTables) {
  const std::vector<std::string> tokens = vocabulary();
  ConstraintCache cache(testing::trie_of(tokens));
  std::vector<std::thread> threads;
  std::atomic<int> answers = 0;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      Rng rng(seed);
      for (int i = 0; i < 50; ++i) {
        const auto constraint = cache.make(AnswerForm::kJsonSchema, Json::parse(schemas()[static_cast<std::size_t>(i) % 5]));
        std::string answer;
        for (std::int64_t room = 60; room > 0 && !constraint->must_end(); --room) {
          const auto allowed = constraint->allowed(room);
          std::vector<std::int32_t> choices;
          for (std::size_t id = 0; id < tokens.size(); ++id) {
            if ((allowed[id / 64] >> (id % 64) & 1U) != 0) choices.push_back(static_cast<std::int32_t>(id));
          }
          const std::int32_t token = rng.choose(choices);
          constraint->accept(token);
          answer += tokens[static_cast<std::size_t>(token)];
        }
        answers += constraint->may_end() && Json::accept(answer);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answers, 200);
}

// Random walks through schemas that read the same text in ever more ways: they end in time, and with JSON.
TEST(AnswerConstraint, ManyWaysToReadAnAnswerAreNoMatter) {
  const std::vector<std::string> tokens = vocabulary();
  const auto trie = testing::trie_of(tokens);
  Rng rng(4);
  for (
      const char* text :
      {R"({"$ref":"#/$defs/n","$defs":{"n":{"anyOf":[{"type":"array","items":{"$ref":"#/$defs/n"}},{"type":"array","items":{"$ref":"#/$defs/n"},"maxItems":9},{"type":"null"}]}}})",
       R"({"$ref":"#/$defs/n","$defs":{"n":{"anyOf":[{"type":"object","properties":{"a":{"$ref":"#/$defs/n"}}},{"type":"object","additionalProperties":{"$ref":"#/$defs/n"}}]}}})"}) {
    for (int walk = 0; walk < 5; ++walk) {
      const auto constraint = answer_constraint(AnswerForm::kJsonSchema, Json::parse(text), trie);
      std::string answer;
      for (std::int64_t room = 80; room > 0 && !constraint->must_end(); --room) {
        const auto allowed = constraint->allowed(room);
        std::vector<std::int32_t> choices;
        for (std::size_t id = 0; id < tokens.size(); ++id) {
          const bool opens = tokens[id].find_first_of("[{") != std::string::npos;  // as deep as it goes
          if ((allowed[id / 64] >> (id % 64) & 1U) != 0)
            choices.insert(choices.end(), opens ? 50 : 1, static_cast<std::int32_t>(id));
        }
        ASSERT_FALSE(choices.empty()) << answer;
        const std::int32_t token = rng.choose(choices);
        constraint->accept(token);
        answer += tokens[static_cast<std::size_t>(token)];
      }
      EXPECT_TRUE(constraint->may_end() && Json::accept(answer)) << answer;
    }
  }
}

}  // namespace
}  // namespace nanochat
