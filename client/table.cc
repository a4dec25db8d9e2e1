#include "client/table.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace lwq::client {
namespace {

// Code points, not bytes: names may hold any UTF-8.
size_t Width(const std::string& cell) {
  return static_cast<size_t>(
      std::count_if(cell.begin(), cell.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

std::string Table::Text() const {
  std::vector<bool> right;
  std::vector<std::string> titles;
  bool titled = false;
  for (const std::string& heading : headings_) {
    right.push_back(!heading.empty() && heading[0] == '>');
    titles.push_back(right.back() ? heading.substr(1) : heading);
    titled = titled || !titles.back().empty();
  }
  std::vector<std::vector<std::string>> lines;
  if (titled) lines.push_back(titles);
  lines.insert(lines.end(), rows_.begin(), rows_.end());
  // Cells hold what servers, workers and other users have written.
  for (std::vector<std::string>& line : lines) {
    for (std::string& cell : line) cell = WithoutControls(cell);
  }
  std::vector<size_t> widths(headings_.size(), 0);
  for (std::vector<std::string>& line : lines) {
    line.resize(headings_.size());
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], Width(line[i]));
  }
  std::string text;
  for (const std::vector<std::string>& line : lines) {
    std::string row;
    for (size_t i = 0; i < line.size(); ++i) {
      const std::string padding(widths[i] - Width(line[i]), ' ');
      absl::StrAppend(&row, i == 0 ? "" : "  ", right[i] ? padding : "", line[i],
                      right[i] ? "" : padding);
    }
    absl::StripTrailingAsciiWhitespace(&row);
    absl::StrAppend(&text, row, "\n");
  }
  return text;
}

}  // namespace lwq::client
