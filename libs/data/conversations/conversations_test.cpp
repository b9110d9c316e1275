#include "data/conversations/conversations.h"

#include <unistd.h>

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/testing.h"
#include "data/rows/testing_gzip.h"
#ifdef NANOCHAT_HAS_PARQUET
#include "data/rows/testing_parquet.h"
#endif
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::ThrowsMessage;
namespace fs = std::filesystem;

Conversation of(std::vector<Message> messages) { return {std::move(messages)}; }

std::string kind_of(const std::string& row) {
  try {
    parse_conversation(json::parse(row));
  } catch (const ConversationError& error) {
    return error.kind();
  }
  return "";
}

class Conversations : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) const {
    testing::write_text(folder_ / name, text);
    return (folder_ / name).string();
  }
  testing::TemporaryDirectory folder_;
};

constexpr const char* kMessages =
    R"({"id": 3, "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})";
constexpr const char* kArray = R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])";
constexpr const char* kShareGpt = R"({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]})";
constexpr const char* kAlpaca = R"({"instruction": "a", "input": "", "output": "b"})";

TEST_F(Conversations, OfEveryFormAreTheSame) {
  const Conversation expected = of({{"user", "a"}, {"assistant", "b"}});
  for (const char* row : {kMessages, kArray, kShareGpt, kAlpaca})
    EXPECT_EQ(parse_conversation(json::parse(row)), expected) << row;
  EXPECT_EQ(conversation_form(json::parse(kMessages)), ConversationForm::kMessages);
  EXPECT_EQ(conversation_form(json::parse(kArray)), ConversationForm::kArray);
  EXPECT_EQ(conversation_form(json::parse(kShareGpt)), ConversationForm::kShareGpt);
  EXPECT_EQ(conversation_form(json::parse(kAlpaca)), ConversationForm::kAlpaca);
  EXPECT_EQ(conversation_form(json::parse(R"({"text": "a"})")), std::nullopt);
  EXPECT_EQ(conversation_form(json::parse(R"({"prompt": "a"})")), std::nullopt);
  EXPECT_EQ(conversation_form(json::parse(R"({"prompt": "a", "completion": "b"})")), ConversationForm::kPromptCompletion);
  EXPECT_EQ(conversation_form(json::parse(R"({"question": "a", "answer": "b"})")), ConversationForm::kQuestionAnswer);
  EXPECT_STREQ(name_of(ConversationForm::kShareGpt), "conversations");
  EXPECT_EQ(conversation_form(json::parse(R"({"messages": null, "instruction": "a", "output": "b"})")),
            ConversationForm::kAlpaca);
}

TEST_F(Conversations, KeepSystemMessagesPartsAndHistory) {
  EXPECT_EQ(
      parse_conversation(json::parse(R"({"conversations": [{"from": "system", "value": "s"}, {"from": "user", "value": "a"},
                                               {"from": "assistant", "value": "b"}]})")),
      of({{"system", "s"}, {"user", "a"}, {"assistant", "b"}}));
  EXPECT_EQ(parse_conversation(
                json::parse(R"({"instruction": "a", "input": "i", "output": "b", "system": "s", "history": [["q", "r"]]})")),
            of({{"system", "s"}, {"user", "q"}, {"assistant", "r"}, {"user", "a\n\ni"}, {"assistant", "b"}}));
  const Conversation parts = parse_conversation(json::parse(R"([{"role": "user", "content": [{"type": "text", "text": "a"}]},
      {"role": "assistant", "content": [{"type": "python", "text": "1+1"}, {"type": "python_output", "text": "2"}, {"type": "text", "text": ""}]}])"));
  EXPECT_EQ(parts, of({{"user", "a"},
                       {"assistant", {{PartType::kPython, "1+1"}, {PartType::kPythonOutput, "2"}, {PartType::kText, ""}}}}));
}

