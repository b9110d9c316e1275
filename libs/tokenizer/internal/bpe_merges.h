#pragma once
// Learns the merges of byte pair encoding (Sennrich, Haddow & Birch 2016) from counted words: repeatedly,
// the most frequent pair of neighbouring tokens becomes a token. Among pairs with equal counts, the
// smaller pair comes first (left id, then right id). The merges are those of the reference's rustbpe.
//
// The counts of pairs are updated word by word. The next pair comes from a heap whose entries may be
// out of date: a count only decreases after the merge that made its newer token, so an entry that is
// too high is put back with the correct count. Memory: about 12 bytes for each byte of distinct words.

#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace nanochat {

class WordCounts;

// Merge i makes token 256 + i; the first 256 tokens are the bytes. Returns fewer than `count` merges if
// no pair is left. `progress` may be empty; it is called from time to time with the number of merges.
std::vector<std::pair<TokenId, TokenId>> learn_merges(const WordCounts& words, std::int64_t count,
                                                      const std::function<void(std::int64_t)>& progress = {});

}  // namespace nanochat
