#include "reader_options.h"

#include <memory>

#include <nlohmann/json.hpp>

#include "core/format.h"

namespace nanochat::cli {

void add_text_column(Subcommand& command, std::string& field) {
  command
      .option("text_column", &field,
              "Key of JSON rows, or column of .parquet files, that holds the text. Empty means the key text, or "
              "the only string column of a .parquet file.")
      .formerly("text_key");
}

void SkipBad::declare(Subcommand& command) {
  command.option("skip_bad", &value,
                 "Number of unreadable rows of the input to skip before the command fails, or all for no limit. 0 fails at the "
                 "first one. The log lists the first skipped rows and their number.");
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
