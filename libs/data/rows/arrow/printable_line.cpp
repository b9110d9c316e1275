#include "data/rows/arrow/parquet_column.h"

namespace nanochat {

std::string printable_line(std::string_view message) {
  std::string text;
  for (std::size_t i = 0; i < message.size();) {
    const auto at = [&](std::size_t k) { return k < message.size() ? static_cast<unsigned char>(message[k]) : 0u; };
    const unsigned lead = at(i);
    const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 1;
    bool good = lead < 0x80 ? lead >= 0x20 && lead != 0x7f : lead >= 0xc2 && lead <= 0xf4;
    for (std::size_t k = 1; k < length; ++k) good = good && (at(i + k) & 0xc0) == 0x80;
    if (length > 2) {  // neither overlong, nor a surrogate, nor beyond the last character
      const unsigned second = at(i + 1);
      good = good && !(lead == 0xe0 && second < 0xa0) && !(lead == 0xed && second >= 0xa0) &&
             !(lead == 0xf0 && second < 0x90) && !(lead == 0xf4 && second >= 0x90);
    }
    text += good ? message.substr(i, length) : std::string_view(lead == '\n' ? " " : "?");
    i += good ? length : 1;
  }
  while (!text.empty() && (text.back() == ' ' || text.back() == '.')) text.pop_back();
  return text;
}

}  // namespace nanochat
