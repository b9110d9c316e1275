#pragma once
// Extracts the text of a .jsonl row without parsing the whole row. Reading must not
// delay the tokenizing threads, and the JSON library takes as long as decompression.

#include <string>
#include <string_view>

namespace nanochat {

// Copies the string under `key` of the JSON object `line` to `text`. False, with `text` undefined, if the line
// is not a well-formed object in UTF-8 with a string there (the last one if the key occurs twice), or nests too
// deeply. The JSON library then reads it or reports the error. Never true for a line that that library refuses.
bool find_json_text(std::string_view line, std::string_view key, std::string& text);

}  // namespace nanochat
