// Deterministic mutations of valid inputs: what a fuzzer without feedback would try, repeatable on
// every machine. A parser passes when each mutant gives a value or a typed error, and no crash,
// hang or sanitizer report.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace lwq::testing {

class Mutator {
 public:
  Mutator(unsigned seed, std::vector<std::string> dictionary)
      : random_(seed), dictionary_(std::move(dictionary)) {}

  // `text` after one to four edits: a byte changed, removed, doubled; a piece cut, repeated or
  // moved; a word of the dictionary put in; the end cut off.
  std::string Mutate(std::string text) {
    for (int edits = 1 + Below(4); edits > 0; --edits) Edit(text);
    return text;
  }

 private:
  size_t Below(size_t n) { return n == 0 ? 0 : random_() % n; }

  void Edit(std::string& text) {
    const size_t at = Below(text.size() + 1);
    const size_t length = Below(std::min<size_t>(text.size() - at, 64) + 1);
    switch (Below(8)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(Below(256));
        break;
      case 1:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ 1 << Below(8));
        break;
      case 2:
        text.erase(at, length);
        break;
      case 3:
        text.insert(at, text.substr(at, length));
        break;
      case 4:
        text.insert(Below(text.size() + 1), text.substr(at, length));
        break;
      case 5:
      case 6:
        if (!dictionary_.empty()) {
          const std::string& word = dictionary_[Below(dictionary_.size())];
          text.replace(at, Below(2) * length, word);
        }
        break;
      default:
        text.resize(at);
    }
  }

  std::mt19937 random_;
  std::vector<std::string> dictionary_;
};

}  // namespace lwq::testing
