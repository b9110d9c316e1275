#pragma once
// Format of a file, by its name, or by its first bytes if the name does not tell. The only
// place that knows file extensions; all readers of text, rows and shards use it. Thread-safe.

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

// The name for standard input.
constexpr const char* kStandardInput = "-";

// By the extension, in upper or lower case: .txt; .jsonl, .ndjson, .jsonlines;
// .json; .parquet; .tok. A .gz or .zst may follow the extensions of text and JSON.
FileForm form_of(const std::filesystem::path& path);

// The extensions of `formats` for messages: ".txt, .jsonl (.ndjson, .jsonlines), .parquet; also .gz and .zst".
std::string endings_of(const std::vector<FileFormat>& formats);

// Standard input and pipes: "-", /dev/stdin, /dev/fd/N (a shell's <(...)), a FIFO. They can be read
// once (but see reopenable() of byte_source.h), and usually have no name that tells the format.
bool is_stream(const std::filesystem::path& path);

// By the first bytes of a stream.
Compression compression_of(std::string_view beginning);
// By a few hundred decompressed bytes: parquet by its magic
// number, JSON lines by "{", JSON by "[", otherwise text.
FileFormat format_of(std::string_view beginning);

}  // namespace nanochat