TEST_F(Conversations, FaultsHaveAKind) {
  EXPECT_EQ(kind_of(R"({"text": "a"})"), "missing-text");
  EXPECT_EQ(kind_of(R"("text")"), "missing-text");
  EXPECT_EQ(kind_of(R"({"messages": "a"})"), "no-messages");
  EXPECT_EQ(kind_of(R"({"conversations": 3})"), "no-messages");
  EXPECT_EQ(kind_of(R"([])"), "no-messages");
  EXPECT_EQ(kind_of(R"([{"role": "system", "content": "a"}])"), "no-messages");
  EXPECT_EQ(kind_of(R"([{"role": "assistant", "content": "a"}])"), "wrong-role");
  EXPECT_EQ(kind_of(R"([{"content": "a"}])"), "wrong-role");
  EXPECT_EQ(kind_of(R"([{"role": "user", "content": "a"}, {"role": "user", "content": "a"}])"), "wrong-role");
  EXPECT_EQ(kind_of(R"({"conversations": [{"from": "human", "value": "a"}, {"from": "tool", "value": "a"}]})"), "wrong-role");
  EXPECT_EQ(kind_of(R"({"conversations": [{"from": "narrator", "value": "a"}]})"), "wrong-role");
  EXPECT_EQ(kind_of(R"([{"role": 3, "content": "a"}])"), "wrong-role");
  EXPECT_EQ(kind_of(R"([{"role": "tool", "content": "a"}])"), "wrong-role");
  EXPECT_EQ(kind_of(R"([{"role": "user", "content": "a"}, {"role": "developer", "content": "b"}])"), "wrong-role");
  EXPECT_EQ(
      kind_of(
          R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "assistant", "content": "c"}])"),
      "wrong-role");
  EXPECT_EQ(kind_of(R"([{"role": "user"}])"), "empty-content");
  EXPECT_EQ(kind_of(R"([{"role": "user", "content": null}])"), "empty-content");
  EXPECT_EQ(kind_of(R"([3])"), "wrong-content");
  EXPECT_EQ(kind_of(R"([{"role": "user", "content": 3}])"), "wrong-content");
  EXPECT_EQ(kind_of(R"({"instruction": 3, "output": "a"})"), "wrong-content");
  EXPECT_EQ(kind_of(R"({"instruction": "a", "output": "a", "history": [["q"]]})"), "wrong-content");
  EXPECT_EQ(kind_of(R"([{"role": "user", "content": [{"type": "image"}]}])"), "wrong-part");
  EXPECT_EQ(kind_of(R"([{"role": "user", "content": [{"type": "python", "text": "1"}]}])"), "wrong-part");
  EXPECT_EQ(kind_of(R"([{"role": "user", "content": [{"type": "text"}]}])"), "wrong-part");
  EXPECT_EQ(kind_of(R"([{"role": "user", "content": ""}])"), "");
  EXPECT_EQ(kind_of(R"({"system": ["s"], "messages": [{"role": "user", "content": "a"}]})"), "wrong-content");
  EXPECT_EQ(kind_of(R"({"question": "q", "answer": 3})"), "wrong-content");
  EXPECT_EQ(kind_of(R"({"prompt": "q", "chosen": "a", "rejected": "b"})"), "missing-text");
}

// The messages as to_json() writes them, without {"messages": ...}.
std::string rendered(const std::string& row) {
  return to_json(parse_conversation(nlohmann::ordered_json::parse(row)))["messages"].dump();
}

struct FormCase {
  const char *row, *messages;
};

void PrintTo(const FormCase& form, std::ostream* out) { *out << form.row; }

class EveryForm : public ::testing::TestWithParam<FormCase> {};

TEST_P(EveryForm, IsReadAsItsMessages) {
  EXPECT_EQ(rendered(GetParam().row), GetParam().messages);
  // From a file too, and the forms that are no arrays from a .json.
  const testing::TemporaryDirectory folder;
  for (const char* name : {"a.jsonl", "a.json"}) {
    std::string line = GetParam().row;
    std::erase(line, '\n');
    testing::write_text(folder / name, line);
    const auto read = read_conversations({(folder / name).string()});
    ASSERT_EQ(read.size(), 1U) << name;
    EXPECT_EQ(to_json(read[0])["messages"].dump(), GetParam().messages) << name;
  }
}

#define USER_ASSISTANT R"([{"role":"user","content":"hi"},{"role":"assistant","content":"hello"}])"

