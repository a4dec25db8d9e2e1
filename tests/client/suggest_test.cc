#include "client/suggest.h"

#include "gtest/gtest.h"

namespace lwq::client {
namespace {

const std::vector<std::string> kVerbs = {"convert", "diff", "get", "list", "verify"};

TEST(SuggestTest, OneSlipOfEachKind) {
  EXPECT_EQ(Nearest("lst", kVerbs), "list");        // too few
  EXPECT_EQ(Nearest("verrify", kVerbs), "verify");  // too many
  EXPECT_EQ(Nearest("diif", kVerbs), "diff");       // another one
  EXPECT_EQ(Nearest("gte", kVerbs), "get");         // swapped
  EXPECT_EQ(Nearest("LIST", kVerbs), "list");
}

TEST(SuggestTest, WhatIsFarFromAllIsNotGuessed) {
  EXPECT_EQ(Nearest("download", kVerbs), "");
  EXPECT_EQ(Nearest("", kVerbs), "");
  EXPECT_EQ(Nearest("gc", {{"up"}}), "");
  EXPECT_EQ(Nearest("x", {{"y"}}), "");
  EXPECT_EQ(Nearest(std::string(100000, 'a'), kVerbs), "");
}

TEST(SuggestTest, TheNearestOfSeveral) {
  EXPECT_EQ(Nearest("qantize", {{"quantise"}, {"quantize"}}), "quantize");
  EXPECT_EQ(DidYouMean("budgt", {{"bits"}, {"budget"}}, "--"), "; did you mean --budget?");
  EXPECT_EQ(DidYouMean("zzz", {{"budget"}}, "--"), "");
}

}  // namespace
}  // namespace lwq::client
