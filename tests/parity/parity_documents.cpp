// Documents of files as JSON strings, a line each: what parquet_parity.py compares.
//   parity_documents COLUMN FILE...     COLUMN may be empty
#include <cstdio>
#include <exception>
#include <string>

#include <nlohmann/json.hpp>

#include "data/text/documents.h"

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  try {
    nanochat::ReaderOptions options;
    options.text_column = argv[1];
    const auto reader = nanochat::open_documents({argv + 2, argv + argc}, options);
    for (std::string document; reader->next(document);) std::printf("%s\n", nlohmann::json(document).dump().c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
}
