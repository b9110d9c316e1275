#pragma once
// Generates short stories in simple English for the toy corpus. A plot is a sequence of beats, and a beat is a choice of
// sentences. Sentences have slots for names, places, things and feelings, which stay the same within a story.

#include <string>

namespace nanochat {

class Rng;

// One story of 300 to 1,500 bytes in two to four paragraphs.
std::string toy_story(Rng& rng);

}  // namespace nanochat