INSTANTIATE_TEST_SUITE_P(
    Lists, EveryForm,
    ::testing::Values(
        FormCase{R"({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]})",
                 USER_ASSISTANT},
        FormCase{R"([{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}])", USER_ASSISTANT},
        FormCase{R"({"messages": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]})", USER_ASSISTANT},
        FormCase{R"({"conversations": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]})",
                 USER_ASSISTANT},
        FormCase{R"({"conversation": [{"role": "user", "content": "hi"}, {"role": "model", "content": "hello"}]})",
                 USER_ASSISTANT},
        FormCase{R"({"conversations": [{"from": "user", "value": "hi"}, {"from": "chatgpt", "value": "hello"}]})",
                 USER_ASSISTANT},
        FormCase{R"({"conversations": [{"from": "Human", "value": "hi"}, {"from": "Assistant", "value": "hello"}]})",
                 USER_ASSISTANT},
        FormCase{
            R"({"messages": [{"role": "user", "from": null, "content": "hi", "value": null}, {"role": "bing", "content": "hello"}]})",
            USER_ASSISTANT}));

INSTANTIATE_TEST_SUITE_P(
    Pairs, EveryForm,
    ::testing::Values(
        FormCase{R"({"prompt": "The sky is", "completion": " blue."})",
                 R"([{"role":"user","content":"The sky is"},{"role":"assistant","content":" blue."}])"},
        FormCase{
            R"({"prompt": [{"role": "user", "content": "hi"}], "completion": [{"role": "assistant", "content": "hello"}], "label": true})",
            USER_ASSISTANT},
        FormCase{
            R"({"system": "s", "prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
                     "completion": [{"role": "assistant", "content": "d"}]})",
            R"([{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"b","weight":0},)"
            R"({"role":"user","content":"c"},{"role":"assistant","content":"d"}])"},
        FormCase{R"({"prompt": "hi", "response": "hello"})", USER_ASSISTANT},
        FormCase{R"({"question": "hi", "answer": "hello"})", USER_ASSISTANT},
        FormCase{R"({"system_prompt": "s", "question": "hi", "response": "hello"})",
                 R"([{"role":"system","content":"s"},{"role":"user","content":"hi"},{"role":"assistant","content":"hello"}])"},
        FormCase{
            R"({"query": "hi", "response": "hello", "history": [["a", "b"]]})",
            R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"hi"},{"role":"assistant","content":"hello"}])"},
        FormCase{R"({"input": "hi", "output": "hello"})", USER_ASSISTANT},
        FormCase{R"({"instruction": "hi", "input": null, "output": "hello"})", USER_ASSISTANT},
        FormCase{R"({"instruction": "hi", "context": "there", "response": "hello"})",
                 R"([{"role":"user","content":"hi\n\nthere"},{"role":"assistant","content":"hello"}])"}));

INSTANTIATE_TEST_SUITE_P(
    SystemMessages, EveryForm,
    ::testing::Values(
        FormCase{
            R"({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "Arr!"}], "system": "You are a pirate.", "tools": ""})",
            R"([{"role":"system","content":"You are a pirate."},{"role":"user","content":"hi"},{"role":"assistant","content":"Arr!"}])"},
        FormCase{
            R"({"system": "s", "messages": [{"role": "developer", "content": "d"}, {"role": "system", "content": "t"},
                     {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]})",
            R"([{"role":"system","content":"s\n\nd\n\nt"},{"role":"user","content":"hi"},{"role":"assistant","content":"hello"}])"},
        FormCase{
            R"({"system": "s", "conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]})",
            R"([{"role":"system","content":"s"},{"role":"user","content":"hi"},{"role":"assistant","content":"hello"}])"},
        FormCase{
            R"({"messages": [{"role": "developer", "content": "Be brief"}, {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]})",
            R"([{"role":"system","content":"Be brief"},{"role":"user","content":"hi"},{"role":"assistant","content":"hello"}])"}));

