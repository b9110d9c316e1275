// Writes a valid file of every format to FOLDER/FORMAT/sample, for the fuzzers to begin with, and prints the formats.
#include <cstdio>
#include <filesystem>

#include "core/testing.h"
#include "formats.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fuzz_samples FOLDER\n");
    return 2;
  }
  for (const nanochat::testing::Format& format : nanochat::testing::formats()) {
    const std::filesystem::path folder = std::filesystem::path(argv[1]) / format.name;
    std::filesystem::create_directories(folder);
    nanochat::testing::write_text(folder / "sample", format.sample());
    std::printf("%s\n", format.name.c_str());
  }
  return 0;
}
