#include "evaluation/internal/core_yaml.h"

#include <spdlog/fmt/fmt.h>

#include "core/atomic_file.h"
#include "core/errors.h"

namespace nanochat {
namespace {

std::string_view trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

// Without the byte order mark that some editors put first.
std::string read_unmarked(const std::filesystem::path& file) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  std::string text = read_file(file);
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  return text;
}

class YamlReader {
 public:
  explicit YamlReader(const std::filesystem::path& file) : file_(file) {}

  std::vector<YamlEntry> read(std::string_view key) {
    const std::string text = read_unmarked(file_);
    bool in_list = false;
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      const std::string_view line = std::string_view(text).substr(begin, end - begin);
      begin = end + 1;
      ++line_;
      const std::string_view content = trim(line);
      if (content.empty() || content.front() == '#' || content == "---") continue;
      if (!in_list) {
        if (content != std::string(key) + ":") fail(fmt::format("found \"{}\", expected \"{}:\"", content, key));
        in_list = true;
      } else if (content.front() == '-') {
        entries_.push_back({line_, {}});
        const std::string_view rest = trim(content.substr(1));
        if (!rest.empty()) add(rest);
      } else {
        if (entries_.empty()) fail(fmt::format("found \"{}\", expected an entry that begins with \"-\"", content));
        if (line.front() != ' ') fail(fmt::format("found \"{}\", expected an indented \"key: value\"", content));
        add(content);
      }
    }
    if (entries_.empty()) throw DataError(fmt::format("{}: no entries under \"{}:\"", file_.string(), key));
    return std::move(entries_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw DataError(fmt::format("{}:{}: {}", file_.string(), line_, what));
  }

  void add(std::string_view text) {
    const std::size_t colon = text.find(':');
    if (colon == std::string_view::npos || (colon + 1 < text.size() && text[colon + 1] != ' ')) {
      fail(fmt::format("found \"{}\", expected \"key: value\"", text));
    }
    const std::string name(trim(text.substr(0, colon)));
    if (!entries_.back().values.emplace(name, scalar(trim(text.substr(colon + 1)))).second) {
      fail(fmt::format("\"{}\" is given twice", name));
    }
  }

  std::string scalar(std::string_view text) const {
    if (text.empty() || (text.front() != '"' && text.front() != '\'')) {
      return std::string(trim(text.substr(0, text.find(" #"))));
    }
    const char quote = text.front();
    std::string value;
    for (std::size_t i = 1; i < text.size(); ++i) {
      if (text[i] == quote && quote == '\'' && i + 1 < text.size() && text[i + 1] == quote) {
        value += text[i++];
      } else if (text[i] == quote) {
        const std::string_view rest = trim(text.substr(i + 1));
        if (!rest.empty() && rest.front() != '#') break;
        return value;
      } else if (text[i] == '\\' && quote == '"' && i + 1 < text.size()) {
        value += unescape(text[++i]);
      } else {
        value += text[i];
      }
    }
    fail(fmt::format("found {}, expected a quoted value and nothing after it", text));
  }

  char unescape(char c) const {
    switch (c) {
      case 'n': return '\n';
      case 't': return '\t';
      case 'r': return '\r';
      case '"':
      case '\\':
      case '/': return c;
      default: fail(fmt::format("the escape \\{} is not known here; \\n \\t \\r \\\" \\\\ are", c));
    }
  }

  const std::filesystem::path& file_;
  std::size_t line_ = 0;
  std::vector<YamlEntry> entries_;
};

}  // namespace

std::vector<YamlEntry> read_yaml_list(const std::filesystem::path& file, std::string_view key) {
  return YamlReader(file).read(key);
}

std::vector<std::vector<std::string>> read_csv(const std::filesystem::path& file) {
  const std::string text = read_unmarked(file);
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> row{""};
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c != '"') {
        row.back() += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        row.back() += text[i++];
      } else {
        quoted = false;
      }
    } else if (c == '"' && row.back().empty()) {
      quoted = true;
    } else if (c == ',') {
      row.emplace_back();
    } else if (c == '\n') {
      rows.push_back(std::move(row));
      row = {""};
    } else if (c != '\r') {
      row.back() += c;
    }
  }
  if (quoted) throw DataError(fmt::format("{}: a quoted field does not end", file.string()));
  if (row.size() > 1 || !row.front().empty()) rows.push_back(std::move(row));
  return rows;
}

}  // namespace nanochat
