#pragma once
// What a file holds: by its name, or by its first bytes where the name does not tell. The one place that knows endings;
// every reader of text, rows and shards asks it. Thread-safe.

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

enum class FileFormat { kUnknown, kText, kJsonLines, kJson, kParquet, kShard };
enum class Compression { kNone, kGzip, kZstd };

struct FileForm {
  FileFormat format = FileFormat::kUnknown;
  Compression compression = Compression::kNone;
};

// What stands for standard input where a file is named.
constexpr const char* kStandardInput = "-";

// By the ending, in upper or lower case: .txt; .jsonl, .ndjson, .jsonlines; .json; .parquet; .tok. A .gz or .zst may follow
// the endings of text and JSON.
FileForm form_of(const std::filesystem::path& path);

// The endings of `formats` for messages: ".txt, .jsonl (.ndjson, .jsonlines), .parquet; also .gz and .zst".
std::string endings_of(const std::vector<FileFormat>& formats);

// Standard input and pipes: "-", /dev/stdin, /dev/fd/N (a shell's <(...)), a FIFO. They can be read once (but see
// reopenable() of byte_source.h), and mostly have no name that tells what they hold.
bool is_stream(const std::filesystem::path& path);

// By the first bytes of a stream.
Compression compression_of(std::string_view beginning);
// Of decompressed ones, a few hundred: parquet by its magic number, JSON lines that begin with "{", JSON that begins with "[",
// otherwise text.
FileFormat format_of(std::string_view beginning);

}  // namespace nanochat
