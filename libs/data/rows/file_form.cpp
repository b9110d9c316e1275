#include "data/rows/file_form.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <system_error>

namespace nanochat {
namespace {

namespace fs = std::filesystem;

struct Ending {
  std::string_view ending;
  FileFormat format;
};

// The first of a format is the one that messages name.
constexpr std::array<Ending, 7> kEndings = {{{".txt", FileFormat::kText},
                                             {".jsonl", FileFormat::kJsonLines},
                                             {".ndjson", FileFormat::kJsonLines},
                                             {".jsonlines", FileFormat::kJsonLines},
                                             {".json", FileFormat::kJson},
                                             {".parquet", FileFormat::kParquet},
                                             {".tok", FileFormat::kShard}}};

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); });
  return text;
}

bool may_be_compressed(FileFormat format) {
  return format == FileFormat::kText || format == FileFormat::kJsonLines || format == FileFormat::kJson;
}

}  // namespace

FileForm form_of(const fs::path& path) {
  const fs::path name = lower(path.filename().string());
  FileForm form;
  fs::path ending = name.extension();
  if (ending == ".gz" || ending == ".zst") {
    form.compression = ending == ".gz" ? Compression::kGzip : Compression::kZstd;
    ending = name.stem().extension();
  }
  for (const Ending& known : kEndings) {
    if (ending != known.ending) continue;
    if (form.compression == Compression::kNone || may_be_compressed(known.format)) form.format = known.format;
  }
  return form;
}

std::string endings_of(const std::vector<FileFormat>& formats) {
  std::string text;
  bool compressed = false;
  for (const FileFormat format : formats) {
    std::string first, others;
    for (const Ending& known : kEndings) {
      if (known.format != format) continue;
      (first.empty() ? first : others) += (first.empty() || others.empty() ? "" : ", ") + std::string(known.ending);
    }
    text += (text.empty() ? "" : ", ") + first + (others.empty() ? "" : " (" + others + ")");
    compressed = compressed || may_be_compressed(format);
  }
  return text + (compressed ? "; also .gz and .zst" : "");
}

bool is_stream(const fs::path& path) {
  const std::string name = path.string();
  if (name == kStandardInput || name == "/dev/stdin" || name.starts_with("/dev/fd/") || name.starts_with("/proc/self/fd/")) {
    return true;
  }
  std::error_code ignored;
  const fs::file_type type = fs::status(path, ignored).type();
  return type == fs::file_type::fifo || type == fs::file_type::socket;
}

Compression compression_of(std::string_view beginning) {
  if (beginning.starts_with("\x1f\x8b")) return Compression::kGzip;
  if (beginning.starts_with("\x28\xb5\x2f\xfd")) return Compression::kZstd;
  return Compression::kNone;
}

FileFormat format_of(std::string_view beginning) {
  if (beginning.starts_with("PAR1")) return FileFormat::kParquet;
  if (beginning.starts_with("\xef\xbb\xbf")) beginning.remove_prefix(3);
  const std::size_t first = beginning.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return FileFormat::kText;
  if (beginning[first] == '{') return FileFormat::kJsonLines;
  return beginning[first] == '[' ? FileFormat::kJson : FileFormat::kText;
}

}  // namespace nanochat
