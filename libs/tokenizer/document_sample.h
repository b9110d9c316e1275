#pragma once
// A random sample of a stream of documents of unknown length, with a limit in bytes, spread over the whole stream.
//
// Every document draws a random key. Those with the smallest keys that fit the limit
// are kept (a reservoir over keys: Vitter 1985; Efraimidis & Spirakis 2006). The
// result depends on the seed and the stream. Memory: the limit. Not thread-safe.

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "core/random.h"

namespace nanochat {

class DocumentSample {
 public:
  DocumentSample(std::int64_t max_bytes, std::uint64_t seed) : max_bytes_(max_bytes), rng_(seed) {}

  void offer(std::string document);
  // Returns the kept documents in the order of the stream; the sample is then empty.
  std::vector<std::string> take();
  std::int64_t bytes() const { return bytes_; }

 private:
  struct Entry {
    std::uint64_t key, index;
    std::string document;
    bool operator<(const Entry& other) const { return key < other.key; }  // the largest key is removed first
  };
  std::int64_t max_bytes_, bytes_ = 0;
  std::uint64_t offered_ = 0;
  Rng rng_;
  std::uint64_t bound_ = std::numeric_limits<std::uint64_t>::max();  // keys from this value on do not fit
  std::vector<Entry> entries_;                                       // a heap by key
};

}  // namespace nanochat
