#pragma once
// The text of a .jsonl row without building the row: reading must not keep the tokenizing threads waiting, and the JSON
// library takes as long as inflating does.

#include <string>
#include <string_view>

namespace nanochat {

// Puts the string under `key` of the JSON object `line` into `text`. False, with `text` undefined, when the line is not
// a well-formed object in UTF-8 with a string there (the last one, should the key come twice), or nests too deeply: the
// JSON library then says what is wrong, or reads it. Never true for what that library refuses.
bool find_json_text(std::string_view line, std::string_view key, std::string& text);

}  // namespace nanochat
