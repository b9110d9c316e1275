#pragma once
// Short stories in simple English for the toy corpus: a plot is a row of beats, each beat a choice of sentences, each
// sentence with slots for names, places, things and feelings that stay the same through the story.

#include <string>

namespace nanochat {

class Rng;

// One story of 300 to 1,500 bytes in two to four paragraphs.
std::string toy_story(Rng& rng);

}  // namespace nanochat
