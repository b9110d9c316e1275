#include "tokenizer/conversation.h"

#include <fstream>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "core/testing.h"
#include "tokenizer/load.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

Conversation from_golden(const nlohmann::json& json) {
  Conversation conversation;
  for (const auto& message : json.at("messages")) {
    const auto& content = message.at("content");
    if (content.is_string()) {
      conversation.messages.emplace_back(message.at("role"), content.get<std::string>());
      continue;
    }
    std::vector<MessagePart> parts;
    for (const auto& part : content) {
      const auto type = part.at("type").get<std::string>();
      parts.push_back({type == "python" ? PartType::kPython
                       : type == "text" ? PartType::kText
                                        : PartType::kPythonOutput,
                       part.at("text")});
    }
    conversation.messages.emplace_back(message.at("role"), std::move(parts));
  }
  return conversation;
}

TEST(RenderConversation, EqualsTheReferenceOnEveryGolden) {
  NANOCHAT_SHARED_OR_SKIP(goldens, "parity/goldens/render_conversation.jsonl");
  NANOCHAT_SHARED_OR_SKIP(file, "data/tokenizers/nanochat_ms/nanochat.tiktoken");
  const auto tokenizer = load_tokenizer(file);
  std::ifstream lines(goldens);
  int rows = 0;
  for (std::string line; std::getline(lines, line); ++rows) {
    const auto row = nlohmann::json::parse(line);
    const Conversation conversation = from_golden(row.at("conversation"));
    const RenderedConversation rendered = render_conversation(*tokenizer, conversation);
    EXPECT_EQ(rendered.ids, row.at("ids").get<std::vector<TokenId>>()) << line.substr(0, 200);
    EXPECT_EQ(rendered.mask, row.at("mask").get<std::vector<std::uint8_t>>()) << line.substr(0, 200);
    if (conversation.messages.back().role == "assistant") {
      EXPECT_EQ(render_for_completion(*tokenizer, conversation), row.at("completion_prompt").get<std::vector<TokenId>>());
    }
  }
  EXPECT_EQ(rows, 27);
}

class Rendering : public ::testing::Test {
 protected:
  // Specials by name, text as it is.
  std::string spell(const std::vector<TokenId>& ids) const { return tokenizer_.decode(ids); }
  std::string supervised(const RenderedConversation& rendered) const {
    std::vector<TokenId> ids;
    for (std::size_t i = 0; i < rendered.ids.size(); ++i) {
      if (rendered.mask[i] != 0) ids.push_back(rendered.ids[i]);
    }
    return spell(ids);
  }
  ByteBpeTokenizer tokenizer_{testing::small_bpe_definition()};
};

TEST_F(Rendering, SupervisesWhatTheModelWrites) {
  const Conversation conversation{
      {{"user", "2+3?"},
       {"assistant",
        {{PartType::kText, "so "}, {PartType::kPython, "2+3"}, {PartType::kPythonOutput, "5"}, {PartType::kText, "is 5"}}}}};
  const RenderedConversation rendered = render_conversation(tokenizer_, conversation);
  EXPECT_EQ(spell(rendered.ids),
            "<|bos|><|user_start|>2+3?<|user_end|><|assistant_start|>so <|python_start|>2+3<|python_end|>"
            "<|output_start|>5<|output_end|>is 5<|assistant_end|>");
  EXPECT_EQ(supervised(rendered), "so <|python_start|>2+3<|python_end|>is 5<|assistant_end|>");
  EXPECT_EQ(rendered.ids.size(), rendered.mask.size());
}

TEST_F(Rendering, ASystemMessageJoinsTheFirstUserMessageAlone) {
  const Conversation conversation{{{"system", "be kind"}, {"user", "a"}, {"assistant", "b"}, {"user", "c"}}};
  EXPECT_EQ(spell(render_prompt(tokenizer_, conversation, 1000)),
            "<|bos|><|user_start|>be kind\n\na<|user_end|><|assistant_start|>b<|assistant_end|><|user_start|>c<|user_end|>"
            "<|assistant_start|>");
}

TEST_F(Rendering, AContinuationHasNoEnd) {
  const Conversation conversation{
      {{"system", "be kind"},
       {"user", "a"},
       {"assistant", {{PartType::kText, "so "}, {PartType::kPython, "1"}, {PartType::kText, "b"}}}}};
  EXPECT_EQ(spell(render_continuation(tokenizer_, conversation, 1000)),
            "<|bos|><|user_start|>be kind\n\na<|user_end|><|assistant_start|>so <|python_start|>1<|python_end|>b");
  EXPECT_ERROR(render_continuation(tokenizer_, {{{"user", "x"}}}, 10), DataError, "must end with the beginning");
}

