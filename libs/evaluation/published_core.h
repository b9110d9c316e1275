#pragma once
// CORE scores of well-known models, for comparison.

#include <map>
#include <string>
#include <vector>

namespace nanochat {

struct PublishedCore {
  std::string model;
  double core = 0.0;
  std::map<std::string, double> accuracy;  // by task
};

// The GPT-2 family (Radford et al. 2019): 124 M, 355 M, 774 M and 1,558 M parameters.
const std::vector<PublishedCore>& published_core();

}  // namespace nanochat