INSTANTIATE_TEST_SUITE_P(
    Functions, EveryForm,
    ::testing::Values(
        FormCase{
            R"({"conversations": [{"from": "human", "value": "area?"}, {"from": "function_call", "value": "{\"name\": \"area\", \"arguments\": {\"w\": 5, \"h\": 3}}"},
                     {"from": "observation", "value": "{\"area\": 15}"}, {"from": "gpt", "value": "15"}], "tools": "[]"})",
            R"([{"role":"user","content":"area?"},{"role":"assistant","content":"{\"name\":\"area\",\"arguments\":{\"w\":5,\"h\":3}}"},)"
            R"({"role":"user","content":"Result of area:\n{\"area\": 15}"},{"role":"assistant","content":"15"}])"},
        FormCase{
            R"({"messages": [{"role": "user", "content": "weather?"},
                     {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "w", "arguments": "{\"city\":\"Paris\"}"}}]},
                     {"role": "tool", "tool_call_id": "c1", "content": "sunny"}, {"role": "assistant", "content": "It is sunny."}], "tools": []})",
            R"([{"role":"user","content":"weather?"},{"role":"assistant","content":"{\"name\":\"w\",\"arguments\":{\"city\":\"Paris\"}}"},)"
            R"({"role":"user","content":"Result of w:\nsunny"},{"role":"assistant","content":"It is sunny."}])"},
        // Two calls at once, arguments as an object, functions on offer with their keys in order.
        FormCase{
            R"({"messages": [{"role": "user", "content": "?"},
                     {"role": "assistant", "content": "See.", "tool_calls": [{"function": {"name": "f", "arguments": {"b": 1, "a": 2}}}, {"name": "g"}]},
                     {"role": "tool", "content": "1"}, {"role": "tool", "name": "g", "content": [{"type": "text", "text": "2"}]},
                     {"role": "user", "content": "so?"}, {"role": "assistant", "content": "3"}],
                     "tools": [{"type": "function", "function": {"name": "f", "description": "d"}}, {"name": "g", "b": 1, "a": 2}]})",
            R"([{"role":"system","content":"These functions can be called, each described by a line of JSON:\n{\"name\":\"f\",\"description\":\"d\"}\n{\"name\":\"g\",\"b\":1,\"a\":2}"},)"
            R"({"role":"user","content":"?"},{"role":"assistant","content":"See.\n\n{\"name\":\"f\",\"arguments\":{\"b\":1,\"a\":2}}\n{\"name\":\"g\",\"arguments\":{}}"},)"
            R"({"role":"user","content":"Result of f:\n1\n\nResult of g:\n2\n\nso?"},{"role":"assistant","content":"3"}])"},
        // The model's own calculator, as the server's answers list it.
        FormCase{
            R"([{"role": "user", "content": "?"}, {"role": "assistant", "content": "é=5.", "nanochat_calculations": [{"expression": "2+3", "result": "5", "offset": 2}]}])",
            R"([{"role":"user","content":"?"},{"role":"assistant","content":[{"type":"text","text":"é="},{"type":"python","text":"2+3"},)"
            R"({"type":"python_output","text":"5"},{"type":"text","text":"5."}]}])"},
        // The API before tools, and calls as separate messages.
        FormCase{
            R"({"functions": [{"name": "f"}], "messages": [{"role": "user", "content": "?"},
                     {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}},
                     {"role": "function", "name": "f", "content": "1"}, {"role": "assistant", "content": "2"}]})",
            R"([{"role":"system","content":"These functions can be called, each described by a line of JSON:\n{\"name\":\"f\"}"},)"
            R"({"role":"user","content":"?"},{"role":"assistant","content":"{\"name\":\"f\",\"arguments\":{}}"},)"
            R"({"role":"user","content":"Result of f:\n1"},{"role":"assistant","content":"2"}])"},
        FormCase{
            R"({"tools": "[{\"name\": \"f\"}]", "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "See."},
                     {"role": "tool_call", "content": "[{\"name\": \"f\", \"arguments\": \"{}\"}]"}, {"role": "tool_response", "content": "1"},
                     {"role": "assistant", "content": "2"}]})",
            R"([{"role":"system","content":"These functions can be called, each described by a line of JSON:\n{\"name\":\"f\"}"},)"
            R"({"role":"user","content":"?"},{"role":"assistant","content":"See.\n\n{\"name\":\"f\",\"arguments\":{}}"},)"
            R"({"role":"user","content":"Result of f:\n1"},{"role":"assistant","content":"2"}])"}));

