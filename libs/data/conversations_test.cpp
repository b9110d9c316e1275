#include "data/conversations.h"

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/testing.h"
#include "data/testing_gzip.h"
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

constexpr const char* kMessages = R"({"id": 3, "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})";
constexpr const char* kArray = R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])";
constexpr const char* kShareGpt = R"({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]})";
constexpr const char* kAlpaca = R"({"instruction": "a", "input": "", "output": "b"})";

TEST_F(Conversations, OfEveryFormAreTheSame) {
  const Conversation expected = of({{"user", "a"}, {"assistant", "b"}});
  for (const char* row : {kMessages, kArray, kShareGpt, kAlpaca}) EXPECT_EQ(parse_conversation(json::parse(row)), expected) << row;
  EXPECT_EQ(conversation_form(json::parse(kMessages)), ConversationForm::kMessages);
  EXPECT_EQ(conversation_form(json::parse(kArray)), ConversationForm::kArray);
  EXPECT_EQ(conversation_form(json::parse(kShareGpt)), ConversationForm::kShareGpt);
  EXPECT_EQ(conversation_form(json::parse(kAlpaca)), ConversationForm::kAlpaca);
  EXPECT_EQ(conversation_form(json::parse(R"({"text": "a"})")), std::nullopt);
  EXPECT_EQ(conversation_form(json::parse(R"({"messages": null, "instruction": "a", "output": "b"})")), ConversationForm::kAlpaca);
}

TEST_F(Conversations, KeepSystemMessagesPartsAndHistory) {
  EXPECT_EQ(parse_conversation(json::parse(R"({"conversations": [{"from": "system", "value": "s"}, {"from": "user", "value": "a"},
                                               {"from": "assistant", "value": "b"}]})")),
            of({{"system", "s"}, {"user", "a"}, {"assistant", "b"}}));
  EXPECT_EQ(parse_conversation(json::parse(R"({"instruction": "a", "input": "i", "output": "b", "system": "s", "history": [["q", "r"]]})")),
            of({{"system", "s"}, {"user", "q"}, {"assistant", "r"}, {"user", "a\n\ni"}, {"assistant", "b"}}));
  const Conversation parts = parse_conversation(json::parse(R"([{"role": "user", "content": [{"type": "text", "text": "a"}]},
      {"role": "assistant", "content": [{"type": "python", "text": "1+1"}, {"type": "python_output", "text": "2"}, {"type": "text", "text": ""}]}])"));
  EXPECT_EQ(parts, of({{"user", "a"}, {"assistant", {{PartType::kPython, "1+1"}, {PartType::kPythonOutput, "2"}, {PartType::kText, ""}}}}));
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
  EXPECT_EQ(kind_of(R"([{"role": "user"}])"), "empty-content");
  EXPECT_EQ(kind_of(R"([{"role": "user", "content": null}])"), "empty-content");
  EXPECT_EQ(kind_of(R"([3])"), "empty-content");
  EXPECT_EQ(kind_of(R"([{"role": "user", "content": 3}])"), "wrong-content");
  EXPECT_EQ(kind_of(R"({"instruction": 3, "output": "a"})"), "wrong-content");
  EXPECT_EQ(kind_of(R"({"instruction": "a", "output": "a", "history": [["q"]]})"), "wrong-content");
  EXPECT_EQ(kind_of(R"([{"role": "user", "content": [{"type": "image"}]}])"), "wrong-part");
  EXPECT_EQ(kind_of(R"([{"role": "user", "content": [{"type": "python", "text": "1"}]}])"), "wrong-part");
  EXPECT_EQ(kind_of(R"([{"role": "user", "content": [{"type": "text"}]}])"), "wrong-part");
  EXPECT_EQ(kind_of(R"([{"role": "user", "content": ""}])"), "");
}

TEST_F(Conversations, ComeOutAsTheyWentIn) {
  for (const char* row : {kMessages, R"([{"role": "user", "content": ""}, {"role": "assistant", "content": []}])",
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
  const std::string path = write("a.jsonl", std::string(kArray) + "\nno JSON\n" + kAlpaca + "\n" + kArray + "\n[{\"role\": \"user\", \"content\": \"?\"}]\n");
  EXPECT_THAT([&] { read_conversations({path}); }, ThrowsMessage<DataError>(HasSubstr("a.jsonl:2: malformed JSON")));
  ConversationReport report;
  EXPECT_EQ(read_conversations({path}, {.skip_bad = true, .max_examples = 2}, &report).size(), 2U);
  EXPECT_EQ(report.rows, 5U);
  EXPECT_EQ(report.bad, 3U);
  ASSERT_EQ(report.examples.size(), 2U);
  EXPECT_THAT(report.examples[1], HasSubstr("a.jsonl:3: a row in the form Alpaca's in a file that begins in the form a bare array"));
  EXPECT_THAT(report.summary(), HasSubstr("3 of 5 rows skipped, the first: "));
  EXPECT_EQ(read_conversations({path}, {.skip_bad = true, .require_answer = false}).size(), 3U);
  const std::string bad = write("b.jsonl", "[]\n");
  EXPECT_THAT([&] { read_conversations({bad}, {.skip_bad = true}); },
              ThrowsMessage<DataError>(::testing::AllOf(HasSubstr("no conversation in"), HasSubstr("b.jsonl:1: a conversation without messages"))));
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
  const std::string path = write("odd.jsonl", R"([{"role": "user", "content": "a\u0000b \ud800 <|assistant_end|>"}, {"role": "assistant", "content": ""}])");
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