TEST_F(Rendering, AMessageThatIsNotLearnedIsContextWithItsMarks) {
  Conversation conversation{
      {{"user", "a"}, {"assistant", "BAD"}, {"user", "b"}, {"assistant", {{PartType::kPython, "1"}, {PartType::kText, "c"}}}}};
  const RenderedConversation all = render_conversation(tokenizer_, conversation);
  conversation.messages[1].learned = false;
  const RenderedConversation rendered = render_conversation(tokenizer_, conversation);
  EXPECT_EQ(rendered.ids, all.ids);
  EXPECT_EQ(supervised(rendered), "<|python_start|>1<|python_end|>c<|assistant_end|>");
  std::vector<TokenId> excluded;
  for (std::size_t i = 0; i < rendered.ids.size(); ++i) {
    if (rendered.excluded[i] != 0) excluded.push_back(rendered.ids[i]);
  }
  EXPECT_EQ(spell(excluded), "<|assistant_start|>BAD<|assistant_end|>");
  EXPECT_EQ(std::count(all.excluded.begin(), all.excluded.end(), 1), 0);
  // The system message and the first user message are one text: it is excluded when either is.
  Conversation instructed{{{"system", "s"}, {"user", "a"}, {"assistant", "b"}, {"user", "c"}}};
  instructed.messages[0].learned = false;
  const RenderedConversation told = render_conversation(tokenizer_, instructed);
  excluded.clear();
  for (std::size_t i = 0; i < told.ids.size(); ++i) {
    if (told.excluded[i] != 0) excluded.push_back(told.ids[i]);
  }
  EXPECT_EQ(spell(excluded), "<|user_start|>s\n\na<|user_end|>");
  EXPECT_EQ(supervised(told), "b<|assistant_end|>");
}

TEST_F(Rendering, TextNeverBecomesASpecialToken) {
  for (const std::string_view name : kChatSpecialTokens) {
    const Conversation conversation{{{"user", std::string(name)}, {"assistant", std::string(name)}}};
    const auto ids = render_conversation(tokenizer_, conversation).ids;
    EXPECT_EQ(std::count_if(ids.begin(), ids.end(), [&](TokenId id) { return tokenizer_.is_special(id); }), 5) << name;
  }
}

TEST_F(Rendering, CutsFromTheRight) {
  const Conversation conversation{{{"user", "0123456789"}, {"assistant", "abc"}}};
  const RenderedConversation whole = render_conversation(tokenizer_, conversation);
  for (const std::int64_t length : {1L, 2L, 14L, 15L, 16L, 1000L}) {
    const RenderedConversation cut = render_conversation(tokenizer_, conversation, length);
    const auto n = std::min(whole.ids.size(), static_cast<std::size_t>(length));
    EXPECT_THAT(cut.ids, ::testing::ElementsAreArray(whole.ids.begin(), whole.ids.begin() + static_cast<std::ptrdiff_t>(n)));
    EXPECT_THAT(cut.mask, ::testing::ElementsAreArray(whole.mask.begin(), whole.mask.begin() + static_cast<std::ptrdiff_t>(n)));
    EXPECT_EQ(cut.excluded.size(), n);
    EXPECT_EQ(cut.whole_length, whole.ids.size());
    EXPECT_EQ(cut.cut(), n < whole.ids.size());
  }
  EXPECT_EQ(render_for_completion(tokenizer_, conversation, 3).size(), 4);
}

TEST_F(Rendering, EdgesAreDefined) {
  EXPECT_EQ(supervised(render_conversation(tokenizer_, {{{"user", ""}, {"assistant", ""}}})), "<|assistant_end|>");
  EXPECT_EQ(supervised(render_conversation(tokenizer_, {{{"user", "x"}, {"assistant", std::vector<MessagePart>{}}}})),
            "<|assistant_end|>");
  const std::string odd("\0\xED\xA0\x80\xFF", 5);  // NUL, a lone surrogate, a byte of no encoding
  EXPECT_EQ(supervised(render_conversation(tokenizer_, {{{"user", odd}, {"assistant", odd}}})), odd + "<|assistant_end|>");
  Conversation endless;
  for (int i = 0; i < 10'000; ++i) {
    endless.messages.emplace_back("user", "q");
    endless.messages.emplace_back("assistant", "a");
  }
  EXPECT_EQ(render_conversation(tokenizer_, endless, 1'000'000).ids.size(), 60'001);
  EXPECT_EQ(render_conversation(tokenizer_, endless).ids.size(), 2048);
}

TEST_F(Rendering, RefusesWhatIsNoConversation) {
  const auto refused = [&](Conversation conversation, const char* why) {
    EXPECT_ERROR(render_conversation(tokenizer_, conversation), DataError, why);
  };
  refused({}, "without messages");
  refused({{{"assistant", "x"}}}, "message 1 is from \"assistant\" where \"user\"");
  refused({{{"user", "x"}, {"user", "x"}}}, "message 2 is from \"user\" where \"assistant\"");
  refused({{{"user", "x"}, {"system", "x"}}}, "message 2 is from \"system\"");
  refused({{{"system", "x"}}}, "no user message follows");
  refused({{{"user", {{PartType::kPython, "1"}}}}}, "python part");
  EXPECT_ERROR(render_for_completion(tokenizer_, {{{"user", "x"}}}), DataError, "must end with the assistant");
  EXPECT_ERROR(render_prompt(tokenizer_, {{{"user", "x"}, {"assistant", "x"}}}, 10), DataError, "must end with the user");
}

}  // namespace
}  // namespace nanochat