#define WEIGHT_ZERO                                                                                    \
  R"([{"role":"user","content":"q1"},{"role":"assistant","content":"BAD","weight":0},{"role":"user",)" \
  R"("content":"q2"},{"role":"assistant","content":"GOOD"}])"

INSTANTIATE_TEST_SUITE_P(
    Weights, EveryForm,
    ::testing::Values(
        FormCase{
            R"({"messages": [{"role": "user", "content": "q1"}, {"role": "assistant", "content": "BAD", "weight": 0}, {"role": "user", "content": "q2"},
                     {"role": "assistant", "content": "GOOD", "weight": 1}]})",
            WEIGHT_ZERO},
        FormCase{
            R"({"conversations": [{"from": "human", "value": "q1"}, {"from": "gpt", "value": "BAD", "train": false, "loss_scale": 1}, {"from": "human", "value": "q2"},
                     {"from": "gpt", "value": "GOOD", "train": true, "weight": null}]})",
            WEIGHT_ZERO},
        FormCase{
            R"([{"role": "user", "content": "q1"}, {"role": "assistant", "content": "BAD", "loss": false}, {"role": "user", "content": "q2", "weight": 1},
                     {"role": "assistant", "content": "GOOD", "training": 1.0}])",
            WEIGHT_ZERO},
        FormCase{R"({"train": false, "question": "hi", "answer": "hello"})",
                 R"([{"role":"user","content":"hi","weight":0},{"role":"assistant","content":"hello","weight":0}])"}));

TEST_F(Conversations, CallsAndFunctionsThatAreNoneAreRefused) {
  const auto with = [](const std::string& message, const std::string& row = "") {
    return R"({"messages": [{"role": "user", "content": "?"}, )" + message + "]" + row + "}";
  };
  EXPECT_EQ(kind_of(with(R"({"role": "function_call", "content": "area of 5"})")), "wrong-call");
  EXPECT_EQ(kind_of(with(R"({"role": "function_call", "content": "[]"})")), "wrong-call");
  EXPECT_EQ(kind_of(with(R"({"role": "function_call"})")), "empty-content");
  EXPECT_EQ(kind_of(with(R"({"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]})")), "wrong-call");
  EXPECT_EQ(kind_of(with(R"({"role": "assistant", "tool_calls": {"function": {"name": "f"}}})")), "wrong-call");
  EXPECT_EQ(kind_of(with(R"({"role": "assistant", "tool_calls": [{"type": "custom", "custom": {"name": "f"}}]})")),
            "wrong-call");
  EXPECT_EQ(kind_of(with(R"({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": [1]}}]})")),
            "wrong-call");
  EXPECT_EQ(kind_of(with(R"({"role": "assistant", "content": null, "tool_calls": []})")), "empty-content");
  for (const char* calculations :
       {R"(3)", R"([3])", R"([{"expression": "1", "result": "1"}])", R"([{"expression": "1", "result": "1", "offset": 2}])",
        R"([{"expression": "1", "result": "1", "offset": 1}, {"expression": "1", "result": "1", "offset": 0}])"}) {
    EXPECT_EQ(
        kind_of(with(R"({"role": "assistant", "content": "a", "nanochat_calculations": )" + std::string(calculations) + "}")),
        "wrong-call");
  }
  const std::string good = R"({"role": "assistant", "content": "a"})";
  EXPECT_EQ(kind_of(with(good, R"(, "tools": "search")")), "wrong-call");
  EXPECT_EQ(kind_of(with(good, R"(, "tools": {"name": "f"})")), "wrong-call");
  EXPECT_EQ(kind_of(with(good, R"(, "tools": [{"type": "function"}])")), "wrong-call");
  EXPECT_EQ(kind_of(with(good, R"(, "tools": [])")), "");
}

