// The best cut against all cuts, and what becomes of characters that are no token.
#include "worker/engine/tokenizer/unigram_model.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::testing::ElementsAre;
using testing::FailsWith;
using ::testing::HasSubstr;
using Tokens = std::vector<std::pair<std::string, double>>;

std::vector<int32_t> Encode(const WordModel& model, absl::string_view word) {
  std::vector<int32_t> ids;
  model.EncodeWord(word, &ids);
  return ids;
}

// The sum of scores of the best way to cut `word` into tokens, by trying all.
double BestScore(const Tokens& tokens, const std::string& word) {
  if (word.empty()) return 0;
  double best = -INFINITY;
  for (const auto& [token, score] : tokens) {
    if (word.rfind(token, 0) == 0) {
      best = std::max(best, score + BestScore(tokens, word.substr(token.size())));
    }
  }
  return best;
}

TEST(UnigramModelTest, TakesTheCutWithTheLargestSum) {
  Tokens tokens = {{"<unk>", 0}, {"a", -2.5}, {"b", -3.25}, {"c", -2.75}};
  // Scores that no rule of longest or shortest tokens follows.
  uint32_t state = 1;
  for (const char* token : {"ab", "bc", "ca", "abc", "aab", "bca", "cc", "aa", "abca", "ccab"}) {
    state = state * 1664525 + 1013904223;
    tokens.emplace_back(token, -3.0 - static_cast<double>(state >> 28) / 2);
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const auto model, UnigramModel::Create(tokens, 0, false));
  for (int i = 0; i < 729; ++i) {
    std::string word;
    for (int rest = i, n = 0; n < 6; ++n, rest /= 3) word.push_back("abc"[rest % 3]);
    std::string joined;
    double score = 0;
    for (const int32_t id : Encode(*model, word)) {
      joined += std::string(model->TokenOf(id));
      score += tokens[static_cast<size_t>(id)].second;
    }
    EXPECT_EQ(joined, word);
    EXPECT_NEAR(score, BestScore(tokens, word), 1e-12) << word;
  }
}

TEST(UnigramModelTest, RunsOfUnknownCharactersAreOneToken) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto model,
                           UnigramModel::Create({{"a", -1}, {"<unk>", 0}, {"b", -2}}, 1, false));
  EXPECT_THAT(Encode(*model, "\u00e9\u4e2da\u00e9b"), ElementsAre(1, 0, 1, 2));
  EXPECT_THAT(Encode(*model, ""), ElementsAre());
  EXPECT_EQ(model->IdOf("b"), 2);
  EXPECT_EQ(model->IdOf("c"), -1);
  EXPECT_EQ(model->TokenOf(3), "");
}

TEST(UnigramModelTest, OrTheTokensOfTheirBytes) {
  Tokens tokens = {{"<unk>", 0}, {"a", -1}};
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", byte);
    tokens.emplace_back(name, -9);
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const auto model, UnigramModel::Create(tokens, 0, true));
  EXPECT_THAT(Encode(*model, "a\u00e9"), ElementsAre(1, 2 + 0xC3, 2 + 0xA9));
  tokens.pop_back();
  EXPECT_THAT(UnigramModel::Create(tokens, 0, true),
              FailsWith("TOKENIZER_INVALID", HasSubstr("<0xFF>")));
}

TEST(UnigramModelTest, WhatIsNoModelIsRefused) {
  EXPECT_THAT(UnigramModel::Create({{"a", -1}}, -1, false),
              FailsWith("TOKENIZER_INVALID", HasSubstr("unknown one is -1")));
  EXPECT_THAT(UnigramModel::Create({{"a", -1}, {"a", -2}}, 0, false),
              FailsWith("TOKENIZER_INVALID", HasSubstr("twice")));
  EXPECT_THAT(UnigramModel::Create({{"a", NAN}}, 0, false),
              FailsWith("TOKENIZER_INVALID", HasSubstr("not finite")));
  EXPECT_THAT(UnigramModel::Create({{std::string(1025, 'a'), -1}}, 0, false),
              FailsWith("TOKENIZER_INVALID", HasSubstr("1,024")));
}

}  // namespace
}  // namespace lwq
