#include "reader_options.h"

#include <memory>

#include <nlohmann/json.hpp>

#include "core/format.h"

namespace nanochat::cli {

void add_text_column(Subcommand& command, std::string& field) {
  command
      .option("text_column", &field,
              "key of a JSON row, or column of a .parquet, that holds the text; empty: text, or the only column of strings of a "
              ".parquet")
      .formerly("text_key");
}

void SkipBad::declare(Subcommand& command) {
  command.option("skip_bad", &value,
                 "pass over up to this many rows that cannot be read, list the first and count them; all: any number; 0: the "
                 "first is an error");
}

void SkipBad::apply(ReaderOptions& reader) const {
  const std::uint64_t allowed = parse_skip_bad(value);
  if (allowed > 0) reader.bad_rows = std::make_shared<BadRows>(allowed);
}

nlohmann::json skipped_to_json(const ReaderOptions& reader) {
  nlohmann::json examples = nlohmann::json::array();
  if (!reader.bad_rows) return {{"rows", 0}, {"examples", std::move(examples)}};
  for (const std::string& example : reader.bad_rows->examples()) examples.push_back(replace_invalid_utf8(example));
  return {{"rows", reader.bad_rows->count()}, {"examples", std::move(examples)}};
}

}  // namespace nanochat::cli
