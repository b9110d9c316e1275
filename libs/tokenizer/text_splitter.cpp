#include "tokenizer/text_splitter.h"

#include <utility>

#include "tokenizer/internal/hf_tokenizer_json.h"

namespace nanochat {
namespace {

using Behavior = SplitStep::Behavior;

struct Span {
  std::size_t begin, end;
  bool match;
};

// Matches and what lies between them, which together are the text; matches may be empty.
std::vector<Span> find_spans(std::string_view text, const Pretokenizer& pattern, bool invert) {
  std::vector<Span> spans;
  Pretokenizer::Position position;
  std::size_t done = 0, begin = 0, end = 0;
  while (pattern.next(text, position, begin, end)) {
    if (begin > done) spans.push_back({done, begin, invert});
    spans.push_back({begin, end, !invert});
    done = end;
  }
  if (done < text.size()) spans.push_back({done, text.size(), invert});
  return spans;
}

// Joins a span to the one before it (in the order given) where `joins(span, previous is a match)`.
template <class Joins>
std::vector<Span> joined(const std::vector<Span>& spans, bool backwards, Joins joins) {
  std::vector<Span> result;
  bool previous_match = false;
  for (std::size_t i = 0; i < spans.size(); ++i) {
    const Span& span = spans[backwards ? spans.size() - 1 - i : i];
    if (!result.empty() && joins(span.match, previous_match)) {
      (backwards ? result.back().begin : result.back().end) = backwards ? span.begin : span.end;
    } else {
      result.push_back(span);
    }
    previous_match = span.match;
  }
  if (backwards) return {result.rbegin(), result.rend()};
  return result;
}

std::vector<Span> pieces_of(std::vector<Span> spans, Behavior behavior) {
  const auto first_match = [](bool match, bool previous) { return match && !previous; };
  switch (behavior) {
    case Behavior::kIsolated: break;
    case Behavior::kRemoved: std::erase_if(spans, [](const Span& span) { return span.match; }); break;
    case Behavior::kContiguous: return joined(spans, false, [](bool match, bool previous) { return match == previous; });
    case Behavior::kMergedWithPrevious: return joined(spans, false, first_match);
    case Behavior::kMergedWithNext: return joined(spans, true, first_match);
  }
  return spans;
}

}  // namespace

TextSplitter::TextSplitter(std::vector<SplitStep> steps) {
  for (SplitStep& step : steps) {
    steps_.emplace_back();
    if (!step.pattern.empty()) steps_.back().pattern.emplace_back(step.pattern);
    steps_.back().step = std::move(step);
  }
}

void TextSplitter::split(std::string_view text, const std::function<void(std::string_view)>& visit) const {
  run(0, text, false, visit);
}

void TextSplitter::run(std::size_t index, std::string_view text, bool printable,
                       const std::function<void(std::string_view)>& visit) const {
  if (text.empty()) return;
  if (index == steps_.size()) {
    if (printable) {
      visit(printable_to_bytes(text, "a split pattern"));
    } else {
      visit(text);
    }
    return;
  }
  const Step& step = steps_[index];
  if (step.step.kind == SplitStep::Kind::kSplit) {
    if (step.step.behavior == Behavior::kIsolated) {
      step.pattern[0].for_each_piece(text, [&](std::string_view piece) { run(index + 1, piece, printable, visit); });
      return;
    }
    for (const Span& span : pieces_of(find_spans(text, step.pattern[0], step.step.invert), step.step.behavior)) {
      run(index + 1, text.substr(span.begin, span.end - span.begin), printable, visit);
    }
    return;
  }
  std::string prefixed;
  if (step.step.add_prefix_space && text.front() != ' ') {
    prefixed.append(1, ' ').append(text);
    text = prefixed;
  }
  const bool last = index + 1 == steps_.size();
  const auto go_on = [&](std::string_view piece) {
    if (last) {
      visit(piece);
    } else {
      run(index + 1, bytes_to_printable(piece), true, visit);
    }
  };
  if (step.pattern.empty()) {
    go_on(text);
  } else {
    step.pattern[0].for_each_piece(text, go_on);
  }
}

}  // namespace nanochat
