#pragma once
// Learns the merges of byte pair encoding (Sennrich, Haddow & Birch 2016) from counted words: again and again the most
// frequent pair of neighbouring tokens becomes a token. Among pairs of one count the smaller one goes first, left id
// before right id, as in rustbpe of the reference, whose merges these are.
//
// Counts of pairs are kept up to date word by word, and the next pair comes from a heap whose entries may be out of
// date: a pair's count only ever falls after the merge that made its newer token, so an entry that turns out to be too
// high is put back with the right count. Memory: about 12 bytes for each byte of distinct words.

#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace nanochat {

class WordCounts;

// Merge i makes token 256 + i; the first 256 tokens are the bytes. Fewer than `count` where no pair is left. `progress`
// hears the number of merges made, now and then, and may be empty.
std::vector<std::pair<TokenId, TokenId>> learn_merges(const WordCounts& words, std::int64_t count,
                                                      const std::function<void(std::int64_t)>& progress = {});

}  // namespace nanochat
