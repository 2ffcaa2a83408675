// Implements the joining of parts.
#include "app/line_parts.h"

#include <cmath>
#include <utility>

#include "tokenization/sentences.h"

namespace xlate {
namespace {

// Appends the text of a part, and its links with their places in the line.
void append_part(LineResult& line, const LineResult& part) {
  append_sentence(line.text, part.text);
  // What is appended may be without the white space at the part's beginning.
  const std::size_t shift = line.text.size() - part.text.size();
  for (const TextLink& link : part.links) {
    line.links.push_back({link.source, {link.target.begin + shift, link.target.end + shift}});
  }
}

}  // namespace

LineResult join(const std::vector<LineResult>& parts, const Options& options) {
  LineResult line;
  double sum = 0;
  for (const LineResult& part : parts) {
    sum += part.sum;
    line.tokens += part.tokens;
    if (is_text(options.output_format))
      append_part(line, part);
    else if (!part.text.empty())  // Pieces and ids have a space between them.
      line.text.append(line.text.empty() ? "" : " ").append(part.text);
  }
  line.sum = static_cast<float>(sum);
  line.score = static_cast<float>(sum / std::pow(line.tokens, *options.length_penalty));
  return line;
}

void LineParts::expect(std::int64_t line, std::size_t parts) {
  std::lock_guard lock(mutex_);
  waiting_[line] = {.parts = std::vector<LineResult>(parts), .missing = parts};
}

LineParts::Added LineParts::add(std::int64_t line, std::int32_t part, bool hit_limit,
                                LineResult result) {
  std::unique_lock lock(mutex_);
  const auto found = waiting_.find(line);
  Waiting& waiting = found->second;
  Added added{.hit_limit_again = hit_limit && waiting.hit_limit};
  waiting.hit_limit |= hit_limit;
  waiting.parts[static_cast<std::size_t>(part)] = std::move(result);
  if (--waiting.missing > 0) return added;
  const auto complete = waiting_.extract(found);
  lock.unlock();
  std::vector<LineResult>& parts = complete.mapped().parts;
  if (options_.num_samples.value_or(1) > 1)
    added.results = std::move(parts);
  else
    added.results = {join(parts, options_)};
  return added;
}

}  // namespace xlate
