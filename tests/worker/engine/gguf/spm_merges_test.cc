#include "worker/engine/gguf/spm_merges.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lwq {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

// Worked by hand from the rule of transformers' generate_merges: by the score of what is made, then
// the longer left part.
TEST(SpmMergesTest, BestScoreFirstThenTheLongerLeftPart) {
  const std::vector<ScoredPiece> pieces = {{"a", -9},  {"b", -9},   {"c", -9},    {"ab", -2},
                                           {"bc", -1}, {"abc", -3}, {"xyz", -0.5}};
  EXPECT_THAT(*MergesByScore(pieces),
              ElementsAre(Pair("b", "c"), Pair("a", "b"), Pair("ab", "c"), Pair("a", "bc")));
}

TEST(SpmMergesTest, PiecesAreCutBetweenCharacters) {
  // U+2581 and U+00E9; a cut inside either would be no text.
  const std::vector<ScoredPiece> pieces = {{"\xe2\x96\x81", -5},
                                           {"\xc3\xa9", -5},
                                           {"\xe2\x96\x81\xc3\xa9", -1},
                                           {"\xe2", -5},
                                           {"\x96\x81\xc3\xa9", -5}};
  EXPECT_THAT(*MergesByScore(pieces), ElementsAre(Pair("\xe2\x96\x81", "\xc3\xa9")));
}

TEST(SpmMergesTest, WhatIsNotMadeIsNeitherResultNorPart) {
  EXPECT_THAT(*MergesByScore({{"<", -1}, {"s>", -1}, {"<s>", 0, false}}), IsEmpty());
  EXPECT_THAT(*MergesByScore({{"a", -1, false}, {"b", -1}, {"ab", 0}}), IsEmpty());
}

}  // namespace
}  // namespace lwq
