#include "data/toy/toy.h"

#include <algorithm>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/random.h"
#include "data/toy/toy_facts.h"
#include "data/toy/toy_stories.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> corpus(std::int64_t bytes, std::uint64_t seed) {
  std::vector<std::string> documents;
  generate_toy_corpus({bytes, seed}, [&](const std::string& document) { documents.push_back(document); });
  return documents;
}

TEST(ToyCorpus, IsDeterministicAndGrowsAtTheEnd) {
  const auto small = corpus(100'000, 1);
  const auto large = corpus(300'000, 1);
  EXPECT_EQ(small, corpus(100'000, 1));
  EXPECT_NE(small[0], corpus(1000, 2)[0]);
  ASSERT_LT(small.size(), large.size());
  EXPECT_TRUE(std::equal(small.begin(), small.end(), large.begin()));
}

TEST(ToyCorpus, HasDocumentsOfTheSizesToldAndNoSlotsLeft) {
  std::int64_t bytes = 0;
  std::set<std::string> different;
  const auto documents = corpus(2'000'000, 3);
  for (const std::string& document : documents) {
    EXPECT_GE(document.size(), 300u);
    EXPECT_LE(document.size(), 2500u);
    EXPECT_EQ(document.find_first_of("{}"), std::string::npos) << document;
    EXPECT_THAT(document, Not(HasSubstr("  ")));
    bytes += static_cast<std::int64_t>(document.size());
    different.insert(document);
  }
  EXPECT_GE(bytes, 2'000'000);
  EXPECT_LT(bytes, 2'003'000);
  EXPECT_EQ(different.size(), documents.size());
}

TEST(ToyCorpus, TellsEveryFactOften) {
  std::string text;
  for (const std::string& document : corpus(4'000'000, 42)) text += document + "\n";
  // The rarest kind of fact is one of few phrasings of many: count whole sentences of each fact.
  for (const ToyRelation& relation : toy_relations()) {
    for (std::size_t i = 0; i < relation.facts.size(); i += 17) {
      std::size_t told = 0;
      for (const std::string& phrasing : relation.told) {
        const std::string sentence = fill_phrasing(phrasing, relation.facts[i]);
        for (auto at = text.find(sentence); at != std::string::npos; at = text.find(sentence, at + 1)) ++told;
      }
      EXPECT_GE(told, 25u) << relation.topic << ": " << fill_phrasing(relation.told[0], relation.facts[i]);
    }
  }
}

// The promise of held-out phrasings: no test prompt of any fact occurs anywhere in the training text.
TEST(ToyCorpus, NeverWritesAHeldOutPhrasing) {
  std::string text;
  for (const std::string& document : corpus(8'000'000, 42)) text += document + "\n";
  std::size_t prompts = 0;
  for (const ToyRelation& relation : toy_relations()) {
    EXPECT_GE(relation.told.size(), 4u);
    EXPECT_GE(relation.held_out.size(), 1u);
    for (const std::string& held_out : relation.held_out) {
      // A search for each fact would read 8 MB two thousand times: the words before the first slot that differ between
      // facts tell most phrasings apart, and what begins alike is compared in full.
      const std::string head = held_out.substr(0, held_out.find('{'));
      const std::size_t first = std::max<std::size_t>(head.size(), 1);
      std::set<std::string> of_facts;
      for (const ToyFact& fact : relation.facts) of_facts.insert(fill_phrasing(held_out, fact));
      prompts += of_facts.size();
      if (head.empty()) {
        for (const std::string& prompt : of_facts) EXPECT_EQ(text.find(prompt), std::string::npos) << prompt;
        continue;
      }
      for (auto at = text.find(head); at != std::string::npos; at = text.find(head, at + first)) {
        const auto after = of_facts.upper_bound(text.substr(at, 200));
        ASSERT_FALSE(after != of_facts.begin() && text.compare(at, std::prev(after)->size(), *std::prev(after)) == 0)
            << *std::prev(after);
      }
    }
  }
  EXPECT_GT(prompts, 1500u);
}

TEST(ToyPrompts, AreEvenOverTheTopicsAndDifferent) {
  const auto prompts = toy_test_prompts(200, 1);
  ASSERT_EQ(prompts.size(), 200u);
  std::map<std::string, int> topics;
  std::set<std::string> different;
  for (const ToyPrompt& prompt : prompts) {
    ++topics[prompt.topic];
    different.insert(prompt.prompt);
    EXPECT_FALSE(prompt.prompt.ends_with(' '));
    EXPECT_FALSE(prompt.answers.empty());
  }
  EXPECT_EQ(topics.size(), 8u);
  for (const auto& [topic, count] : topics) EXPECT_EQ(count, 25) << topic;
  EXPECT_EQ(different.size(), 200u);
  EXPECT_EQ(toy_test_prompts(200, 1)[5].prompt, prompts[5].prompt);
  EXPECT_NE(toy_test_prompts(200, 2)[5].prompt, prompts[5].prompt);
  EXPECT_EQ(toy_test_prompts(0, 1).size(), 0u);
  EXPECT_LT(toy_test_prompts(1'000'000, 1).size(), 10'000u);
}

// Each quickstart prompt is a sentence of the corpus, so its answer can be looked up there.
TEST(ToyPrompts, QuickstartAnswersAreTheCorpusOwn) {
  std::string text;
  for (const std::string& document : corpus(8'000'000, 42)) text += document + "\n";
  const auto prompts = toy_quickstart_prompts();
  EXPECT_EQ(prompts.size(), 7u);
  for (const ToyPrompt& prompt : prompts) {
    std::size_t right = 0, wrong = 0;
    for (auto at = text.find(prompt.prompt + " "); at != std::string::npos; at = text.find(prompt.prompt + " ", at + 1)) {
      ++(is_right_answer(prompt, std::string_view(text).substr(at + prompt.prompt.size(), 60)) ? right : wrong);
    }
    EXPECT_GE(right, 3u) << prompt.prompt;
    EXPECT_EQ(wrong, 0u) << prompt.prompt;
  }
}

TEST(ToyPrompts, JudgeAnswersByWholeWords) {
  const ToyPrompt seven{"Three plus four is", {"seven", "7"}, "arithmetic"};
  EXPECT_TRUE(is_right_answer(seven, " seven."));
  EXPECT_TRUE(is_right_answer(seven, "\n Seven"));
  EXPECT_TRUE(is_right_answer(seven, "7, because"));
  EXPECT_FALSE(is_right_answer(seven, " seventeen."));
  EXPECT_FALSE(is_right_answer(seven, " 70"));
  EXPECT_FALSE(is_right_answer(seven, " six, not seven"));
  EXPECT_FALSE(is_right_answer(seven, "  "));
  const ToyPrompt cobalt{"The chemical symbol of cobalt is", {"Co"}, "symbols"};
  EXPECT_TRUE(is_right_answer(cobalt, " Co."));
  EXPECT_FALSE(is_right_answer(cobalt, " CO."));
}

TEST(ToyFacts, AreFunctionsOfWhatIsAsked) {
  for (const ToyRelation& relation : toy_relations()) {
    std::map<std::string, std::string> answers;
    for (const ToyFact& fact : relation.facts) {
      EXPECT_TRUE(answers.emplace(fact.a + "|" + fact.c, fact.b).second) << relation.topic << " " << fact.a;
      EXPECT_FALSE(fact.b.empty());
    }
    for (const std::string& phrasing : relation.told) EXPECT_THAT(phrasing, HasSubstr("{b}"));
    for (const std::string& phrasing : relation.held_out) EXPECT_THAT(phrasing, Not(HasSubstr("{b}")));
  }
  EXPECT_EQ(toy_countries().size(), 60u);
  EXPECT_EQ(toy_elements().size(), 40u);
}

TEST(ToyFacts, KnowTheWorld) {
  const auto answer = [](const std::string& sentence) {
    std::size_t found = 0;
    for (const ToyRelation& relation : toy_relations()) {
      for (const ToyFact& fact : relation.facts) {
        for (const std::string& phrasing : relation.told) found += fill_phrasing(phrasing, fact) == sentence ? 1u : 0u;
      }
    }
    return found;
  };
  for (const char* sentence :
       {"If yesterday was Saturday, then tomorrow will be Monday.", "If today is Sunday, then tomorrow will be Monday.",
        "If today is Monday, then yesterday was Sunday.", "The month after December is January.",
        "The month before January is December.", "Ten minus ten is zero.", "3 + 4 = 7.", "Ten plus ten is twenty.",
        "The planet before Earth is Venus.", "The third planet from the sun is Earth.", "The word cat is spelled c, a, t.",
        "Cold is the opposite of hot."}) {
    EXPECT_EQ(answer(sentence), 1u) << sentence;
  }
}

TEST(ToyFacts, FillBothCases) { EXPECT_EQ(fill_phrasing("{A} and {c}: {b}", {"one", "two", "three"}), "One and three: two"); }

TEST(ToyStories, AreVariedAndWhole) {
  Rng rng(5);
  std::set<std::string> different;
  for (int i = 0; i < 500; ++i) {
    const std::string story = toy_story(rng);
    different.insert(story);
    EXPECT_GE(story.size(), 200u);
    EXPECT_LE(story.size(), 1800u);
    EXPECT_EQ(story.find_first_of("{}"), std::string::npos) << story;
    EXPECT_EQ(story.find(" a a"), std::string::npos) << story;
    EXPECT_TRUE(story.ends_with('.') || story.ends_with('"')) << story;
  }
  EXPECT_EQ(different.size(), 500u);
}

}  // namespace
}  // namespace nanochat
