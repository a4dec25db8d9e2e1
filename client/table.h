// Plain text tables.
#pragma once

#include <string>
#include <vector>

namespace lwq::client {

// Columns as wide as their widest cell with two spaces between; never wraps. Columns whose heading
// starts with '>' are flush right (the mark is not printed).
class Table {
 public:
  explicit Table(std::vector<std::string> headings) : headings_(std::move(headings)) {}
  // Missing cells are empty; more cells than headings are left out.
  void AddRow(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  // Whole lines. No heading line when all headings are empty.
  std::string Text() const;

 private:
  const std::vector<std::string> headings_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace lwq::client
