#pragma once
// Files that are compiled into the program (cmake/NanochatEmbed.cmake): the chat page and the OpenAPI description.

#include <string_view>
#include <vector>

namespace nanochat {

struct EmbeddedFile {
  std::string_view name;  // without its folder, such as "page.css"
  std::string_view text;
};

const std::vector<EmbeddedFile>& page_files();     // page/*
const std::vector<EmbeddedFile>& openapi_files();  // openapi.json

}  // namespace nanochat