TEST_F(Conversations, WhatChangesTheMeaningIsRefusedByName) {
  const auto of_message = [](const std::string& key) {
    return R"([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", )" + key + "}]";
  };
  EXPECT_EQ(kind_of(of_message(R"("weight": 0.5)")), "wrong-weight");
  EXPECT_EQ(kind_of(of_message(R"("weight": "0")")), "wrong-weight");
  EXPECT_EQ(kind_of(of_message(R"("train": "no")")), "wrong-weight");
  EXPECT_EQ(kind_of(of_message(R"("train_detail": [{"begin_offset": 0}])")), "unsupported-key");
  EXPECT_EQ(kind_of(of_message(R"("images": ["a.png"])")), "unsupported-key");
  EXPECT_EQ(kind_of(of_message(R"("images": [], "mask": null)")), "");
  EXPECT_EQ(kind_of(R"({"image": "a.png", "conversations": [{"from": "human", "value": "?"}]})"), "unsupported-key");
  EXPECT_EQ(kind_of(R"({"weight": 0.5, "question": "q", "answer": "a"})"), "wrong-weight");
  EXPECT_EQ(kind_of(R"({"prompt": "q", "completion": "a", "label": false})"), "unsupported-key");
  EXPECT_EQ(
      kind_of(
          R"([{"role": "user", "content": "q"}, {"role": "assistant", "content": [{"type": "text", "text": "a", "weight": 0}]}])"),
      "unsupported-key");
  // Half of a turn.
  EXPECT_EQ(kind_of(R"([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0},
                        {"role": "tool_call", "content": "{\"name\": \"f\"}"}])"),
            "wrong-weight");
  EXPECT_THAT([&] { parse_conversation(json::parse(of_message(R"("weight": 0.5)"))); },
              ThrowsMessage<ConversationError>(HasSubstr("\"weight\" of message 2 is 0.5, expected 0, 1, false or true")));
}

TEST_F(Conversations, KeysThatNothingReadsAreCounted) {
  const std::string messages =
      R"("messages": [{"role": "user", "name": "Ann", "content": "q", "weight": 1}, {"role": "assistant", "content": "a", "tool_calls": null}])";
  const std::string path = write("a.jsonl", R"({"id": 3, "source": "web", "note": "", "train": "split", )" + messages +
                                                "}\n"
                                                R"({"id": 4, )" +
                                                messages + "}\n");
  ConversationReport report;
  EXPECT_EQ(read_conversations({path}, {}, &report).size(), 2U);
  using ::testing::Pair;
  EXPECT_THAT(report.unread, ElementsAre(Pair("id", 2U), Pair("messages[].name", 2U),
                                         Pair("messages[].weight of 1 outside of the assistant's messages", 2U),
                                         Pair("source", 1U), Pair("train", 1U)));
  EXPECT_THAT(describe(report.unread), HasSubstr("id (2 times), messages[].name (2 times)"));
  // Their number is bounded.
  std::string rows;
  for (int i = 0; i < 60; ++i)
    rows += R"({"key)" + std::to_string(i) +
            R"(": 1, "question": "q", "answer": "a"})"
            "\n";
  read_conversations({write("b.jsonl", rows)}, {}, &report);
  EXPECT_EQ(report.unread.size(), kMostUnreadKeys);
}

