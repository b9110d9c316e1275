#pragma once
// For tests only: all documents of some files.

#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "data/text/documents.h"

namespace nanochat::testing {

// Read to the end; bytes_read() rises to bytes_total() on the way.
inline std::vector<std::string> read_documents(const std::vector<std::filesystem::path>& files,
                                               const ReaderOptions& options = {}) {
  const auto reader = open_documents(files, options);
  std::vector<std::string> documents;
  std::uint64_t before = 0;
  for (std::string document; reader->next(document);) {
    EXPECT_GE(reader->bytes_read(), before);
    before = reader->bytes_read();
    documents.push_back(document);
  }
  EXPECT_EQ(reader->bytes_read(), reader->bytes_total());
  return documents;
}

}  // namespace nanochat::testing
