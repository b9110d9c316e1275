#pragma once
// The answers of POST /v1/responses that the server keeps, so that a later request can continue one by its id.

#include <cstddef>
#include <string>

#include "serving/internal/owned_store.h"

namespace nanochat {

struct StoredResponse {
  std::string owner;  // the API key; empty if the server needs none
  std::string body;   // the response object, for GET /v1/responses/{id}
  std::string items;  // JSON array: the input and output items of the conversation so far
  std::size_t bytes() const { return owner.size() + body.size() + items.size(); }
};

using ResponseStore = OwnedStore<StoredResponse>;

}  // namespace nanochat