TEST_F(Conversations, AreReadFromOtherEndingsAndFromPipes) {
  EXPECT_EQ(read_conversations({write("a.NDJSON", kArray), write("b.jsonlines", kShareGpt),
                                write("c.JSONL.GZ", testing::gzip(kAlpaca))})
                .size(),
            3U);
  // A pipe cannot be read twice, and has no name that tells what it holds.
  for (const std::string& text :
       {std::string(kMessages) + "\n" + kMessages, "[" + std::string(kMessages) + "," + kMessages + "]",
        testing::gzip(std::string(kMessages) + "\n" + kMessages)}) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    ASSERT_EQ(::write(ends[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
    close(ends[1]);
    EXPECT_EQ(read_conversations({"/dev/fd/" + std::to_string(ends[0])}).size(), 2U);
    close(ends[0]);
  }
}

#ifdef NANOCHAT_HAS_PARQUET
TEST_F(Conversations, OfParquetHaveTheSameKeys) {
  const auto read = [this](const std::string& rows) {
    testing::write_json_as_parquet(folder_ / "a.parquet", rows);
    std::vector<std::string> all;
    for (const Conversation& one : read_conversations({(folder_ / "a.parquet").string()}))
      all.push_back(to_json(one)["messages"].dump());
    return all;
  };
  // What one row has, the others have as null.
  EXPECT_THAT(
      read(
          R"({"id": "1", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "weight": 0}], "system": "s", "tools": "[]"})"
          "\n"
          R"({"id": "2", "conversations": [{"from": "human", "value": "c"}, {"from": "gpt", "value": "d", "train": true}], "system": null})"
          "\n"),
      ElementsAre(
          R"([{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"b","weight":0}])",
          R"([{"role":"user","content":"c"},{"role":"assistant","content":"d"}])"));
  EXPECT_THAT(
      read(
          R"({"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}, )"
          R"({"role": "tool", "tool_call_id": "c", "content": "1"}, {"role": "assistant", "content": "2"}]})"
          "\n"),
      ElementsAre(R"([{"role":"user","content":"?"},{"role":"assistant","content":"{\"name\":\"f\",\"arguments\":{}}"},)"
                  R"({"role":"user","content":"Result of f:\n1"},{"role":"assistant","content":"2"}])"));
  EXPECT_THAT(read(R"({"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]})"
                   "\n"),
              ElementsAre(R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"}])"));
  EXPECT_THAT(read(R"({"question": "a", "answer": "b"})"
                   "\n"),
              ElementsAre(R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"}])"));
  EXPECT_THAT(
      [&] {
        read(R"({"images": ["a.png"], "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})"
             "\n");
      },
      ThrowsMessage<DataError>(HasSubstr("a.parquet: row 1: \"images\" changes what is learned")));
}
#endif

// The order of keys is that of the file, where a file is read.
TEST_F(Conversations, FunctionsOfAFileKeepTheOrderOfTheirKeys) {
  const std::string path = write(
      "a.jsonl",
      R"({"tools": [{"name": "z", "description": "\ud800"}], "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})");
  EXPECT_THAT(read_conversations({path}).at(0).messages[0].joined_text(),
              HasSubstr("{\"name\":\"z\",\"description\":\"\xef\xbf\xbd\"}"));
}

TEST_F(Conversations, ComeOutAsTheyWentIn) {
  for (
      const char* row :
      {kMessages, R"([{"role": "user", "content": ""}, {"role": "assistant", "content": []}])",
       R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "text", "text": "x"}, {"type": "python", "text": "1"}]}])"}) {
    const Conversation conversation = parse_conversation(json::parse(row));
    const Conversation again = parse_conversation(json::parse(to_json(conversation).dump()));
    EXPECT_EQ(to_json(again), to_json(conversation));
  }
  EXPECT_EQ(to_json(of({{"user", "a"}, {"assistant", {{PartType::kPython, "1"}}}})).dump(),
            R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"python","text":"1"}]}]})");
  EXPECT_EQ(to_json(of({{"user", "\xff"}})).dump(), "{\"messages\":[{\"role\":\"user\",\"content\":\"\xef\xbf\xbd\"}]}");
}

TEST_F(Conversations, AreReadFromFilesOfSeveralForms) {
  write("a.jsonl", std::string(kArray) + "\n\n" + kArray + "\n");
  write("b.json", "[" + std::string(kAlpaca) + ",\n" + kAlpaca + "]");
  write("c.jsonl.gz", testing::gzip(std::string(kShareGpt) + "\n"));
  write("d.json", kMessages);
  ConversationReport report;
  const auto all = read_conversations({folder_.path().string()}, {}, &report);
  EXPECT_EQ(all.size(), 6U);
  for (const Conversation& conversation : all) EXPECT_EQ(conversation, of({{"user", "a"}, {"assistant", "b"}}));
  EXPECT_EQ(report.rows, 6U);
  EXPECT_EQ(report.bad, 0U);
  EXPECT_EQ(report.summary(), "");
}

