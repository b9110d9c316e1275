#pragma once
// Options of the commands that read text, declared the same everywhere.

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "command_line.h"
#include "data/text/documents.h"

namespace nanochat::cli {

// --text-column: where the text of a row stands.
void add_text_column(Subcommand& command, std::string& field);

// --skip-bad N|all. apply() hands its value to the reader; it throws ConfigError when it is neither.
struct SkipBad {
  std::string value = "0";
  void declare(Subcommand& command);
  void apply(ReaderOptions& reader) const;
};

// {"rows": 3, "examples": [...]} of what the reader passed over.
nlohmann::json skipped_to_json(const ReaderOptions& reader);

}  // namespace nanochat::cli
