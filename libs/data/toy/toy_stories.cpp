#include "data/toy/toy_stories.h"

#include <cctype>
#include <map>
#include <string_view>
#include <vector>

#include "core/random.h"

namespace nanochat {
namespace {

using Words = std::vector<std::string>;
using Beat = std::vector<std::string>;
using Plot = std::vector<Beat>;  // an empty beat begins a paragraph

const Words& girls() {
  static const Words words = {"Anna", "Lucy", "Mia", "Rosa", "Emma", "Sara", "Lily", "Nina", "Clara", "Ella", "Kate", "Zoe"};
  return words;
}

const Words& boys() {
  static const Words words = {"Tom", "Ben", "Max", "Leo", "Sam", "Jack", "Paul", "Finn", "Adam", "Nick", "Oscar", "Theo"};
  return words;
}

// The slots that do not depend on one another.
const std::vector<std::pair<std::string, Words>>& slots() {
  static const std::vector<std::pair<std::string, Words>> words = {
      {"place",
       {"the park", "the forest", "the beach", "the garden", "the market", "the river", "the old mill", "the lake",
        "the hill behind the school", "the farm", "the station", "the village square"}},
      {"room", {"kitchen", "attic", "cellar", "hall", "bedroom", "workshop", "barn", "library"}},
      {"animal", {"dog", "cat", "rabbit", "duck", "horse", "mouse", "goat", "fox", "bird", "frog", "owl", "sheep"}},
      {"thing", {"ball", "kite", "book", "lamp", "drum", "map", "bell", "box", "hat", "coat", "basket", "mirror", "key"}},
      {"toy", {"wooden train", "paper boat", "little robot", "toy car", "puppet", "doll", "puzzle", "spinning top"}},
      {"food", {"bread", "soup", "apples", "cake", "cheese", "honey", "pancakes", "cherries", "nuts", "rice"}},
      {"colour", {"red", "blue", "green", "yellow", "white", "black", "brown", "golden"}},
      {"size", {"small", "big", "tiny", "huge", "little", "tall"}},
      {"weather", {"sunny", "rainy", "windy", "foggy", "cold", "warm", "snowy", "cloudy"}},
      {"time",
       {"One morning", "One afternoon", "One evening", "Last summer", "Last winter", "On a quiet day", "Long ago",
        "On the way to school", "After lunch", "Before dinner"}},
      {"day", {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}},
      {"elder", {"grandmother", "grandfather", "mother", "father", "aunt", "uncle", "teacher", "neighbour"}},
      {"job", {"baker", "farmer", "doctor", "painter", "sailor", "gardener", "teacher", "smith", "shepherd", "singer"}},
      {"sad", {"sad", "worried", "upset", "lonely", "tired", "afraid"}},
      {"glad", {"happy", "glad", "proud", "cheerful", "thankful", "delighted"}},
      {"kindly", {"kindly", "softly", "with a smile", "in a warm voice", "at once", "after a while"}},
  };
  return words;
}

const Beat& endings() {
  static const Beat beat = {
      "From that day on, {name} and {friend} were the best of friends.",
      "That night {name} slept well and dreamed of {place}.",
      "{name} never forgot that day.",
      "Everyone went home {glad}, and {name} was the most {glad} of all.",
      "{name} learned that it is good to share.",
      "{name} learned that asking for help is not a weakness.",
      "And when {name} tells this story, {friend} always laughs.",
      "Since then {name} goes to {place} every {day}.",
      "\"Let us do this again on {day},\" said {friend}, and they did.",
  };
  return beat;
}

const std::vector<Plot>& plots() {
  static const std::vector<Plot> all = {
      {{"{time} {name} lost a {colour} {thing} near {place}.", "{time} {name} could not find {his} {colour} {thing}.",
        "{name} had a {colour} {thing}, but {time_} it was gone."},
       {"{He} looked under the bed, behind the door and in the {room}.",
        "{He} had left it somewhere, but {he} did not know where.",
        "It was a present from {his} {elder}, so {name} was very {sad}."},
       {},
       {"{friend} came by and asked, \"Why are you so {sad}?\"", "\"What are you looking for?\" asked {friend} {kindly}."},
       {"\"I lost my {thing},\" said {name}.", "\"My {thing} is gone, and I need it on {day},\" said {name}."},
       {"Together they went back to {place} and searched everywhere.", "They asked a {job}, but the {job} had not seen it.",
        "They followed the tracks of a {animal} all the way to {place}."},
       {},
       {"There it was! A {size} {animal} was sitting on the {thing}.", "At last {friend} saw something {colour} in the grass.",
        "The {thing} was hanging in a tree, because the wind had carried it there."},
       {"{name} was so {glad} that {he} gave {friend} some {food}.", "\"Thank you!\" said {name}. \"You are a good friend.\""}},
      {{"{name} wanted to bake a cake for {his} {elder}.",
        "It was the birthday of {name}'s {elder}, and {name} wanted to make {food}."},
       {"But there was no milk in the {room}, so {he} went to {place} to buy some.",
        "{He} took a {size} bowl, some flour and three eggs.",
        "{friend} came to help, because two people work faster than one."},
       {"The stove was too hot, so the first cake was black.",
        "The bowl fell on the floor, and everything was white with flour.", "They forgot the sugar, so it tasted like bread."},
       {},
       {"{name} was {sad}, but {friend} laughed and said, \"We can try again.\"",
        "\"Never mind,\" said {friend} {kindly}. \"The next one will be better.\""},
       {"The second cake was soft and sweet.", "This time they read the book with care, and nothing went wrong."},
       {"The {elder} was {glad} and ate three pieces.", "\"This is the best cake of my life,\" said the {elder}."}},
      {{"{time} a {size} {animal} came to the house of {name}.",
        "Near {place} there lived a {colour} {animal} that was always hungry.", "{name} found a {size} {animal} at {place}."},
       {"It was {weather} outside, and the {animal} was cold.", "The {animal} had hurt its leg and could not walk.",
        "Nobody knew where the {animal} came from."},
       {"{name} gave it some {food} and a warm place in the {room}.", "{name} made a bed for it out of an old {colour} coat."},
       {},
       {"The next morning the {animal} was gone.", "After a week the {animal} was strong again.",
        "Every day the {animal} grew a little."},
       {"{name} was {sad}, because {he} had grown fond of it.",
        "\"You must let it go,\" said {his} {elder}. \"It belongs to {place}.\""},
       {},
       {"But on {day} the {animal} came back, and it was not alone.",
        "Then {he} heard a sound at the door, and there stood the {animal}.",
        "Some days later {friend} saw the {animal} at {place}, and it looked {glad}."}},
      {{"On {day} the weather was {weather}, so {name} and {friend} stayed at home.",
        "It was a {weather} {day}, and {name} had nothing to do.", "Because it was {weather}, nobody wanted to go to {place}."},
       {"They went up to the {room} and opened an old box.", "\"Let us build a {toy},\" said {friend}.",
        "In the {room} they found a {toy}."},
       {"It was broken, but {name} knew how to repair it.", "One wheel was missing, so they made a new one out of wood.",
        "They painted it {colour}, because {colour} was the colour that {name} liked best."},
       {},
       {"When it was ready, the rain had stopped.", "After two hours it was finished.", "\"It works!\" cried {friend}."},
       {"They took it to {place} and showed it to everyone.", "They gave it to a little child who had no toys.",
        "A {job} wanted to buy it, but {name} said no."}},
      {{"{name} was afraid of the dark.", "{name} did not like the dark {room} of the old house.",
        "At night {name} heard a strange noise in the {room}."},
       {"Every night {he} asked {his} {elder} to leave a lamp on.", "{He} thought that a {size} {animal} was hiding there."},
       {"{time} the lamp went out, because the wind was strong.", "{time} {friend} said, \"Let us go and look together.\""},
       {},
       {"{name} took a deep breath and opened the door.", "Slowly they went down the stairs, one step after the other."},
       {"There was only a {colour} {animal}, and it was more afraid than {name}.",
        "It was nothing but a {thing} that moved in the wind.", "They saw a {animal} that was looking for {food}."},
       {},
       {"{name} laughed, and the fear was gone.", "\"So that is all!\" said {name}, and {he} was very {glad}."}},
      {{"In a village near {place} there lived a {job} who was called {name}.",
        "{name} was a {job}, and {he} worked from early to late."},
       {"{He} was poor but always {glad}.", "{He} had a {colour} {thing}, and that was all {he} had.",
        "People liked {him}, because {he} was kind."},
       {"{time} a stranger came and asked for some {food}.", "{time} {friend} came to {him} and asked for help."},
       {},
       {"{name} had only a little {food}, but {he} shared it.", "\"Come in and sit by the fire,\" said {name} {kindly}."},
       {"The stranger thanked {him} and gave {him} a {size} box.",
        "\"I will not forget this,\" said the guest, and went away."},
       {},
       {"In the box was a key made of gold.", "The next year, when {name} was ill, the guest came back and helped {him}.",
        "After that day the {thing} of {name} brought {him} good luck."}},
      {{"{name} and {friend} wanted to know who could run faster.", "On {day} there was a race at {place}."},
       {"{name} was fast, but {friend} was strong.", "{friend} had new shoes, and {name} had none.",
        "Even the {animal} of the {job} came to watch."},
       {"They ran past the school, over the bridge and up the hill.",
        "At first {name} was in front, and {friend} was far behind."},
       {},
       {"Then {name} fell over a stone and hurt {his} knee.", "Suddenly a {size} {animal} ran across the road."},
       {"{friend} stopped and helped {him} up, although {friend} could have won.",
        "\"Are you hurt?\" asked {friend}, and waited."},
       {},
       {"In the end they crossed the line together.", "Nobody won the race, but both were {glad}.",
        "They shared the prize, which was a basket of {food}."}},
      {{"{name} planted a seed in the garden on {day}.", "{time} the {job} gave {name} a {size} seed."},
       {"Every day {he} gave it water, but nothing happened.",
        "\"What will it be?\" asked {friend}. \"Wait and see,\" said {name}."},
       {"It was {weather} for a week, and {name} was {sad}.", "A {animal} wanted to eat it, so they built a fence."},
       {},
       {"Then a {size} green leaf came out of the earth.", "After a month the plant was as tall as {name}."},
       {"In summer it had {colour} flowers, and in autumn it was full of {food}.",
        "The bees came, and the {animal} slept in its shade."},
       {},
       {"{name} took the best one to {his} {elder}.", "There was enough for the whole village."}},
      {{"{name} got a letter from {his} {elder}, who lived far away near {place}.",
        "{time} a letter for {name} lay in the {room}."},
       {"\"Come and visit me on {day},\" it said.", "In the letter there was a {colour} ticket for the train."},
       {"{name} packed a {thing}, some {food} and a book.", "{friend} was allowed to come along."},
       {},
       {"The train went through a dark tunnel and over a high bridge.",
        "From the window they saw a {animal}, a {job} and a {size} castle."},
       {"But they got off too early, because they could not read the sign.",
        "An old {job} sat beside them and told them about the sea."},
       {},
       {"The {elder} was waiting for them with warm {food}.", "When they arrived, it was late, and the moon was up."}},
      {{"{name} broke the {colour} {thing} of {his} {elder}.",
        "While {name} was playing with {friend}, the {thing} fell down and broke."},
       {"Nobody had seen it, so {he} hid it in the {room}.", "\"What shall I do?\" {he} thought, and {he} was {sad} all day."},
       {"At dinner {he} could not eat, although there was {food}.",
        "{He} wanted to say that the {animal} had done it, but that was not true."},
       {},
       {"At last {he} told the truth.", "\"I broke it,\" said {name}. \"I am sorry.\""},
       {"The {elder} was not angry.", "\"I am {glad} that you told me,\" said the {elder} {kindly}."},
       {},
       {"They repaired it together, and it looked almost new.",
        "The next {day} they went to the market and bought another one."}},
  };
  return all;
}

std::map<std::string, std::string, std::less<>> choose_words(Rng& rng) {
  std::map<std::string, std::string, std::less<>> chosen;
  const bool girl = rng.below(2) == 0;
  chosen["name"] = rng.choose(girl ? girls() : boys());
  do {
    chosen["friend"] = rng.choose(rng.below(2) == 0 ? girls() : boys());
  } while (chosen["friend"] == chosen["name"]);
  chosen["he"] = girl ? "she" : "he";
  chosen["He"] = girl ? "She" : "He";
  chosen["his"] = girl ? "her" : "his";
  chosen["him"] = girl ? "her" : "him";
  for (const auto& [slot, words] : slots()) chosen[slot] = rng.choose(words);
  chosen["time_"] = chosen["time"];
  chosen["time_"][0] = static_cast<char>(std::tolower(static_cast<unsigned char>(chosen["time_"][0])));
  return chosen;
}

bool starts_with_vowel(std::string_view word) {
  return !word.empty() && std::string_view("aeiou").find(word[0]) != std::string_view::npos;
}

// Fills the slots, and makes "a" an "an" before a vowel that a slot brings.
std::string fill(std::string_view sentence, const std::map<std::string, std::string, std::less<>>& words) {
  std::string text;
  while (!sentence.empty()) {
    const std::size_t open = sentence.find('{');
    text += sentence.substr(0, open);
    if (open == std::string_view::npos) break;
    const std::size_t close = sentence.find('}', open);
    const std::string& word = words.find(sentence.substr(open + 1, close - open - 1))->second;
    const bool article = text == "A " || text == "a " || text.ends_with(" a ") || text.ends_with(" A ");
    if (article && starts_with_vowel(word)) text.insert(text.size() - 1, "n");
    text += word;
    sentence.remove_prefix(close + 1);
  }
  return text;
}

}  // namespace

std::string toy_story(Rng& rng) {
  const auto words = choose_words(rng);
  const Plot& plot = rng.choose(plots());
  std::string story;
  const char* separator = "";
  for (const Beat& beat : plot) {
    if (beat.empty()) {
      separator = "\n\n";
      continue;
    }
    // Two sentences of a beat now and then; they are written so that they can follow one another.
    const std::size_t first = rng.below(beat.size());
    story += separator + fill(beat[first], words);
    separator = " ";
    if (first + 1 < beat.size() && rng.below(3) == 0)
      story += separator + fill(beat[first + 1 + rng.below(beat.size() - first - 1)], words);
  }
  return story + " " + fill(rng.choose(endings()), words);
}

}  // namespace nanochat