TEST_F(Conversations, BadRowsAreErrorsUnlessSkippedAndThenCounted) {
  const std::string path = write("a.jsonl", std::string(kArray) + "\nno JSON\n" + kAlpaca + "\n" + kArray +
                                                "\n[{\"role\": \"user\", \"content\": \"?\"}]\n");
  EXPECT_THAT([&] { read_conversations({path}); }, ThrowsMessage<DataError>(HasSubstr("a.jsonl:2: malformed JSON")));
  ConversationReport report;
  EXPECT_EQ(read_conversations({path}, {.skip_bad = true, .max_examples = 2}, &report).size(), 2U);
  EXPECT_EQ(report.rows, 5U);
  EXPECT_EQ(report.bad, 3U);
  ASSERT_EQ(report.examples.size(), 2U);
  EXPECT_THAT(report.examples[1],
              HasSubstr("a.jsonl:3: a row in the form instruction and output in a file that begins in the form a bare array"));
  EXPECT_THAT(report.summary(), HasSubstr("3 of 5 rows skipped, the first: "));
  EXPECT_EQ(read_conversations({path}, {.skip_bad = true, .require_answer = false}).size(), 3U);
  const std::string bad = write("b.jsonl", "[]\n");
  EXPECT_THAT([&] { read_conversations({bad}, {.skip_bad = true}); },
              ThrowsMessage<DataError>(::testing::AllOf(HasSubstr("no conversation in"),
                                                        HasSubstr("b.jsonl:1: a conversation without messages"))));
}

TEST_F(Conversations, SayWhereTheyStand) {
  ConversationReader reader({write("a.jsonl", std::string("\n") + kArray + "\n" + kArray)});
  Conversation conversation;
  ASSERT_TRUE(reader.next(conversation));
  EXPECT_THAT(reader.where(), HasSubstr("a.jsonl:2"));
  ASSERT_TRUE(reader.next(conversation));
  EXPECT_THAT(reader.where(), HasSubstr("a.jsonl:3"));
  EXPECT_FALSE(reader.next(conversation));
}

// What people's files hold beside good text is text, and never a special token.
TEST_F(Conversations, OfOddTextRender) {
  const ByteBpeTokenizer tokenizer(testing::small_bpe_definition());
  const std::string path = write(
      "odd.jsonl",
      R"([{"role": "user", "content": "a\u0000b \ud800 <|assistant_end|>"}, {"role": "assistant", "content": ""}])");
  const Conversation odd = read_conversations({path}).at(0);
  EXPECT_EQ(odd.messages[0].joined_text(), std::string("a\0b \xef\xbf\xbd <|assistant_end|>", 25));
  const RenderedConversation rendered = render_conversation(tokenizer, odd);
  EXPECT_EQ(std::count_if(rendered.ids.begin(), rendered.ids.end(), [&](TokenId id) { return tokenizer.is_special(id); }), 5);
  EXPECT_EQ(std::count(rendered.mask.begin(), rendered.mask.end(), 1), 1) << "<|assistant_end|> of the empty answer";
  Conversation turns;
  for (int i = 0; i < 10'000; ++i) {
    turns.messages.emplace_back("user", "q");
    turns.messages.emplace_back("assistant", "a");
  }
  const std::string long_path = write("long.jsonl", to_json(turns).dump());
  EXPECT_EQ(read_conversations({long_path}).at(0), turns);
  EXPECT_EQ(render_conversation(tokenizer, turns, 1 << 20).ids.size(), 1U + 10'000U * 6U);
  EXPECT_EQ(render_conversation(tokenizer, turns, 7).ids.size(), 7U);
}

TEST_F(Conversations, OfRealFiles) {
  NANOCHAT_SHARED_OR_SKIP(chat, "data/chat");
  EXPECT_EQ(read_conversations({(chat / "identity_conversations.jsonl.gz").string()}).size(), 996U);
  EXPECT_EQ(read_conversations({(chat / "conversations_mix.jsonl.gz").string()}).size(), 7786U);
  const auto alpaca = read_conversations({(chat / "rasbt_instruction-data.json").string()});
  ASSERT_EQ(alpaca.size(), 1100U);
  EXPECT_EQ(alpaca[0].messages[0].joined_text(),
            "Evaluate the following phrase by transforming it into the spelling given.\n\nfreind --> friend");
}

}  // namespace
}  // namespace nanochat
